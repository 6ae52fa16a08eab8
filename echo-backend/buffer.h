/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_BUFFER_H
#define TLSDYNO_ECHO_BUFFER_H
/* Buffers that a connection holds only while it has bytes under way; idle connections share the few that are spare. */
#include <stddef.h>

#define BUFFER_BYTES (64 * 1024)

struct buffer {
    size_t begin, end; /* what is in it: bytes[begin..end) */
    struct buffer *next;
    char bytes[BUFFER_BYTES];
};

/* An empty buffer, the one given back last (its bytes are still in the CPU's cache). Ends the worker if there is no
 * memory. */
struct buffer *buffer_take(void);
void buffer_give(struct buffer *buffer);

#endif
