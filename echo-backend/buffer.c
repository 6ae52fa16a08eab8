/* SPDX-License-Identifier: MIT */
#include "buffer.h"

#include "log.h"

#include <stdlib.h>

/* More than that go back to the system, so that a burst does not keep its memory for ever. */
#define SPARE_MAX 64

static struct buffer *spare;
static unsigned spare_count;

static struct buffer *new_buffer(void) {
    struct buffer *buffer = malloc(sizeof *buffer);

    if (buffer)
        return buffer;
    fail(EXIT_FAILED, "out of memory");
}

struct buffer *buffer_take(void) {
    struct buffer *buffer = spare;

    if (buffer) {
        spare = buffer->next;
        spare_count--;
    } else {
        buffer = new_buffer();
    }
    buffer->begin = buffer->end = 0;
    buffer->next = NULL;
    return buffer;
}

void buffer_give(struct buffer *buffer) {
    if (spare_count == SPARE_MAX) {
        free(buffer);
        return;
    }
    buffer->next = spare;
    spare = buffer;
    spare_count++;
}
