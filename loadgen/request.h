/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_REQUEST_H
#define TLSDYNO_REQUEST_H
/*
 * The bytes of a request, made once and sent again and again: a head, then a body that is a pattern without end. The
 * pattern's length is a prime, so a piece of an echo that is lost, doubled or out of place shows, whatever its size.
 */
#include "target.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum method { METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_PUT };
extern const char *const method_names[]; /* ended by NULL */

struct request {
    char *start; /* the head and the beginning of the body, so that a small request is one write */
    size_t head_bytes, start_bytes;
    uint64_t body_bytes;
    uint64_t total_bytes;
};

/* headers: count complete lines without line ends; they may replace Host. */
void request_init(struct request *request, const struct target *target, enum method method, const char *const *headers,
                  int count, uint64_t body_bytes);

/* What lies at offset < total_bytes; *length is set to how much of it lies together. Always the same for an offset. */
const char *request_piece(const struct request *request, uint64_t offset, size_t *length);

/* True if the bytes are those of the body from offset on; offset + length may not exceed body_bytes. */
bool request_body_matches(uint64_t offset, const char *bytes, size_t length);

/* NULL if line is a header line that may be added to a request, else why not. */
const char *request_check_header(const char *line);

#endif
