/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_CHUNK_H
#define TLSDYNO_LIGHT_CHUNK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that are kept for later; mostly there are none, and nothing is allocated. */
struct chunk {
    uint8_t *bytes; /* NULL: none */
    uint32_t length;
};

/* False: no memory, and nothing has changed. length is above 0. */
bool chunk_append(struct chunk *chunk, const uint8_t *bytes, size_t length);

/* Takes bytes away that have been used, from the beginning. */
void chunk_drop(struct chunk *chunk, size_t length);

void chunk_free(struct chunk *chunk);

#endif
