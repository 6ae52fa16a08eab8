/* SPDX-License-Identifier: MIT */
#include "chunk.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_STEP 256 /* what chunks grow by */

bool chunk_append(struct chunk *chunk, const uint8_t *bytes, size_t length) {
    size_t size = (chunk->length + length + CHUNK_STEP - 1) / CHUNK_STEP * CHUNK_STEP;
    uint8_t *grown = realloc(chunk->bytes, size);

    if (!grown)
        return false;
    memcpy(grown + chunk->length, bytes, length);
    chunk->bytes = grown;
    chunk->length += (uint32_t)length;
    return true;
}

void chunk_free(struct chunk *chunk) {
    free(chunk->bytes);
    *chunk = (struct chunk){0};
}

void chunk_drop(struct chunk *chunk, size_t length) {
    if (length == chunk->length) {
        chunk_free(chunk);
        return;
    }
    memmove(chunk->bytes, chunk->bytes + length, chunk->length - length);
    chunk->length -= (uint32_t)length;
}
