/* SPDX-License-Identifier: MIT */
#include "buffer_pool.h"

#include <stdlib.h>

/* Enough for any burst of one turn of the event loop; what is beyond goes back to the system. */
#define FREE_MAX 64

struct buffer *buffer_take(struct buffer_pool *pool) {
    struct buffer *buffer = pool->free;

    if (buffer) {
        pool->free = buffer->next;
        pool->free_count--;
    } else {
        buffer = malloc(sizeof *buffer);
        if (!buffer)
            return NULL;
    }
    buffer->begin = buffer->end = 0;
    return buffer;
}

void buffer_return(struct buffer_pool *pool, struct buffer *buffer) {
    if (pool->free_count >= FREE_MAX) {
        free(buffer);
        return;
    }
    buffer->next = pool->free;
    pool->free = buffer;
    pool->free_count++;
}

void buffer_pool_close(struct buffer_pool *pool) {
    while (pool->free) {
        struct buffer *buffer = pool->free;
        pool->free = buffer->next;
        free(buffer);
    }
    pool->free_count = 0;
}
