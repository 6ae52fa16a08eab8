/* SPDX-License-Identifier: MIT */
/* Without these, a wrong key schedule shows only as "Finished is wrong": here every step has its published value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "light/cipher_cache.h"
#include "light/key_schedule.h"

#include <string.h>

static size_t from_hex(const char *hex, uint8_t *bytes) {
    size_t count = 0;

    while (*hex) {
        unsigned value = 0;
        if (*hex == ' ') {
            hex++;
            continue;
        }
        for (int i = 0; i < 2; i++, hex++)
            value = value << 4 | (unsigned)(*hex <= '9' ? *hex - '0' : *hex - 'a' + 10);
        bytes[count++] = (uint8_t)value;
    }
    return count;
}

static void assert_hex(const uint8_t *bytes, const char *hex) {
    uint8_t expected[256];
    size_t length = from_hex(hex, expected);

    assert_memory_equal(bytes, expected, length);
}

/* ---- RFC 8448, 3: simple 1-RTT handshake ---- */

static const char shared_hex[] = "8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d";
/* Transcript-Hash(ClientHello..ServerHello) and (ClientHello..server Finished), (..client Finished). */
static const char hello_hash_hex[] = "860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8";
static const char server_hash_hex[] = "9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13";
static const char client_hash_hex[] = "209145a96ee8e2a122ff810047cc952684658d6049e86429426db87c54ad143d";

static void handshake_secrets(struct key_schedule *schedule) {
    uint8_t shared[32];

    from_hex(shared_hex, shared);
    key_schedule_handshake(schedule, HASH_SHA256, NULL, shared, sizeof shared);
}

static void the_handshake_traffic_secrets_are_those_of_rfc_8448(void **state) {
    struct key_schedule schedule;
    uint8_t hash[32], secret[32];
    (void)state;

    handshake_secrets(&schedule);
    from_hex(hello_hash_hex, hash);
    key_schedule_derive(&schedule, "c hs traffic", hash, secret);
    assert_hex(secret, "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21");
    key_schedule_derive(&schedule, "s hs traffic", hash, secret);
    assert_hex(secret, "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38");
}

static void the_handshake_keys_are_those_of_rfc_8448(void **state) {
    uint8_t secret[32], key[16], iv[12];
    struct hmac hmac;
    (void)state;

    from_hex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38", secret);
    hmac_set_key(&hmac, HASH_SHA256, secret, sizeof secret);
    expand_label(&hmac, "key", NULL, 0, key, sizeof key);
    expand_label(&hmac, "iv", NULL, 0, iv, sizeof iv);
    assert_hex(key, "3fce516009c21727d0f2e4e86ee403bc");
    assert_hex(iv, "5d313eb2671276ee13000b30");
}

static void the_application_secrets_are_those_of_rfc_8448(void **state) {
    struct key_schedule schedule;
    uint8_t hash[32], secret[32];
    (void)state;

    handshake_secrets(&schedule);
    key_schedule_main(&schedule);
    from_hex(server_hash_hex, hash);
    key_schedule_derive(&schedule, "c ap traffic", hash, secret);
    assert_hex(secret, "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5");
    key_schedule_derive(&schedule, "s ap traffic", hash, secret);
    assert_hex(secret, "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
    from_hex(client_hash_hex, hash);
    key_schedule_derive(&schedule, "res master", hash, secret);
    assert_hex(secret, "7df235f2031d2a051287d02b0241b0bfdaf86cc856231f2d5aba46c434ec196c");
}

/* The client's Finished, and the record that carries it. */
static void the_clients_finished_is_that_of_rfc_8448(void **state) {
    const struct suite *suite = suite_by_name("TLS_AES_128_GCM_SHA256", 22);
    uint8_t secret[32], hash[32], finished[4 + 32] = {20, 0, 0, 32}, record[sizeof finished + RECORD_OVERHEAD_MAX];
    struct direction direction;
    struct hmac hmac;
    (void)state;

    from_hex("b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21", secret);
    from_hex(server_hash_hex, hash);
    direction_begin(&direction, 0);
    direction_set_traffic_secret(&direction, suite, secret, &hmac);
    finished_of(&hmac, hash, finished + 4);
    assert_hex(finished + 4, "a8ec436d677634ae525ac1fcebe11a039ec17694fac6e98527b642f2edd5ce61");
    assert_int_equal(record_seal(&direction, CONTENT_HANDSHAKE, finished, sizeof finished, record), 58);
    assert_hex(record, "170303003575ec4dc238cce60b298044a71e219c56cc77b0517fe9b93c7a4bfc44d87f38f80338ac98fc46deb384bd"
                       "1caeacab6867d726c40546");
    direction_end(&direction);
    cipher_cache_clear();
}

static void the_ticket_secret_is_that_of_rfc_8448(void **state) {
    uint8_t secret[32], psk[32];
    struct hmac hmac;
    (void)state;

    from_hex("7df235f2031d2a051287d02b0241b0bfdaf86cc856231f2d5aba46c434ec196c", secret);
    hmac_set_key(&hmac, HASH_SHA256, secret, sizeof secret);
    expand_label(&hmac, "resumption", (const uint8_t[]){0, 0}, 2, psk, sizeof psk);
    assert_hex(psk, "4ecd0eb6ec3b4d87f5d6028f922ca4c5851a277fd41311c9e62d2c9492e1c4f3");
}

/* ---- RFC 8448, 4: resumed ---- */

static void the_early_secret_and_the_binder_are_those_of_rfc_8448(void **state) {
    struct key_schedule early;
    uint8_t psk[32], hash[32], binder[32];
    (void)state;

    from_hex("4ecd0eb6ec3b4d87f5d6028f922ca4c5851a277fd41311c9e62d2c9492e1c4f3", psk);
    key_schedule_begin(&early, HASH_SHA256, psk, sizeof psk);
    from_hex("63224b2e4573f2d3454ca84b9d009a04f6be9e05711a8396473aefa01e924a14", hash);
    binder_of(&early, hash, binder);
    assert_hex(binder, "3add4fb2d8fdf822a0ca3cf7678ef5e88dae990141c5924d57bb6fa31b9e5f9d");
}

/* ---- The PRF of TLS 1.2 and of TLS 1.0 ---- */

static void p_sha256_makes_the_known_vector(void **state) {
    uint8_t secret[16], seed[16], result[100];
    struct prf prf;
    (void)state;

    from_hex("9bbe436ba940f017b17652849a71db35", secret);
    from_hex("a0ba9f936cda311827a6f796ffd5198c", seed);
    prf_set_secret(&prf, HASH_SHA256, secret, sizeof secret);
    prf_make(&prf, "test label", seed, sizeof seed, NULL, 0, result, sizeof result);
    assert_hex(result, "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14ba"
                       "f9af0fa022f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a51"
                       "10fff70187347b66");
}

static void p_sha384_makes_the_known_vector(void **state) {
    uint8_t secret[16], seed[16], result[148];
    struct prf prf;
    (void)state;

    from_hex("b80b733d6ceefcdc71566ea48e5567df", secret);
    from_hex("cd665cf6a8447dd6ff8b27555edb7465", seed);
    prf_set_secret(&prf, HASH_SHA384, secret, sizeof secret);
    prf_make(&prf, "test label", seed, sizeof seed, NULL, 0, result, sizeof result);
    assert_hex(result, "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c91"
                       "46a0e534cb400fed2700884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad0"
                       "5d9184259b5bf8cd4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee691c8f3a26854308d5eaa"
                       "3be85e0990703d73e56f");
}

static void a_seed_in_two_pieces_is_one_seed(void **state) {
    static const uint8_t seed[64] = {1, 2, 3};
    static const enum hash_kind kinds[] = {HASH_SHA256, HASH_SHA384, HASH_MD5_SHA1};
    uint8_t whole[80], pieces[80], secret[47] = {9};
    (void)state;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct prf prf;
        prf_set_secret(&prf, kinds[i], secret, sizeof secret);
        prf_make(&prf, "key expansion", seed, 64, NULL, 0, whole, sizeof whole);
        prf_make(&prf, "key expansion", seed, 32, seed + 32, 32, pieces, sizeof pieces);
        assert_memory_equal(whole, pieces, sizeof whole);
    }
}

/* ---- HMAC on saved states ---- */

static void hmac_is_that_of_rfc_4231_and_2202(void **state) {
    uint8_t key[131], result[HASH_BYTES_MAX];
    struct hmac hmac;
    (void)state;

    hmac_set_key(&hmac, HASH_SHA256, "Jefe", 4);
    for (int i = 0; i < 2; i++) { /* the key's state is not used up */
        hmac_of(&hmac, "what do ya want for nothing?", 28, result);
        assert_hex(result, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
    hmac_set_key(&hmac, HASH_SHA384, "Jefe", 4);
    hmac_of(&hmac, "what do ya want for nothing?", 28, result);
    assert_hex(result,
               "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649");
    hmac_set_key(&hmac, HASH_MD5, "Jefe", 4);
    hmac_of(&hmac, "what do ya want for nothing?", 28, result);
    assert_hex(result, "750c783e6ab0b503eaa86e310a5db738");
    hmac_set_key(&hmac, HASH_SHA1, "Jefe", 4);
    hmac_of(&hmac, "what do ya want for nothing?", 28, result);
    assert_hex(result, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    memset(key, 0xaa, sizeof key); /* longer than a block */
    hmac_set_key(&hmac, HASH_SHA256, key, sizeof key);
    hmac_of(&hmac, "Test Using Larger Than Block-Size Key - Hash Key First", 54, result);
    assert_hex(result, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_handshake_traffic_secrets_are_those_of_rfc_8448),
        cmocka_unit_test(the_handshake_keys_are_those_of_rfc_8448),
        cmocka_unit_test(the_application_secrets_are_those_of_rfc_8448),
        cmocka_unit_test(the_clients_finished_is_that_of_rfc_8448),
        cmocka_unit_test(the_ticket_secret_is_that_of_rfc_8448),
        cmocka_unit_test(the_early_secret_and_the_binder_are_those_of_rfc_8448),
        cmocka_unit_test(p_sha256_makes_the_known_vector),
        cmocka_unit_test(p_sha384_makes_the_known_vector),
        cmocka_unit_test(a_seed_in_two_pieces_is_one_seed),
        cmocka_unit_test(hmac_is_that_of_rfc_4231_and_2202),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
