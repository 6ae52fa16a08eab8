/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sync_message.h"

#include <openssl/kdf.h>
#include <string.h>

static const struct sync_head head = {"sixteen bytes...", SYNC_TO_ALL, 7};

struct fixture {
    struct sync_keys *keys;
    EVP_CIPHER_CTX *seal, *open;
};

static struct fixture set_up(const char *word) {
    struct fixture made = {.seal = EVP_CIPHER_CTX_new(), .open = EVP_CIPHER_CTX_new()};
    uint8_t secret[SYNC_SECRET_BYTES];

    assert_true(sync_secret_derive(secret, (const uint8_t *)word, strlen(word)));
    made.keys = sync_keys_new(secret);
    assert_non_null(made.keys);
    assert_true(sync_cipher_set(made.seal, made.keys, head.sender, true));
    assert_true(sync_cipher_set(made.open, made.keys, head.sender, false));
    return made;
}

static void tear_down(struct fixture *made) {
    EVP_CIPHER_CTX_free(made->seal);
    EVP_CIPHER_CTX_free(made->open);
    sync_keys_free(made->keys);
}

static bool opens(const struct fixture *made, const uint8_t *datagram, size_t length) {
    uint8_t opened[SYNC_PACKET_BYTES_MAX];
    struct sync_head read;
    struct reader messages;
    uint64_t date_us;

    return sync_packet_read_head(datagram, length, &read) == SYNC_TAKEN &&
           sync_packet_open(made->open, &read, datagram, length, opened, &date_us, &messages);
}

static void what_was_sealed_opens_and_is_the_same(void **state) {
    (void)state;
    struct fixture made = set_up("secret");
    uint8_t datagram[200], opened[SYNC_PACKET_BYTES_MAX];
    struct reader messages;
    struct sync_head read;
    uint64_t date_us;
    size_t length = sync_packet_seal(made.seal, &head, 123456789012345, (const uint8_t *)"words", 5, datagram);

    assert_int_equal(length, 5 + SYNC_AROUND_BYTES);
    assert_int_equal(sync_packet_read_head(datagram, length, &read), SYNC_TAKEN);
    assert_memory_equal(&read, &head, sizeof head);
    assert_true(sync_packet_open(made.open, &read, datagram, length, opened, &date_us, &messages));
    assert_int_equal(date_us, 123456789012345);
    assert_int_equal(messages.left, 5);
    assert_memory_equal(messages.at, "words", 5);
    tear_down(&made);
}

static void any_byte_changed_or_missing_is_found(void **state) {
    (void)state;
    struct fixture made = set_up("secret"), other = set_up("another");
    uint8_t datagram[200];
    size_t length = sync_packet_seal(made.seal, &head, 1, (const uint8_t *)"words", 5, datagram);

    for (size_t at = 0; at < length; at++) {
        datagram[at] ^= 0x10;
        assert_false(opens(&made, datagram, length));
        datagram[at] ^= 0x10;
        assert_false(opens(&made, datagram, at));
    }
    assert_true(opens(&made, datagram, length));
    datagram[length] = 0;
    assert_false(opens(&made, datagram, length + 1));
    assert_false(opens(&other, datagram, length));
    tear_down(&made);
    tear_down(&other);
}

static void what_is_wrong_in_the_clear_has_its_own_name(void **state) {
    (void)state;
    static uint8_t datagram[SYNC_PACKET_BYTES_MAX + 1] = "TDS\002";
    struct sync_head read;

    assert_int_equal(sync_packet_read_head(datagram, sizeof datagram, &read), SYNC_oversized);
    assert_int_equal(sync_packet_read_head(datagram, sizeof datagram - 1, &read), SYNC_TAKEN);
    assert_int_equal(sync_packet_read_head(datagram, SYNC_AROUND_BYTES - 1, &read), SYNC_truncated);
    assert_int_equal(sync_packet_read_head(datagram, 3, &read), SYNC_truncated);
    assert_int_equal(sync_packet_read_head(datagram, 0, &read), SYNC_truncated);
    datagram[3] = SYNC_VERSION - 1;
    assert_int_equal(sync_packet_read_head(datagram, 4, &read), SYNC_wrong_version);
    datagram[0] = 't';
    assert_int_equal(sync_packet_read_head(datagram, 1000, &read), SYNC_not_ours);
}

/* Against the library's own HKDF, so that another implementation finds the same keys. */
static void keys_of_senders_are_those_of_hkdf(void **state) {
    (void)state;
    uint8_t key[32], sealed[SYNC_AROUND_BYTES], tag[SYNC_TAG_BYTES], nonce[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7};
    uint8_t info[] = "sendersixteen bytes...", plain[SYNC_DATE_BYTES];
    EVP_PKEY_CTX *hkdf = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, NULL);
    EVP_CIPHER_CTX *aes = EVP_CIPHER_CTX_new();
    struct fixture made = set_up("secret");
    size_t length = sizeof key;
    int count;

    assert_true(EVP_PKEY_derive_init(hkdf) == 1 && EVP_PKEY_CTX_set_hkdf_md(hkdf, EVP_sha256()) == 1);
    assert_int_equal(EVP_PKEY_CTX_set1_hkdf_salt(hkdf, (const unsigned char *)"tlsdyno sessions between hosts", 30), 1);
    assert_int_equal(EVP_PKEY_CTX_set1_hkdf_key(hkdf, (const unsigned char *)"secret", 6), 1);
    assert_int_equal(EVP_PKEY_CTX_add1_hkdf_info(hkdf, info, sizeof info - 1), 1);
    assert_int_equal(EVP_PKEY_derive(hkdf, key, &length), 1);
    sync_packet_seal(made.seal, &head, 0x0102030405060708, NULL, 0, sealed);
    memcpy(tag, sealed + sizeof sealed - sizeof tag, sizeof tag);
    assert_int_equal(EVP_DecryptInit_ex(aes, EVP_aes_256_gcm(), NULL, key, nonce), 1);
    assert_int_equal(EVP_DecryptUpdate(aes, NULL, &count, sealed, SYNC_HEAD_BYTES), 1);
    assert_int_equal(EVP_DecryptUpdate(aes, plain, &count, sealed + SYNC_HEAD_BYTES, sizeof plain), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(aes, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag), 1);
    assert_int_equal(EVP_DecryptFinal_ex(aes, plain, &count), 1);
    assert_memory_equal(plain, "\1\2\3\4\5\6\7\10", sizeof plain);
    EVP_CIPHER_CTX_free(aes);
    EVP_PKEY_CTX_free(hkdf);
    tear_down(&made);
}

static const struct sync_message all[] = {
    {.kind = SYNC_CHALLENGE, .nonce = head.sender},
    {.kind = SYNC_PROOF, .nonce = head.sender, .number = UINT64_C(1) << 40},
    {.kind = SYNC_NEW,
     .expires_ms = 5,
     .id = head.sender,
     .id_length = 16,
     .session = head.sender,
     .session_length = 9},
    {.kind = SYNC_NEW,
     .expires_ms = 6,
     .id = head.sender + 2,
     .id_length = 3,
     .session = head.sender,
     .session_length = 12},
    {.kind = SYNC_NEW, .expires_ms = 7, .id = head.sender, .id_length = 1, .session = head.sender, .session_length = 2},
    {.kind = SYNC_DEL, .expires_ms = UINT64_MAX, .id = head.sender, .id_length = 1},
    {.kind = SYNC_GET, .id = head.sender, .id_length = 16},
    {.kind = SYNC_CATCH_UP, .number = 3},
    {.kind = SYNC_CAUGHT_UP, .number = 3, .next = 9},
    {.kind = SYNC_TICKET_KEY,
     .expires_ms = 8,
     .key_use = SYNC_KEY_OPENS,
     .key = {"a name of 16 byt", "cipher", "mac", 32}},
    {.kind = SYNC_TICKET_KEY, .expires_ms = 8, .key = {"another of them ", "cipher", "mac", 16}},
};

static struct sync_session before;

static size_t write_all(uint8_t *bytes, size_t size) {
    struct writer writer = writer_of(bytes, size);

    before.length = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!sync_message_write(&writer, &before, &all[i]))
            break;
    assert_false(writer.full);
    return writer.length;
}

static bool same_bytes(const uint8_t *one, const uint8_t *other, size_t length) {
    return one && other ? memcmp(one, other, length) == 0 : one == other;
}

static void messages_are_read_as_they_were_written(void **state) {
    (void)state;
    uint8_t bytes[1000];
    struct reader reader = reader_of(bytes, write_all(bytes, sizeof bytes));
    struct sync_message message;

    before.length = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_true(sync_message_read(&reader, &before, &message));
        assert_int_equal(message.kind, all[i].kind);
        assert_true(message.number == all[i].number && message.next == all[i].next);
        assert_true(message.expires_ms == all[i].expires_ms && message.key_use == all[i].key_use);
        assert_int_equal(message.id_length, all[i].id_length);
        assert_int_equal(message.session_length, all[i].session_length);
        assert_true(same_bytes(message.id, all[i].id, message.id_length));
        assert_true(same_bytes(message.session, all[i].session, message.session_length));
        assert_true(same_bytes(message.nonce, all[i].nonce, SYNC_NONCE_BYTES));
        assert_memory_equal(&message.key, &all[i].key, sizeof message.key);
    }
    assert_false(sync_message_read(&reader, &before, &message));
    assert_true(reader_is_done(&reader));
}

/* Cut anywhere: what is whole is read, what is not is refused. */
static void messages_that_are_cut_off_are_refused(void **state) {
    (void)state;
    uint8_t bytes[1000];
    size_t length = write_all(bytes, sizeof bytes), whole = 0;

    for (size_t cut = 0; cut <= length; cut++) {
        struct reader reader = reader_of(bytes, cut);
        struct sync_message message;
        size_t count = 0;

        before.length = 0;
        while (sync_message_read(&reader, &before, &message))
            count++;
        assert_true(count >= whole);
        whole = count;
        if (cut == length)
            assert_false(reader.failed);
    }
    assert_int_equal(whole, sizeof all / sizeof *all);
}

static void what_has_no_room_is_not_begun(void **state) {
    (void)state;
    uint8_t bytes[1000];
    size_t length = write_all(bytes, sizeof bytes);

    for (size_t size = 0; size < length; size++) {
        struct reader reader = reader_of(bytes, write_all(bytes, size));
        struct sync_message message;

        before.length = 0;
        while (sync_message_read(&reader, &before, &message))
            ;
        assert_true(reader_is_done(&reader));
    }
}

static void a_kind_that_is_not_known_is_passed_over(void **state) {
    (void)state;
    static const uint8_t bytes[] = {200, 0, 3, 1, 2, 3, SYNC_GET, 0, 3, 2, 'i', 'd'};
    struct reader reader = reader_of(bytes, sizeof bytes);
    struct sync_message message;

    assert_true(sync_message_read(&reader, &before, &message));
    assert_int_equal(message.kind, SYNC_GET);
    assert_false(sync_message_read(&reader, &before, &message));
    assert_true(reader_is_done(&reader));
}

static void broken_messages_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
    } broken[] = {
        {"\5\0\1\0", 4},                                     /* an ID of no bytes */
        {"\5\0\42\41aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 37}, /* of 33 */
        {"\5\0\3\1aa", 6},                                   /* something left over */
        {"\3\0\16\0\0\0\0\0\0\0\0\0\0\1\377\377a", 17},      /* a session of no bytes */
        {"\3\0\20\0\0\0\0\0\0\0\0\0\1\0\1s\2\0\0", 19},      /* an ID that is not all inside its session */
        {"\6\0\7\0\0\0\0\0\0\0", 10},                        /* half a number */
        {"\10\0\31\0\0\0\0\0\0\0\0\0name of sixteen.", 28},  /* a key without secrets */
        {"\5", 1},
    };

    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct reader reader = reader_of((const uint8_t *)broken[i].bytes, broken[i].length);
        struct sync_message message;

        assert_false(sync_message_read(&reader, &before, &message));
        assert_true(reader.failed);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_sealed_opens_and_is_the_same),
        cmocka_unit_test(any_byte_changed_or_missing_is_found),
        cmocka_unit_test(what_is_wrong_in_the_clear_has_its_own_name),
        cmocka_unit_test(keys_of_senders_are_those_of_hkdf),
        cmocka_unit_test(messages_are_read_as_they_were_written),
        cmocka_unit_test(messages_that_are_cut_off_are_refused),
        cmocka_unit_test(what_has_no_room_is_not_begun),
        cmocka_unit_test(a_kind_that_is_not_known_is_passed_over),
        cmocka_unit_test(broken_messages_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
