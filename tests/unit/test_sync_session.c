/* SPDX-License-Identifier: MIT */
#include "sync_session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* As long as ours, with an ID and a secret that are another each time: parts of eleven words. */
#define USUAL_BYTES  220
#define RANDOM_AT    17
#define RANDOM       82
#define RANDOM_WORDS 11

static void fill(uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)rand();
}

static size_t write_one(uint8_t *written, size_t size, const struct sync_session *before, const uint8_t *bytes,
                        size_t length) {
    struct writer writer = writer_of(written, size);

    sync_session_write(&writer, before, bytes, length);
    return writer.full ? 0 : writer.length;
}

/* What is read is what was written; how long it was in between. */
static size_t check(const struct sync_session *before, const uint8_t *bytes, size_t length) {
    static uint8_t written[2 * SESSION_BYTES_MAX];
    static struct sync_session session;
    size_t size = write_one(written, sizeof written, before, bytes, length);
    struct reader reader = reader_of(written, size);

    assert_true(size > 0);
    session = before ? *before : (struct sync_session){0};
    sync_session_read(&reader, &session);
    assert_true(reader_is_done(&reader));
    assert_int_equal(session.length, length);
    assert_memory_equal(session.bytes, bytes, length);
    return size;
}

static void what_is_read_is_what_was_written(void **state) {
    (void)state;
    static struct sync_session before;
    static uint8_t bytes[SESSION_BYTES_MAX];

    for (int turn = 0; turn < 2000; turn++) {
        size_t length = 1 + (size_t)rand() % (turn % 10 ? 600 : SESSION_BYTES_MAX);
        before.length = turn % 7 ? 1 + (size_t)rand() % (turn % 11 ? 600 : SESSION_BYTES_MAX) : 0;
        fill(before.bytes, before.length);
        fill(bytes, length);
        /* Pieces of any length as they were, of those that are none up to the whole. */
        for (size_t at = 0; at < length && at < before.length; at += 1 + (size_t)rand() % 400) {
            size_t end = at + (size_t)rand() % 400, most = length < before.length ? length : before.length;
            memcpy(bytes + at, before.bytes + at, (end < most ? end : most) - at);
        }
        check(&before, bytes, length);
        check(&before, before.bytes, before.length ? before.length : 1);
        check(NULL, bytes, length);
    }
}

static void of_one_that_is_like_the_one_before_little_is_written(void **state) {
    (void)state;
    static struct sync_session before = {.length = USUAL_BYTES};
    uint8_t bytes[USUAL_BYTES];

    fill(before.bytes, sizeof bytes);
    memcpy(bytes, before.bytes, sizeof bytes);
    assert_true(check(&before, bytes, sizeof bytes) == 2 + 2);
    fill(bytes + RANDOM_AT, RANDOM);
    assert_true(check(&before, bytes, sizeof bytes) == 2 + 2 + RANDOM_WORDS * 8 + 2);
}

static void what_has_no_room_is_said_to_have_none(void **state) {
    (void)state;
    uint8_t bytes[USUAL_BYTES], written[USUAL_BYTES + 4];

    fill(bytes, sizeof bytes);
    assert_int_equal(write_one(written, sizeof written, NULL, bytes, sizeof bytes), sizeof written);
    for (size_t size = 0; size < sizeof written; size++)
        assert_int_equal(write_one(written, size, NULL, bytes, sizeof bytes), 0);
}

static void what_is_no_session_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
    } broken[] = {
        {"", 0},
        {"\0", 1},
        {"\0\0", 2},                   /* of no bytes */
        {"\0\3\0\2ab", 6},             /* cut off */
        {"\0\3\0\3ab", 6},             /* the same */
        {"\0\3\0\0\0\3abc", 9},        /* a run of none */
        {"\0\6\1\0", 4},               /* as in one before that is shorter */
        {"\0\14\0\1abcdefgh\1\0", 14}, /* the same, though it has as many bytes itself by then */
        {"\20\1\0\0", 4},              /* of more than there are */
    };

    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct reader reader = reader_of((const uint8_t *)broken[i].bytes, broken[i].length);
        struct sync_session before = {.length = 4, .bytes = "1234"};

        sync_session_read(&reader, &before);
        assert_true(reader.failed);
        assert_int_equal(before.length, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_read_is_what_was_written),
        cmocka_unit_test(of_one_that_is_like_the_one_before_little_is_written),
        cmocka_unit_test(what_has_no_room_is_said_to_have_none),
        cmocka_unit_test(what_is_no_session_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
