/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_RESPOND_H
#define TLSDYNO_ECHO_RESPOND_H
/* The answer to a request, as bytes of output. */
#include "output.h"
#include "request.h"
#include "whoami.h"

/* Makes the fillings of objects. Once, before the first answer. */
void respond_init(void);

/* The whole answer to whatever is not an echo. The output must have room (OUTPUT_RESERVE). */
void respond(struct output *output, const struct request *request, const struct whoami_facts *facts);

/* The same, where it lies ready for ever, and its length; NULL where it must be made. */
const char *respond_ready(const struct request *request, size_t *length);

/* "HTTP/1.1 100 Continue" (RFC 9110 10.1.1). */
void respond_continue(struct output *output);

/* The answer to bytes that are not HTTP: 400, and the connection ends. reason is one line without its end. */
void respond_bad(struct output *output, const char *reason);

/*
 * An echo: its head, then each piece of its body as it comes, then its end. The output must have room
 * (OUTPUT_RESERVE, and for a piece its length in addition).
 */
void respond_echo_head(struct output *output, const struct request *request);
void respond_echo_piece(struct output *output, const struct request *request, const char *bytes, size_t length);
void respond_echo_end(struct output *output, const struct request *request);

#endif
