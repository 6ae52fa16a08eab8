/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_OUTPUT_H
#define TLSDYNO_ECHO_OUTPUT_H
/*
 * What a connection still has to send, in constant memory. Up to three parts follow each other:
 *
 *     staged                      prepared                 block, block, block...
 *     heads, small answers,       bytes that are kept      the body of a large object, or of one in pieces:
 *     echoed bytes: copied        for ever: not copied     the same block until block_left is 0
 */
#include "buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUTPUT_BLOCK_BYTES (64 * 1024)

/* The memory of a block, which has it twice: so, from anywhere in the first, a whole one lies in one piece. */
#define OUTPUT_BLOCK_TWICE (2 * OUTPUT_BLOCK_BYTES)

/* The longest chunk, and the longest piece that can be asked for: a TLS record's worth. */
#define OUTPUT_PIECE_MAX (16 * 1024)

/* So much room must be left when an answer is begun: more than any head with a small body takes. */
#define OUTPUT_RESERVE (8 * 1024)

/* All zero is empty. */
struct output {
    struct buffer *staged; /* NULL: nothing is staged */
    bool more_comes;       /* hint: another answer is to be made before this one is sent, and may go with it */
    const char *prepared;
    size_t prepared_bytes;
    const char *block; /* OUTPUT_BLOCK_TWICE, kept for ever */
    uint64_t block_left, block_position;
    size_t block_piece; /* 0: as large as they come */
    bool block_chunked;
};

static inline bool output_is_empty(const struct output *output) {
    return !output->staged && !output->prepared_bytes && !output->block_left;
}

/* How many bytes may be staged now; 0 where something that is not staged must be sent first. */
size_t output_room(const struct output *output);

/* Stages a copy. There must be room. */
void output_put(struct output *output, const char *bytes, size_t length);

/* Stages length bytes, which the caller writes where this points to. There must be room. */
char *output_extend(struct output *output, size_t length);

/* Sends bytes that the caller keeps unchanged for ever. */
void output_refer(struct output *output, const char *bytes, size_t length);

/*
 * Sends block over and over, total bytes in all, in chunks (RFC 9112 7.1) if so asked. With a piece (1 to
 * OUTPUT_PIECE_MAX) each so many bytes are a write of their own, and a chunk of their own, in which case the last chunk
 * of all (the empty one) goes with the last piece.
 */
void output_repeat(struct output *output, const char *block, uint64_t total, bool chunked, size_t piece);

/* Stages one chunk. There must be room for its bytes and OUTPUT_CHUNK_OVERHEAD. */
#define OUTPUT_CHUNK_OVERHEAD 24
void output_put_chunk(struct output *output, const char *bytes, size_t length);
void output_put_last_chunk(struct output *output);

/*
 * The next bytes to send, NULL if there are none. They stay as they are, at least so many, until output_sent: what a
 * TLS library wants of a write that is tried again.
 */
const char *output_next(struct output *output, size_t *length);
void output_sent(struct output *output, size_t length);

/* Forgets everything that was not sent. */
void output_drop(struct output *output);

#endif
