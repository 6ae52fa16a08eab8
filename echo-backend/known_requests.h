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

/* The request that bytes begin with, and its length; NULL if it is not known, or not all there. */
const struct request *known_requests_find(const char *bytes, size_t length, size_t *request_bytes);

/* Keeps one instead of an earlier one; nothing if it is too long. bytes are the whole request. */
void known_requests_keep(const char *bytes, size_t length, const struct request *request);

#endif
