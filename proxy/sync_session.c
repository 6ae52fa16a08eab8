/* SPDX-License-Identifier: MIT */
#include "sync_session.h"

#define WORD    8
#define RUN_MAX UINT8_MAX

/* How many bytes the word at this place has: the last one may have fewer. */
static size_t word_at(size_t at, size_t length) {
    return length - at < WORD ? length - at : WORD;
}

static bool is_same(const struct sync_session *before, const uint8_t *bytes, size_t length, size_t at) {
    size_t word = word_at(at, length);

    if (!before || at + word > before->length)
        return false;
    /* Of a length that the compiler knows, it is one instruction. */
    return word == WORD ? memcmp(bytes + at, before->bytes + at, WORD) == 0
                        : memcmp(bytes + at, before->bytes + at, word) == 0;
}

/* How many words from there on are as in the one before, or are not. */
static size_t count_words(const struct sync_session *before, const uint8_t *bytes, size_t length, size_t at,
                          bool same) {
    size_t count = 0;

    for (; count < RUN_MAX && at < length && is_same(before, bytes, length, at) == same; at += WORD)
        count++;
    return count;
}

/* How many bytes so many words from there on have. */
static size_t bytes_of(size_t words, size_t at, size_t length) {
    return words * WORD < length - at ? words * WORD : length - at;
}

void sync_session_write(struct writer *writer, const struct sync_session *before, const uint8_t *bytes, size_t length) {
    writer_u16(writer, (uint16_t)length);
    for (size_t at = 0; at < length;) {
        size_t same = count_words(before, bytes, length, at, true), others;

        at += bytes_of(same, at, length);
        others = count_words(before, bytes, length, at, false);
        writer_u8(writer, (uint8_t)same);
        writer_u8(writer, (uint8_t)others);
        writer_bytes(writer, bytes + at, bytes_of(others, at, length));
        at += bytes_of(others, at, length);
    }
}

void sync_session_read(struct reader *reader, struct sync_session *before) {
    size_t length = reader_u16(reader), at = 0, known = before->length;

    if (length == 0 || length > sizeof before->bytes)
        reader->failed = true;
    while (!reader->failed && at < length) {
        size_t same = reader_u8(reader), others = reader_u8(reader), count;
        const uint8_t *bytes;

        at += bytes_of(same, at, length);
        count = bytes_of(others, at, length);
        bytes = reader_take(reader, count);
        if (!bytes || same + others == 0 || (same && at > known)) {
            reader->failed = true;
            break;
        }
        memcpy(before->bytes + at, bytes, count);
        at += count;
    }
    before->length = reader->failed ? 0 : length;
}
