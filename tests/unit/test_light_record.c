/* SPDX-License-Identifier: MIT */
/* Without these, a record that is wrong could be taken, or read past its end: every suite and version, both ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "bytes.h"
#include "light/cipher_cache.h"
#include "light/record.h"

#include <openssl/ssl.h>
#include <stdlib.h>

static const int versions[] = {TLS1_VERSION, TLS1_1_VERSION, TLS1_2_VERSION, TLS1_3_VERSION};

/* Two ends with the same keys. */
static void make_pair(const struct suite *suite, int version, struct direction *sender, struct direction *receiver) {
    uint8_t keys[HASH_BYTES_MAX + 32 + 16];

    for (size_t i = 0; i < sizeof keys; i++)
        keys[i] = (uint8_t)(i * 7 + suite->id);
    direction_begin(sender, version);
    direction_begin(receiver, version);
    if (version >= TLS1_3_VERSION) {
        direction_set_traffic_secret(sender, suite, keys, NULL);
        direction_set_traffic_secret(receiver, suite, keys, NULL);
    } else {
        direction_set_keys(sender, suite, version, keys, keys + HASH_BYTES_MAX, keys + HASH_BYTES_MAX + 32);
        direction_set_keys(receiver, suite, version, keys, keys + HASH_BYTES_MAX, keys + HASH_BYTES_MAX + 32);
    }
}

static void end_pair(struct direction *sender, struct direction *receiver) {
    direction_end(sender);
    direction_end(receiver);
}

typedef void each_suite(const struct suite *suite, int version);

static void for_each_suite(each_suite *check) {
    for (size_t v = 0; v < sizeof versions / sizeof *versions; v++) {
        const struct suite *list[SUITES_MAX];
        int count = suites_of_version(versions[v], list);
        assert_true(count >= 3);
        for (int i = 0; i < count; i++)
            check(list[i], versions[v]);
    }
    cipher_cache_clear();
}

static void check_round_trip(const struct suite *suite, int version) {
    static const size_t lengths[] = {1, 0, 15, 16, 17, 100, 1000, RECORD_PLAIN_MAX};
    struct direction sender, receiver;
    uint8_t *bytes = malloc(RECORD_PLAIN_MAX), *into = malloc(RECORD_SEALED_MAX);

    make_pair(suite, version, &sender, &receiver);
    for (size_t i = 0; i < RECORD_PLAIN_MAX; i++)
        bytes[i] = (uint8_t)(i * 31);
    /* Twice in a row, for what depends on the record before; in its place, and into other memory. */
    for (size_t i = 0; i < 2 * sizeof lengths / sizeof *lengths; i++) {
        size_t length = lengths[i / 2];
        /* Of just the size it may have, so that a sanitizer sees a byte too many. */
        uint8_t *record = malloc(length + RECORD_OVERHEAD_MAX);
        size_t sealed = record_seal(&sender, CONTENT_APPLICATION_DATA, bytes, length, record);
        struct plaintext plaintext;
        assert_true(sealed > RECORD_HEADER_BYTES && sealed <= length + RECORD_OVERHEAD_MAX);
        assert_int_equal((size_t)record[3] << 8 | record[4], sealed - RECORD_HEADER_BYTES);
        assert_int_equal(record_open(&receiver, record, record + RECORD_HEADER_BYTES, sealed - RECORD_HEADER_BYTES,
                                     i % 2 ? into : NULL, &plaintext),
                         NO_ALERT);
        assert_int_equal(plaintext.type, CONTENT_APPLICATION_DATA);
        assert_int_equal(plaintext.length, length);
        assert_memory_equal(plaintext.bytes, bytes, length);
        if (i % 2)
            assert_ptr_equal(plaintext.bytes, into);
        free(record);
    }
    end_pair(&sender, &receiver);
    free(bytes);
    free(into);
}

static void what_is_sealed_opens(void **state) {
    (void)state;
    for_each_suite(check_round_trip);
}

static void check_tampering(const struct suite *suite, int version) {
    static const uint8_t bytes[40] = "forty bytes that nobody may change";

    for (size_t at = 0;; at++) {
        struct direction sender, receiver;
        uint8_t record[sizeof bytes + RECORD_OVERHEAD_MAX];
        struct plaintext plaintext;
        make_pair(suite, version, &sender, &receiver);
        size_t sealed = record_seal(&sender, CONTENT_HANDSHAKE, bytes, sizeof bytes, record);
        if (at == sealed) {
            end_pair(&sender, &receiver);
            break;
        }
        record[at] ^= 0x40;
        /* The length of the header is the caller's business; that of TLS 1.3 is authenticated all the same. */
        bool is_length = at == 3 || at == 4;
        enum alert alert = record_open(&receiver, record, record + RECORD_HEADER_BYTES, sealed - RECORD_HEADER_BYTES,
                                       NULL, &plaintext);
        if (!is_length || version >= TLS1_3_VERSION)
            assert_int_not_equal(alert, NO_ALERT);
        end_pair(&sender, &receiver);
    }
}

static void one_changed_bit_anywhere_is_noticed(void **state) {
    (void)state;
    for_each_suite(check_tampering);
}

static void check_truncation(const struct suite *suite, int version) {
    static const uint8_t bytes[40] = "forty bytes that must all be there";
    uint8_t record[sizeof bytes + RECORD_OVERHEAD_MAX];
    struct direction sender, receiver;

    make_pair(suite, version, &sender, &receiver);
    size_t sealed = record_seal(&sender, CONTENT_ALERT, bytes, sizeof bytes, record);
    end_pair(&sender, &receiver);
    for (size_t length = 0; length < sealed - RECORD_HEADER_BYTES; length++) {
        uint8_t *body = calloc(1, length + 1), *into = calloc(1, length + 1);
        struct plaintext plaintext;
        memcpy(body, record + RECORD_HEADER_BYTES, length);
        make_pair(suite, version, &sender, &receiver);
        assert_int_not_equal(record_open(&receiver, record, body, length, length % 2 ? into : NULL, &plaintext),
                             NO_ALERT);
        end_pair(&sender, &receiver);
        free(body);
        free(into);
    }
}

static void a_record_cut_short_is_noticed(void **state) {
    (void)state;
    for_each_suite(check_truncation);
}

static void check_replay(const struct suite *suite, int version) {
    uint8_t record[8 + RECORD_OVERHEAD_MAX], again[sizeof record];
    struct direction sender, receiver;
    struct plaintext plaintext;

    make_pair(suite, version, &sender, &receiver);
    size_t body =
        record_seal(&sender, CONTENT_APPLICATION_DATA, (const uint8_t *)"replayed", 8, record) - RECORD_HEADER_BYTES;
    memcpy(again, record, sizeof record);
    assert_int_equal(record_open(&receiver, record, record + RECORD_HEADER_BYTES, body, NULL, &plaintext), NO_ALERT);
    assert_int_not_equal(record_open(&receiver, again, again + RECORD_HEADER_BYTES, body, NULL, &plaintext), NO_ALERT);
    end_pair(&sender, &receiver);
}

static void a_record_does_not_open_twice(void **state) {
    (void)state;
    for_each_suite(check_replay);
}

/* RFC 8446, 5.4: any number of zeros may follow the content type. */
static void padding_of_tls13_is_taken_off(void **state) {
    const struct suite *suite = suite_by_name("TLS_AES_128_GCM_SHA256", 22);
    static const uint8_t padded[] = {'h', 'i', CONTENT_ALERT, 0, 0, 0, 0};
    uint8_t record[sizeof padded + RECORD_OVERHEAD_MAX];
    struct direction sender, receiver;
    struct plaintext plaintext;
    (void)state;

    make_pair(suite, TLS1_3_VERSION, &sender, &receiver);
    /* The sender's own type byte is one more zero. */
    size_t sealed = record_seal(&sender, (enum content_type)0, padded, sizeof padded, record);
    assert_int_equal(
        record_open(&receiver, record, record + RECORD_HEADER_BYTES, sealed - RECORD_HEADER_BYTES, NULL, &plaintext),
        NO_ALERT);
    assert_int_equal(plaintext.type, CONTENT_ALERT);
    assert_int_equal(plaintext.length, 2);
    /* Nothing but zeros has no type. */
    sealed = record_seal(&sender, (enum content_type)0, padded + 3, 4, record);
    assert_int_equal(
        record_open(&receiver, record, record + RECORD_HEADER_BYTES, sealed - RECORD_HEADER_BYTES, NULL, &plaintext),
        ALERT_UNEXPECTED_MESSAGE);
    end_pair(&sender, &receiver);
    cipher_cache_clear();
}

/* More directions than contexts: each record still finds its own keys. */
static void keys_that_fell_out_of_the_cache_come_back(void **state) {
    const struct suite *suite = suite_by_name("ECDHE-RSA-AES128-SHA", 20);
    enum { PAIRS = 1500 };
    struct direction *sender = calloc(PAIRS, sizeof *sender), *receiver = calloc(PAIRS, sizeof *receiver);
    (void)state;

    for (int i = 0; i < PAIRS; i++)
        make_pair(suite, TLS1_VERSION, &sender[i], &receiver[i]);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < PAIRS; i++) {
            uint8_t record[4 + RECORD_OVERHEAD_MAX];
            struct plaintext plaintext;
            size_t sealed = record_seal(&sender[i], CONTENT_APPLICATION_DATA, (const uint8_t *)"data", 4, record);
            assert_int_equal(record_open(&receiver[i], record, record + RECORD_HEADER_BYTES,
                                         sealed - RECORD_HEADER_BYTES, NULL, &plaintext),
                             NO_ALERT);
        }
    }
    for (int i = 0; i < PAIRS; i++)
        end_pair(&sender[i], &receiver[i]);
    free(sender);
    free(receiver);
    cipher_cache_clear();
}

/* ---- bytes.h ---- */

static void reading_past_the_end_gives_zeros_and_is_remembered(void **state) {
    static const uint8_t bytes[] = {1, 2, 3, 0, 5, 9};
    struct reader reader = reader_of(bytes, sizeof bytes);
    (void)state;

    assert_int_equal(reader_u8(&reader), 1);
    assert_int_equal(reader_u16(&reader), 0x0203);
    struct reader vector = reader_vector(&reader, 2); /* says 5 bytes, has 1 */
    assert_true(vector.failed && vector.left == 0);
    assert_true(reader.failed && !reader_is_done(&reader));
    assert_int_equal(reader_uint(&reader, 4), 0);
    assert_null(reader_take(&reader, 1));
}

static void writing_past_the_end_does_nothing_and_is_remembered(void **state) {
    uint8_t bytes[6] = {0};
    struct writer writer = writer_of(bytes, 5);
    (void)state;

    size_t vector = writer_begin(&writer, 2);
    writer_u16(&writer, 0x0102);
    writer_end(&writer, vector, 2);
    assert_memory_equal(bytes, ((uint8_t[]){0, 2, 1, 2, 0, 0}), 6);
    writer_u16(&writer, 0xffff);
    assert_true(writer.full && writer.length == 4);
    assert_memory_equal(bytes, ((uint8_t[]){0, 2, 1, 2, 0, 0}), 6);

    uint8_t large[400];
    writer = writer_of(large, sizeof large);
    vector = writer_begin(&writer, 1);
    writer_room(&writer, 256); /* more than a byte can say */
    writer_end(&writer, vector, 1);
    assert_true(writer.full);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sealed_opens),
        cmocka_unit_test(one_changed_bit_anywhere_is_noticed),
        cmocka_unit_test(a_record_cut_short_is_noticed),
        cmocka_unit_test(a_record_does_not_open_twice),
        cmocka_unit_test(padding_of_tls13_is_taken_off),
        cmocka_unit_test(keys_that_fell_out_of_the_cache_come_back),
        cmocka_unit_test(reading_past_the_end_gives_zeros_and_is_remembered),
        cmocka_unit_test(writing_past_the_end_does_nothing_and_is_remembered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
