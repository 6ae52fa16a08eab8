/* SPDX-License-Identifier: MIT */
#include "http_framing.h"

#include <string.h>
#include <strings.h>

/* Stops the parser after the current byte: http_framing_feed returns there. */
static int stop_at(http_parser *parser, enum http_event event) {
    struct http_framing *framing = parser->data;

    framing->event = event;
    http_parser_pause(parser, 1);
    return 0;
}

static int on_message_begin(http_parser *parser) {
    struct http_framing *framing = parser->data;

    framing->target_length = 0;
    framing->expects_continue = false;
    framing->in_value = false;
    framing->name_matched = framing->value_matched = 0;
    return 0;
}

static int on_url(http_parser *parser, const char *at, size_t length) {
    struct http_framing *framing = parser->data;

    if (framing->target_length + length >= framing->target_size)
        return -1;
    memcpy(framing->target + framing->target_length, at, length);
    framing->target_length += length;
    framing->target[framing->target_length] = '\0';
    return 0;
}

#define WRONG SIZE_MAX

/* How far text matches, after one more piece of what is compared with it, whatever its case. */
static size_t match(size_t matched, const char *text, const char *piece, size_t length) {
    if (matched == WRONG || length > strlen(text) - matched)
        return WRONG;
    return strncasecmp(text + matched, piece, length) == 0 ? matched + length : WRONG;
}

static const char expect[] = "expect", continues[] = "100-continue"; /* RFC 9110 10.1.1 */

/* Names and values come in as many pieces as the bytes that they are in. */
static int on_header_field(http_parser *parser, const char *at, size_t length) {
    struct http_framing *framing = parser->data;

    if (framing->in_value)
        framing->name_matched = framing->value_matched = 0;
    framing->in_value = false;
    framing->name_matched = match(framing->name_matched, expect, at, length);
    return 0;
}

static int on_header_value(http_parser *parser, const char *at, size_t length) {
    struct http_framing *framing = parser->data;

    framing->in_value = true;
    if (framing->name_matched != sizeof expect - 1)
        return 0;
    framing->value_matched = match(framing->value_matched, continues, at, length);
    framing->expects_continue = framing->value_matched == sizeof continues - 1;
    return 0;
}

static int on_headers_complete(http_parser *parser) {
    struct http_framing *framing = parser->data;

    framing->method = parser->method;
    framing->status = parser->status_code;
    framing->keep_alive = http_should_keep_alive(parser) != 0;
    framing->has_length = parser->content_length != UINT64_MAX;
    framing->content_length = framing->has_length ? parser->content_length : 0;
    /* A request to change the protocol may be ignored (RFC 9110 7.8), but CONNECT is nothing else. */
    if (parser->type == HTTP_REQUEST && parser->method != HTTP_CONNECT)
        parser->upgrade = 0;
    stop_at(parser, HTTP_HEADERS);
    return framing->head_only ? 1 : 0;
}

static int on_body(http_parser *parser, const char *at, size_t length) {
    struct http_framing *framing = parser->data;

    framing->body = at;
    framing->body_bytes = length;
    return stop_at(parser, HTTP_BODY);
}

static int on_message_complete(http_parser *parser) {
    struct http_framing *framing = parser->data;

    framing->head_only = false;
    return stop_at(parser, HTTP_DONE);
}

static const http_parser_settings settings = {
    .on_message_begin = on_message_begin,
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

static void init(struct http_framing *framing, enum http_parser_type type) {
    memset(framing, 0, sizeof *framing);
    http_parser_init(&framing->parser, type);
    framing->parser.data = framing;
}

void http_framing_init_request(struct http_framing *framing, char *target, size_t target_size) {
    init(framing, HTTP_REQUEST);
    framing->target = target;
    framing->target_size = target_size;
    target[0] = '\0';
}

void http_framing_init_response(struct http_framing *framing, struct http_known_head *known) {
    init(framing, HTTP_RESPONSE);
    framing->known = known;
    framing->between = true;
}

void http_framing_expect_no_body(struct http_framing *framing) {
    framing->head_only = true;
}

/* ---- Heads that are known ---- */

/* The head is bytes[0..used]: the parser stops before its last byte. */
static void remember_head(struct http_framing *framing, const char *bytes, size_t used, size_t length) {
    struct http_known_head *known = framing->known;

    if (used >= length || used >= sizeof known->bytes || bytes[used] != '\n')
        return; /* too long */
    if (!framing->keep_alive || framing->status < 200 || !(framing->parser.flags & F_CONTENTLENGTH))
        return;
    known->length = used + 1;
    known->status = framing->status;
    known->content_length = framing->content_length;
    memcpy(known->bytes, bytes, known->length);
}

static bool is_known_head(const struct http_framing *framing, const char *bytes, size_t length) {
    const struct http_known_head *known = framing->known;

    return known->length > 0 && length >= known->length && memcmp(bytes, known->bytes, known->length) == 0;
}

static size_t take_known_head(struct http_framing *framing) {
    const struct http_known_head *known = framing->known;

    framing->between = false;
    framing->is_known = true;
    framing->holds_byte = true;
    framing->left_bytes = framing->content_length = known->content_length;
    framing->has_length = true;
    framing->keep_alive = true;
    framing->status = known->status;
    framing->event = HTTP_HEADERS;
    return known->length - 1;
}

/* As the parser does it, the last byte of head and body is held back, so that there is one left for what comes next. */
static size_t feed_known(struct http_framing *framing, const char *bytes, size_t length) {
    size_t used = framing->holds_byte ? 1 : 0;

    if (length == 0) {
        framing->event = HTTP_BAD;
        framing->error = http_errno_description(HPE_INVALID_EOF_STATE);
        return 0;
    }
    framing->holds_byte = false;
    if (framing->left_bytes == 0) {
        framing->is_known = false;
        framing->between = true;
        framing->event = HTTP_DONE;
        return used;
    }
    framing->body_bytes = length - used < framing->left_bytes ? length - used : (size_t)framing->left_bytes;
    if (framing->body_bytes == 0) {
        framing->event = HTTP_MORE;
        return used;
    }
    framing->body = bytes + used;
    framing->left_bytes -= framing->body_bytes;
    framing->holds_byte = framing->left_bytes == 0;
    framing->event = HTTP_BODY;
    return used + framing->body_bytes - (framing->holds_byte ? 1 : 0);
}

size_t http_framing_feed(struct http_framing *framing, const char *bytes, size_t length) {
    bool begins = framing->known && framing->between && !framing->head_only;
    size_t used;

    if (framing->is_known)
        return feed_known(framing, bytes, length);
    if (begins && is_known_head(framing, bytes, length))
        return take_known_head(framing);
    framing->event = HTTP_MORE;
    used = http_parser_execute(&framing->parser, &settings, bytes, length);
    switch (HTTP_PARSER_ERRNO(&framing->parser)) {
    case HPE_OK:
        break;
    case HPE_PAUSED:
        http_parser_pause(&framing->parser, 0);
        break;
    default:
        framing->event = HTTP_BAD;
        framing->error = http_errno_description(HTTP_PARSER_ERRNO(&framing->parser));
        if (HTTP_PARSER_ERRNO(&framing->parser) == HPE_CB_url)
            framing->error = "the target of the request is too long";
        return used;
    }
    if (framing->parser.upgrade && framing->event == HTTP_DONE) {
        framing->event = HTTP_BAD;
        framing->error = "the connection changes its protocol";
    }
    if (begins && framing->event == HTTP_HEADERS)
        remember_head(framing, bytes, used, length);
    /* After the last message of a connection, the parser takes no more. */
    framing->between = framing->event == HTTP_DONE ? framing->keep_alive : framing->between && length == 0;
    return used;
}
