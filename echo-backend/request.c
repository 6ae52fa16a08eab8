/* SPDX-License-Identifier: MIT */
#include "request.h"

#include "output.h"
#include "units.h"

#include <stdio.h>
#include <string.h>

#define DELAY_MAX_NS (600 * NS_PER_S)
#define SEPARATORS   "&?,;/"

/* What httpterm knows and this server does not: refused, since to ignore it would measure something else. */
static const char not_here[] = "wPcBeSv";

static const char *set_size(struct request *request, const char *value) {
    return parse_size(value, &request->size_bytes) ? NULL : "not a size such as 100, 16k or 2m";
}

static const char *set_piece(struct request *request, const char *value) {
    uint64_t piece;

    if (!parse_size(value, &piece) || piece == 0 || piece > OUTPUT_PIECE_MAX)
        return "not a size from 1 to 16k";
    request->piece_bytes = (size_t)piece;
    return NULL;
}

static const char *set_length_told(struct request *request, const char *value) {
    bool below_zero = *value == '-';
    uint64_t length;

    if (!parse_size(value + below_zero, &length))
        return "not a size such as 100 or 16k, 0, or -1";
    request->told = below_zero ? LENGTH_TRUE : length == 0 ? LENGTH_OMITTED : LENGTH_FALSE;
    request->told_bytes = length;
    return NULL;
}

static const char *set_status(struct request *request, const char *value) {
    uint64_t status;

    if (!parse_uint(value, &status) || status < 200 || status > 599)
        return "not a status from 200 to 599";
    request->status = (unsigned)status;
    return NULL;
}

static const char *set_delay(struct request *request, const char *value) {
    uint64_t delay, delay_ms;

    if (parse_uint(value, &delay_ms))
        delay = delay_ms > DELAY_MAX_NS / NS_PER_MS ? DELAY_MAX_NS + 1 : delay_ms * NS_PER_MS;
    else if (!parse_duration_ns(value, &delay))
        return "not a time such as 20 (ms), 20ms or 2s";
    if (delay > DELAY_MAX_NS)
        return "longer than 10 minutes";
    request->delay_ns = delay;
    return NULL;
}

static const char *read_switch(const char *value, bool *on) {
    if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0 && *value)
        return "neither 0 nor 1";
    *on = *value != '0';
    return NULL;
}

static const char *set_close(struct request *request, const char *value) {
    bool on;
    const char *reason = read_switch(value, &on);

    if (!reason && on)
        request->keep_alive = false;
    return reason;
}

static const char *set_keep(struct request *request, const char *value) {
    bool on;
    const char *reason = read_switch(value, &on);

    if (!reason && on)
        request->keep_alive = request->keep_asked = true;
    return reason;
}

static const char *set_chunked(struct request *request, const char *value) {
    return read_switch(value, &request->chunked);
}

static const char *set_random(struct request *request, const char *value) {
    return read_switch(value, &request->random);
}

static const char *set_help(struct request *request, const char *value) {
    bool on;
    const char *reason = read_switch(value, &on);

    if (!reason && on)
        request->kind = REQUEST_HELP;
    return reason;
}

static const struct query_key {
    char letter;
    bool has_value; /* else it is a switch, and the letter alone switches it on */
    const char *help;
    const char *(*set)(struct request *request, const char *value); /* NULL or why the value is refused */
} keys[] = {
    {'s', true, "s=SIZE    bytes of the answer's body, k, m and g are powers of 1024 (0)", set_size},
    {'r', true, "r=STATUS  status code, 200 to 599 (200); 204 and 304 have no body", set_status},
    {'t', true, "t=MS      wait before the answer; 20, 20ms and 0.02s are the same (0)", set_delay},
    {'k', false, "k=1       the body comes in chunks (HTTP/1.1 only)", set_chunked},
    {'p', true,
     "p=SIZE    the body is sent in pieces of SIZE bytes, 1 to 16k, each a write (TLS record, chunk) of its own",
     set_piece},
    {'b', true,
     "b=LENGTH  announce this length instead of the true one; 0: announce none; -1: the true one (-1).\n"
     "            s bytes are sent all the same, then the connection is closed (K=1: kept open)",
     set_length_told},
    {'R', false, "R=1       the body is pseudo-random bytes, the same ones each time", set_random},
    {'C', false, "C=1       close the connection after the answer", set_close},
    {'K', false, "K=1       keep the connection open, also for an HTTP/1.0 client that did not ask", set_keep},
    {'h', false, "h         this help", set_help},
};

#define KEYS (sizeof keys / sizeof *keys)

const char *request_help(void) {
    static char text[2048];
    size_t length;

    if (*text)
        return text;
    length = (size_t)snprintf(text, sizeof text,
                              "GET, HEAD   an object as these keys ask for it: /?s=16k&r=404\n"
                              "POST, PUT   the body of the request; C, K, r and t apply\n"
                              "/whoami     what this server knows of the connection, as JSON\n\n"
                              "Separators are & ? , ; and /\n\n");
    for (size_t i = 0; i < KEYS; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "  %s\n", keys[i].help);
    snprintf(text + length, sizeof text - length,
             "\nA key of httpterm's that is not in this list is refused, anything else is ignored.\n");
    return text;
}

static void refuse(struct request *request, char letter, const char *reason) {
    request->kind = REQUEST_BAD;
    snprintf(request->refusal, sizeof request->refusal, "%c: %s", letter, reason);
}

/* One piece between separators: "s=16k", "C" or something that is none of ours. */
static void read_piece(struct request *request, const char *piece, size_t length) {
    char value[32] = "";
    const char *reason = "too long";

    if (length == 6 && memcmp(piece, "whoami", 6) == 0 && request->kind == REQUEST_OBJECT)
        request->kind = REQUEST_WHOAMI;
    if (length == 0 || (length > 1 && piece[1] != '='))
        return;
    for (size_t i = 0; i < KEYS; i++) {
        const struct query_key *key = &keys[i];
        if (key->letter != piece[0] || (length == 1 && key->has_value))
            continue;
        if (length < sizeof value + 2) {
            if (length > 2)
                memcpy(value, piece + 2, length - 2);
            value[length > 2 ? length - 2 : 0] = '\0';
            reason = key->set(request, value);
        }
        if (reason)
            refuse(request, key->letter, reason);
        return;
    }
    if (length > 1 && strchr(not_here, piece[0]))
        refuse(request, piece[0], "this server does not have that key of httpterm's");
}

static void read_target(struct request *request, const char *target) {
    for (;;) {
        size_t length = strcspn(target, SEPARATORS);

        read_piece(request, target, length);
        if (request->kind == REQUEST_BAD || !target[length])
            return;
        target += length + 1;
    }
}

void request_read(struct request *request, const struct http_framing *framing) {
    enum request_kind kind = REQUEST_OBJECT;

    if (framing->method == HTTP_POST || framing->method == HTTP_PUT)
        kind = REQUEST_ECHO;
    else if (framing->method != HTTP_GET && framing->method != HTTP_HEAD)
        kind = REQUEST_OTHER_METHOD;
    request->kind = kind;
    request->head_only = framing->method == HTTP_HEAD;
    request->http_1_0 =
        framing->parser.http_major < 1 || (framing->parser.http_major == 1 && framing->parser.http_minor == 0);
    request->keep_alive = framing->keep_alive;
    request->chunked = false;
    request->has_length = false;
    request->random = false;
    request->keep_asked = false;
    request->piece_bytes = 0;
    request->told = LENGTH_TRUE;
    request->status = 200;
    request->size_bytes = 0;
    request->delay_ns = 0;
    read_target(request, framing->target);
    if (request->kind == REQUEST_BAD)
        return;
    if (kind != REQUEST_OBJECT)
        request->kind = kind;
    if (kind == REQUEST_ECHO) {
        /* The answer is framed as the request is; a request with neither length nor chunks has no body. */
        request->chunked = (framing->parser.flags & F_CHUNKED) != 0;
        request->has_length = !request->chunked;
        request->size_bytes = framing->content_length;
        if (request->chunked && request->http_1_0)
            request->keep_alive = false; /* the end of the connection ends the answer */
    }
    if (request->http_1_0)
        request->chunked = false;
    if (request->kind != REQUEST_OBJECT || request->told == LENGTH_TRUE)
        return;
    if (request->chunked)
        refuse(request, 'b', "with k=1 there is no length to announce");
    else if (!request->keep_asked)
        request->keep_alive = false;
}
