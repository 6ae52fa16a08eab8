/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_HTTP_FRAMING_H
#define TLSDYNO_HTTP_FRAMING_H
/*
 * Where an HTTP/1 message begins and ends in a stream of bytes (RFC 9112), over http-parser. Nothing is copied but the
 * target of a request: body pieces are handed out as they lie in the caller's buffer.
 */
#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http_event {
    HTTP_MORE,    /* all bytes are used up: bring more */
    HTTP_HEADERS, /* the head is complete: the fields below are set */
    HTTP_BODY,    /* a piece of the body: body, body_bytes */
    HTTP_DONE,    /* the message is complete; the next one may follow at once in the same bytes */
    HTTP_BAD,     /* not HTTP: error says why; the connection is of no more use */
};

/*
 * A response head that was parsed, with what came of it, so that the same bytes need not be parsed again: mostly, one
 * response has the head of the last. Only heads with Content-Length after which the connection goes on are kept.
 */
struct http_known_head {
    size_t length; /* 0: none */
    unsigned status;
    uint64_t content_length;
    char bytes[1024];
};

struct http_framing {
    http_parser parser;
    enum http_event event;
    const char *body;  /* of HTTP_BODY: points into the bytes that were fed */
    size_t body_bytes; /* of HTTP_BODY */
    /* From HTTP_HEADERS to HTTP_DONE: */
    unsigned method;         /* request: enum http_method */
    unsigned status;         /* response */
    bool keep_alive;         /* the connection may carry another message */
    bool expects_continue;   /* request: "Expect: 100-continue" */
    bool has_length;         /* content_length is known */
    uint64_t content_length; /* what the head announces */
    bool head_only;          /* response to HEAD: set by http_framing_expect_no_body */
    const char *error;       /* of HTTP_BAD */
    /* Private. */
    bool in_value;                 /* of a field; the next piece of a name begins another one */
    size_t name_matched;           /* bytes of the field's name that are those of "expect", WRONG if one was not */
    size_t value_matched;          /* the same of its value and "100-continue" */
    bool between;                  /* messages: the next byte begins one */
    bool is_known;                 /* the parser sees nothing of this message: its head is known->bytes */
    bool holds_byte;               /* is_known: of what came before, the last byte is yet to be used */
    uint64_t left_bytes;           /* is_known: of the body */
    struct http_known_head *known; /* NULL: all heads are parsed */
    size_t target_size, target_length;
    char *target;
};

/*
 * target is the caller's, of target_size bytes: it holds each request's target as it was sent, ended by NUL. A request
 * with a longer one is HTTP_BAD.
 */
void http_framing_init_request(struct http_framing *framing, char *target, size_t target_size);

/* known (may be NULL) is the caller's, zeroed at first; all connections of a thread can have the same. */
void http_framing_init_response(struct http_framing *framing, struct http_known_head *known);

/* The next response has no body whatever its head says: it answers a HEAD request. */
void http_framing_expect_no_body(struct http_framing *framing);

/*
 * Reads up to the next event; returns how many bytes were used and sets framing->event. Feed the rest again while there
 * is any. The end of the stream is fed as length 0: it is HTTP_DONE where it ends a response without length, HTTP_MORE
 * between messages, HTTP_BAD in the middle of one.
 */
size_t http_framing_feed(struct http_framing *framing, const char *bytes, size_t length);

#endif
