/* SPDX-License-Identifier: MIT */
/* Without these, a PROXY header that somebody made up is read behind its end, or fills the answer with its own words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tlvs.h"
#include "whoami.h"

/* In memory of its own size, so that a sanitizer notices a read behind its end. */
static bool is_whole(const uint8_t *bytes, size_t length) {
    uint8_t *copy = malloc(length ? length : 1);
    bool whole;

    memcpy(copy, bytes, length);
    whole = tlvs_are_whole(copy, length);
    if (whole)
        json_decref(tlvs_tell(copy, length));
    free(copy);
    return whole;
}

static void whole_is_what_ends_where_its_space_ends(void **state) {
    static const uint8_t bytes[] = {1, 0, 2, 'h', '2', 0x20, 0, 9, 1, 0, 0, 0, 0, 0x21, 0, 1, 'x', 4, 0, 0};
    (void)state;

    for (size_t length = 0; length <= sizeof bytes; length++)
        assert_int_equal(is_whole(bytes, length), length == 0 || length == 5 || length == 17 || length == 20);
}

static void within_ssl_there_is_no_other_ssl(void **state) {
    static const uint8_t inner[] = {0x20, 0, 9, 1, 0, 0, 0, 0, 0x20, 0, 1, 9};
    json_t *told;
    (void)state;

    assert_true(is_whole(inner, sizeof inner));
    told = tlvs_tell(inner, sizeof inner);
    assert_int_equal(json_integer_value(json_object_get(told, "ssl_client")), 1);
    assert_int_equal(json_object_size(told), 2);
    json_decref(told);
}

/* The longest of all that can be said at once, each byte of text one that takes two in JSON. */
static void what_is_told_has_a_bound(void **state) {
    static uint8_t bytes[60000];
    size_t length = 0;
    char text[WHOAMI_BYTES_MAX];
    json_t *told;
    (void)state;

    for (int level = 0; level < 2; level++) {
        size_t ssl_length_at = length + 1;
        if (level == 1) {
            memcpy(bytes + length, "\x20\0\0\xff\0\0\0\1", 8);
            length += 8;
        }
        for (int type = 0; type < 256; type++) {
            if (type == 0x20)
                continue;
            bytes[length] = (uint8_t)type;
            bytes[length + 1] = 0;
            bytes[length + 2] = 100;
            memset(bytes + length + 3, '"', 100);
            length += 103;
        }
        if (level == 1) {
            bytes[ssl_length_at] = (uint8_t)((length - ssl_length_at - 2) >> 8);
            bytes[ssl_length_at + 1] = (uint8_t)(length - ssl_length_at - 2);
        }
    }
    assert_true(tlvs_are_whole(bytes, length));
    told = tlvs_tell(bytes, length);
    assert_true(json_dumpb(told, text, sizeof text, 0) < WHOAMI_BYTES_MAX - 1500);
    json_decref(told);
}

static void any_bytes_are_safe(void **state) {
    uint32_t seed = 1;
    (void)state;

    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[64] = {0};
        size_t length = (size_t)round % sizeof bytes;
        for (size_t i = 0; i < length; i++) {
            seed = seed * 1664525 + 1013904223;
            bytes[i] = (uint8_t)(seed >> 24 & 3 ? (seed >> 16) % 8 : seed >> 16 & 0x3f);
        }
        is_whole(bytes, length);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_is_what_ends_where_its_space_ends),
        cmocka_unit_test(within_ssl_there_is_no_other_ssl),
        cmocka_unit_test(what_is_told_has_a_bound),
        cmocka_unit_test(any_bytes_are_safe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
