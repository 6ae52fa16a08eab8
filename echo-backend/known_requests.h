/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_KNOWN_REQUESTS_H
#define TLSDYNO_ECHO_KNOWN_REQUESTS_H
/*
 * Requests that were read before, with what came of it, so that the same bytes need not be read again: a load asks for
 * the same few things a million times. Only requests without a body are kept, whose head is all there is of them.
 */
#include "request.h"

#include <stddef.h>

/* The longest that is kept. */
#define KNOWN_REQUEST_BYTES_MAX 512

struct known_request {
    size_t length;
    struct request request;
    const char *answer; /* NULL: it must be made; else it is this, kept for ever, and nothing else is to be done */
    size_t answer_bytes;
};

/* The request that bytes begin with; NULL if it is not known, or not all there. */
const struct known_request *known_requests_find(const char *bytes, size_t length);

/* Keeps one, whose length bytes are these, instead of an earlier one; nothing if it is too long. */
void known_requests_keep(const char *bytes, const struct known_request *request);

#endif
