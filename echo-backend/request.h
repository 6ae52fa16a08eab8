/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_REQUEST_H
#define TLSDYNO_ECHO_REQUEST_H
/* What a client asks for: the method and httpterm's query keys. */
#include "http_framing.h"

#include <stdbool.h>
#include <stdint.h>

enum request_kind {
    REQUEST_OBJECT,       /* size_bytes of filling */
    REQUEST_ECHO,         /* the body of the request */
    REQUEST_WHOAMI,       /* what the server knows of this connection */
    REQUEST_HELP,         /* the query keys */
    REQUEST_BAD,          /* refusal says why */
    REQUEST_OTHER_METHOD, /* not one of GET, HEAD, POST and PUT */
};

/* What the head of the answer says of the length of its body. */
enum length_told {
    LENGTH_TRUE,
    LENGTH_FALSE,   /* another one */
    LENGTH_OMITTED, /* nothing: the body is as long as the connection */
};

struct request {
    enum request_kind kind;
    bool head_only;  /* the answer has no body */
    bool http_1_0;   /* the client knows neither chunks nor keep-alive by default */
    bool keep_alive; /* the connection stays open after the answer */
    bool keep_asked; /* by key */
    bool chunked;    /* the answer is to come in chunks; never with http_1_0 */
    bool has_length; /* echo: the length of the body is size_bytes; else it comes in chunks */
    bool random;     /* the filling is not to be compressible */
    unsigned status; /* of the answer */
    uint64_t size_bytes;
    size_t piece_bytes;    /* the body goes out in pieces of so many bytes; 0: as large as they come */
    enum length_told told; /* of the body, unless it comes in chunks */
    uint64_t told_bytes;   /* LENGTH_FALSE */
    uint64_t delay_ns;     /* between the request and its answer */
    char refusal[96];
};

/* Reads the head of a request: framing's event is HTTP_HEADERS. Never fails: a bad one is REQUEST_BAD. */
void request_read(struct request *request, const struct http_framing *framing);

/* The text of the help, made from the table of keys. */
const char *request_help(void);

#endif
