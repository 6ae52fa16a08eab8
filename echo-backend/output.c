/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <stdio.h>
#include <string.h>

/* Of the body of an object; a TLS record's worth. */
#define CHUNK_BYTES (16 * 1024)

static size_t smaller(size_t a, uint64_t b) {
    return b < a ? (size_t)b : a;
}

static size_t staged_room(const struct output *output) {
    return output->staged ? BUFFER_BYTES - output->staged->end : BUFFER_BYTES;
}

size_t output_room(const struct output *output) {
    return output->prepared_bytes || output->block_left ? 0 : staged_room(output);
}

char *output_extend(struct output *output, size_t length) {
    char *bytes;

    if (!output->staged)
        output->staged = buffer_take();
    bytes = output->staged->bytes + output->staged->end;
    output->staged->end += length;
    return bytes;
}

void output_put(struct output *output, const char *bytes, size_t length) {
    memcpy(output_extend(output, length), bytes, length);
}

void output_refer(struct output *output, const char *bytes, size_t length) {
    output->prepared = bytes;
    output->prepared_bytes = length;
}

void output_put_chunk(struct output *output, const char *bytes, size_t length) {
    char head[OUTPUT_CHUNK_OVERHEAD];
    int head_bytes = snprintf(head, sizeof head, "%zx\r\n", length);

    output_put(output, head, (size_t)head_bytes);
    output_put(output, bytes, length);
    output_put(output, "\r\n", 2);
}

void output_put_last_chunk(struct output *output) {
    output_put(output, "0\r\n\r\n", 5);
}

/* Stages what fits of the repeated block, in one piece. */
static void stage_block(struct output *output) {
    size_t position = output->block_position % OUTPUT_BLOCK_BYTES;
    size_t length = smaller(OUTPUT_BLOCK_BYTES - position, output->block_left);
    size_t room = staged_room(output);

    if (output->block_chunked) {
        if (room <= 2 * OUTPUT_CHUNK_OVERHEAD)
            return;
        length = smaller(smaller(length, CHUNK_BYTES), room - 2 * OUTPUT_CHUNK_OVERHEAD);
        output_put_chunk(output, output->block + position, length);
    } else {
        length = smaller(length, room);
        if (length)
            output_put(output, output->block + position, length);
    }
    output->block_position += length;
    output->block_left -= length;
    if (output->block_chunked && output->block_left == 0)
        output_put_last_chunk(output);
}

void output_repeat(struct output *output, const char *block, uint64_t total, bool chunked) {
    output->block = block;
    output->block_left = total;
    output->block_position = 0;
    output->block_chunked = chunked;
    if (total)
        stage_block(output); /* with the head, in one write */
    else if (chunked)
        output_put_last_chunk(output);
}

const char *output_next(struct output *output, size_t *length) {
    size_t position;

    if (!output->staged && !output->prepared_bytes && output->block_left && output->block_chunked)
        stage_block(output);
    if (output->staged) {
        *length = output->staged->end - output->staged->begin;
        return output->staged->bytes + output->staged->begin;
    }
    if (output->prepared_bytes) {
        *length = output->prepared_bytes;
        return output->prepared;
    }
    if (!output->block_left)
        return NULL;
    position = output->block_position % OUTPUT_BLOCK_BYTES;
    *length = smaller(OUTPUT_BLOCK_BYTES - position, output->block_left);
    return output->block + position;
}

void output_sent(struct output *output, size_t length) {
    if (output->staged) {
        output->staged->begin += length;
        if (output->staged->begin < output->staged->end)
            return;
        buffer_give(output->staged);
        output->staged = NULL;
    } else if (output->prepared_bytes) {
        output->prepared += length;
        output->prepared_bytes -= length;
    } else {
        output->block_position += length;
        output->block_left -= length;
    }
}

void output_drop(struct output *output) {
    if (output->staged)
        buffer_give(output->staged);
    *output = (struct output){0};
}
