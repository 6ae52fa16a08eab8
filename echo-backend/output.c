/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <stdio.h>
#include <string.h>

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

/* What lies ready of the block: up to the end of the piece, if it goes in pieces. */
static const char *next_of_block(const struct output *output, size_t limit, size_t *length) {
    if (output->block_piece)
        limit = output->block_piece - (size_t)(output->block_position % output->block_piece);
    *length = smaller(limit, output->block_left);
    return output->block + output->block_position % OUTPUT_BLOCK_BYTES;
}

static void block_used(struct output *output, size_t length) {
    output->block_position += length;
    output->block_left -= length;
}

/* Stages what fits of the repeated block, in one piece or chunk. */
static void stage_block(struct output *output) {
    size_t room = staged_room(output), length;
    const char *bytes;

    if (room <= OUTPUT_PIECE_MAX + 2 * OUTPUT_CHUNK_OVERHEAD)
        return;
    bytes = next_of_block(output, output->block_chunked ? OUTPUT_PIECE_MAX : room, &length);
    if (output->block_chunked)
        output_put_chunk(output, bytes, length);
    else
        output_put(output, bytes, length);
    block_used(output, length);
    if (output->block_chunked && output->block_left == 0)
        output_put_last_chunk(output);
}

void output_repeat(struct output *output, const char *block, uint64_t total, bool chunked, size_t piece) {
    output->block = block;
    output->block_left = total;
    output->block_position = 0;
    output->block_chunked = chunked;
    output->block_piece = piece;
    if (total && !piece)
        stage_block(output); /* with the head, in one write */
    else if (!total && chunked)
        output_put_last_chunk(output);
}

const char *output_next(struct output *output, size_t *length) {
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
    return next_of_block(output, OUTPUT_BLOCK_BYTES, length);
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
        block_used(output, length);
    }
}

void output_drop(struct output *output) {
    if (output->staged)
        buffer_give(output->staged);
    *output = (struct output){0};
}
