/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_BYTES_H
#define TLSDYNO_BYTES_H
/*
 * A cursor over bytes that came from the network, and one for building what goes there. Both take any input: what does
 * not fit sets a flag, after which reading gives zeros and empty vectors and writing does nothing. So a parser reads
 * all it wants and asks once, at the end, whether it was there.
 *
 * Integers are big-endian; a vector is its length in 1, 2 or 3 bytes and then its bytes (RFC 8446, 3.4).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
    const uint8_t *at; /* never NULL */
    size_t left;
    bool failed; /* more was asked for than there was */
};

static inline struct reader reader_of(const uint8_t *bytes, size_t length) {
    return (struct reader){.at = bytes, .left = length};
}

/* The next length bytes, or NULL. */
static inline const uint8_t *reader_take(struct reader *reader, size_t length) {
    const uint8_t *bytes = reader->at;

    if (length > reader->left) {
        reader->failed = true;
        reader->left = 0;
        return NULL;
    }
    reader->at += length;
    reader->left -= length;
    return bytes;
}

static inline uint32_t reader_uint(struct reader *reader, size_t size) {
    const uint8_t *bytes = reader_take(reader, size);
    uint32_t value = 0;

    for (size_t i = 0; bytes && i < size; i++)
        value = value << 8 | bytes[i];
    return value;
}

static inline uint8_t reader_u8(struct reader *reader) {
    return (uint8_t)reader_uint(reader, 1);
}

static inline uint16_t reader_u16(struct reader *reader) {
    return (uint16_t)reader_uint(reader, 2);
}

static inline uint64_t reader_u64(struct reader *reader) {
    uint64_t high = reader_uint(reader, 4);

    return high << 32 | reader_uint(reader, 4);
}

/* A vector whose length is written in size bytes; empty if it is not all there. */
static inline struct reader reader_vector(struct reader *reader, size_t size) {
    size_t length = reader_uint(reader, size);
    const uint8_t *bytes = reader_take(reader, length);

    return bytes ? reader_of(bytes, length) : (struct reader){.at = reader->at, .failed = true};
}

/* All was there and nothing is left over. */
static inline bool reader_is_done(const struct reader *reader) {
    return !reader->failed && reader->left == 0;
}

struct writer {
    uint8_t *start;
    size_t length, size; /* written, room in all */
    bool full;           /* something did not fit: what was written is of no use */
};

static inline struct writer writer_of(uint8_t *bytes, size_t size) {
    return (struct writer){.start = bytes, .size = size};
}

/* Room for length bytes, to be filled by the caller; NULL if there is none. */
static inline uint8_t *writer_room(struct writer *writer, size_t length) {
    uint8_t *bytes = writer->start + writer->length;

    if (length > writer->size - writer->length) {
        writer->full = true;
        return NULL;
    }
    writer->length += length;
    return bytes;
}

static inline void writer_bytes(struct writer *writer, const void *bytes, size_t length) {
    uint8_t *room = writer_room(writer, length);

    if (room && length > 0)
        memcpy(room, bytes, length);
}

static inline void writer_uint(struct writer *writer, uint32_t value, size_t size) {
    uint8_t *room = writer_room(writer, size);

    for (size_t i = 0; room && i < size; i++)
        room[i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

static inline void writer_u8(struct writer *writer, uint8_t value) {
    writer_uint(writer, value, 1);
}

static inline void writer_u16(struct writer *writer, uint16_t value) {
    writer_uint(writer, value, 2);
}

static inline void writer_u64(struct writer *writer, uint64_t value) {
    writer_uint(writer, (uint32_t)(value >> 32), 4);
    writer_uint(writer, (uint32_t)value, 4);
}

/* Begins a vector whose length takes size bytes; writer_end with what this returned fills it in. */
static inline size_t writer_begin(struct writer *writer, size_t size) {
    writer_uint(writer, 0, size);
    return writer->length;
}

static inline void writer_end(struct writer *writer, size_t begin, size_t size) {
    size_t length = writer->length - begin;

    if (writer->full)
        return;
    if (length >> 8 * size) {
        writer->full = true;
        return;
    }
    for (size_t i = 0; i < size; i++)
        writer->start[begin - size + i] = (uint8_t)(length >> 8 * (size - 1 - i));
}

#endif
