/* SPDX-License-Identifier: MIT */
/*
 * The light engine and a server that means it well. Without these, a good handshake is lost, or data is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "light_bench.h"

/* ---- What goes well ---- */

static void both_sides_talk_and_end(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        struct engine *engine = new_engine(kinds[i].version, kinds[i].cipher);
        SSL_CTX *context = new_server(kinds[i].version);
        void *session = session_for(&kinds[i], engine, context);
        struct engine_facts facts;
        struct bench bench;
        char byte;
        size_t got;

        begin(&bench, engine, context, session);
        assert_int_equal(shake_hands(&bench), STREAM_OK);
        engine->facts(bench.connection, &facts);
        assert_int_equal(facts.resumed, kinds[i].resumed);
        assert_int_equal(facts.offered, kinds[i].resumed);
        assert_string_equal(facts.cipher, kinds[i].cipher);
        assert_both_talk(&bench);
        assert_int_equal(engine->end(bench.connection), STREAM_OK);
        assert_int_equal(engine->end(bench.connection), STREAM_OK);
        carry_to_server(&bench);
        assert_int_equal(SSL_read(bench.ssl, &byte, 1), 0);
        assert_int_equal(SSL_get_error(bench.ssl, 0), SSL_ERROR_ZERO_RETURN);
        SSL_shutdown(bench.ssl);
        carry_to_client(&bench);
        assert_int_equal(read_some(&bench, &byte, 1, &got), STREAM_EOF);
        assert_int_equal(read_some(&bench, &byte, 1, &got), STREAM_EOF);
        if (session)
            engine->session_free(session);
        end(&bench);
        SSL_CTX_free(context);
        engine_light_free(engine);
    }
}

static void data_comes_whole_through_small_buffers(void **state) {
    static char text[40000];
    (void)state;

    for (size_t i = 0; i < sizeof text - 1; i++)
        text[i] = (char)('a' + i % 23);
    for (size_t k = 0; k < KINDS; k++) {
        static const size_t sizes[] = {1, 7, 1000, 16384, 16500, 39999};
        struct engine *engine = new_engine(kinds[k].version, kinds[k].cipher);
        SSL_CTX *context = new_server(kinds[k].version);
        struct bench bench;
        begin(&bench, engine, context, NULL);
        assert_int_equal(shake_hands(&bench), STREAM_OK);
        client_says(&bench, "x");
        assert_server_reads(&bench, "x");
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            size_t length = sizes[s] == 1 ? 2000 : sizeof text - 1, have = 0, got;
            char *bytes = malloc(sizes[s]);
            assert_int_equal(SSL_write(bench.ssl, text, (int)length), (int)length);
            carry_to_client(&bench);
            while (have < length) {
                assert_int_equal(read_some(&bench, bytes, sizes[s], &got), STREAM_OK);
                assert_true(got > 0 && got <= sizes[s]);
                assert_memory_equal(bytes, text + have, got);
                have += got;
            }
            assert_int_equal(read_some(&bench, bytes, sizes[s], &got), STREAM_RETRY);
            free(bytes);
        }
        end(&bench);
        SSL_CTX_free(context);
        engine_light_free(engine);
    }
}

/* TLS 1.2 records and messages that come one byte at a time, and messages that span records. */
static void a_flight_comes_in_pieces(void **state) {
    static const size_t pieces[] = {1, 2, 5, 6, 100, 1000};
    (void)state;

    for (size_t k = 0; k < KINDS; k++) {
        for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
            struct engine *engine = new_engine(kinds[k].version, kinds[k].cipher);
            SSL_CTX *context = new_server(kinds[k].version);
            enum stream_result result = STREAM_RETRY;
            struct bench bench;
            SSL_CTX_set_max_send_fragment(context, 512);
            begin(&bench, engine, context, NULL);
            for (int i = 0; i < 10 && result == STREAM_RETRY; i++) {
                uint8_t flight[65536];
                result = engine->handshake(bench.connection);
                carry_to_server(&bench);
                SSL_do_handshake(bench.ssl);
                size_t length = take_from_server(&bench, flight, sizeof flight);
                for (size_t at = 0; at < length; at += pieces[p]) {
                    give_to_client(&bench, flight + at, length - at < pieces[p] ? length - at : pieces[p]);
                    result = engine->handshake(bench.connection);
                    if (result == STREAM_RETRY) /* the first after a short read does not read */
                        result = engine->handshake(bench.connection);
                }
            }
            assert_int_equal(result, STREAM_OK);
            assert_both_talk(&bench);
            end(&bench);
            SSL_CTX_free(context);
            engine_light_free(engine);
        }
    }
}

static void a_large_chain_is_taken_and_measured(void **state) {
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    (void)state;

    for (int v = 0; v < 2; v++) {
        struct engine *engine = new_engine(versions[v], NULL);
        SSL_CTX *context = new_server(versions[v]);
        struct engine_facts facts;
        struct bench bench;
        unsigned bytes = (unsigned)i2d_X509(certificates[1], NULL);
        for (int i = 0; i < 10; i++) {
            X509 *large = make_certificate(keys[1], 9000);
            bytes += (unsigned)i2d_X509(large, NULL);
            SSL_CTX_select_current_cert(context, certificates[1]);
            assert_int_equal(SSL_CTX_add0_chain_cert(context, large), 1);
        }
        SSL_CTX_set_max_cert_list(context, 1 << 20);
        begin(&bench, engine, context, NULL);
        assert_int_equal(shake_hands(&bench), STREAM_OK);
        engine->facts(bench.connection, &facts);
        assert_string_equal(facts.certificate_key, "ecdsa:P-256");
        assert_int_equal(facts.chain_bytes, bytes);
        assert_true(bytes > 150000);
        assert_both_talk(&bench);
        end(&bench);
        SSL_CTX_free(context);
        engine_light_free(engine);
    }
}

static void keys_are_updated_when_the_server_says_so(void **state) {
    static const int how[] = {SSL_KEY_UPDATE_NOT_REQUESTED, SSL_KEY_UPDATE_REQUESTED};
    struct engine *engine = new_engine(TLS1_3_VERSION, NULL);
    SSL_CTX *context = new_server(TLS1_3_VERSION);
    struct bench bench;
    (void)state;

    begin(&bench, engine, context, NULL);
    assert_int_equal(shake_hands(&bench), STREAM_OK);
    assert_both_talk(&bench);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(SSL_key_update(bench.ssl, how[i % 2]), 1);
        SSL_do_handshake(bench.ssl);
        server_says(&bench, "after the update");
        assert_client_reads(&bench, "after the update");
        assert_both_talk(&bench);
    }
    end(&bench);
    SSL_CTX_free(context);
    engine_light_free(engine);
}

static void renegotiation_is_refused_and_talk_goes_on(void **state) {
    struct engine *engine = new_engine(TLS1_2_VERSION, NULL);
    SSL_CTX *context = new_server(TLS1_2_VERSION);
    struct bench bench;
    char byte;
    size_t got;
    (void)state;

    begin(&bench, engine, context, NULL);
    assert_int_equal(shake_hands(&bench), STREAM_OK);
    assert_both_talk(&bench);
    assert_int_equal(SSL_renegotiate(bench.ssl), 1);
    SSL_do_handshake(bench.ssl);
    carry_to_client(&bench);
    assert_int_equal(read_some(&bench, &byte, 1, &got), STREAM_RETRY);
    /* OpenSSL takes the refusal for fatal; what matters is that it is one. */
    carry_to_server(&bench);
    assert_true(SSL_read(bench.ssl, &byte, 1) <= 0);
    assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_NO_RENEGOTIATION);
    ERR_clear_error();
    end(&bench);
    SSL_CTX_free(context);
    engine_light_free(engine);
}

static void finished_goes_out_at_once_if_nothing_will_follow(void **state) {
    struct engine_config config = config_of(TLS1_3_VERSION, NULL);
    SSL_CTX *context = new_server(TLS1_3_VERSION);
    struct engine *engine;
    struct bench bench;
    (void)state;

    config.flush_handshake = true;
    assert_null(engine_light_new(&engine, &config));
    begin(&bench, engine, context, NULL);
    assert_int_equal(shake_hands(&bench), STREAM_OK);
    assert_true(SSL_is_init_finished(bench.ssl));
    end(&bench);
    SSL_CTX_free(context);
    engine_light_free(engine);
}

/* ---- Resumption without a key exchange ---- */

static struct engine *new_engine_of_psk_mode(enum psk_mode mode) {
    struct engine_config config = config_of(TLS1_3_VERSION, NULL);
    struct engine *engine;

    config.psk_mode = mode;
    assert_null(engine_light_new(&engine, &config));
    return engine;
}

static const struct kind any_resumed = {TLS1_3_VERSION, NULL, true};

static void a_psk_is_used_in_a_mode_that_both_sides_allow(void **state) {
    static const struct {
        enum psk_mode mode;
        const char *cipher;
        bool server_allows, resumed;
        const char *group;
    } cases[] = {
        {PSK_MODE_DHE_KE, "TLS_AES_128_GCM_SHA256", true, true, "X25519"},
        {PSK_MODE_KE, "TLS_AES_128_GCM_SHA256", true, true, ""},
        {PSK_MODE_KE, "TLS_AES_256_GCM_SHA384", true, true, ""},
        {PSK_MODE_KE, "TLS_AES_128_GCM_SHA256", false, false, "X25519"},
        {PSK_MODE_ANY, "TLS_AES_128_GCM_SHA256", false, true, "X25519"},
        {PSK_MODE_ANY, "TLS_AES_128_GCM_SHA256", true, true, "X25519"}, /* what OpenSSL prefers */
    };
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct engine *engine = new_engine_of_psk_mode(cases[i].mode);
        SSL_CTX *context = new_server(TLS1_3_VERSION);
        struct engine_facts facts;
        struct bench bench;
        assert_int_equal(SSL_CTX_set_ciphersuites(context, cases[i].cipher), 1);
        if (cases[i].server_allows)
            SSL_CTX_set_options(context, SSL_OP_ALLOW_NO_DHE_KEX);
        void *session = session_for(&any_resumed, engine, context);
        begin(&bench, engine, context, session);
        assert_int_equal(shake_hands(&bench), STREAM_OK);
        engine->facts(bench.connection, &facts);
        assert_true(facts.offered);
        assert_int_equal(facts.resumed, cases[i].resumed);
        assert_int_equal(SSL_session_reused(bench.ssl), cases[i].resumed);
        assert_string_equal(facts.group, cases[i].group);
        assert_string_equal(facts.cipher, cases[i].cipher);
        assert_both_talk(&bench);
        assert_non_null(bench.session); /* it can go on like that */
        engine->session_free(session);
        end(&bench);
        SSL_CTX_free(context);
        engine_light_free(engine);
    }
}

/* A ServerHello as the first record of a flight: without this extension, and with these bytes after the others. */
static size_t change_extensions(uint8_t *flight, size_t length, int without, const uint8_t *more, size_t more_bytes) {
    size_t record_end = 5 + (size_t)(flight[3] << 8 | flight[4]);
    size_t list = 5 + 4 + 2 + 32 + 1 + flight[5 + 4 + 2 + 32] + 2 + 1, at = list + 2, end = record_end;

    while (at < end) {
        size_t size = 4 + (size_t)(flight[at + 2] << 8 | flight[at + 3]);
        if ((flight[at] << 8 | flight[at + 1]) == without) {
            memmove(flight + at, flight + at + size, length - at - size);
            end -= size;
            length -= size;
        } else {
            at += size;
        }
    }
    if (more_bytes > 0) {
        memmove(flight + end + more_bytes, flight + end, length - end);
        memcpy(flight + end, more, more_bytes);
        end += more_bytes;
        length += more_bytes;
    }
    flight[3] = (uint8_t)((end - 5) >> 8);
    flight[4] = (uint8_t)(end - 5);
    flight[7] = (uint8_t)((end - 9) >> 8);
    flight[8] = (uint8_t)(end - 9);
    flight[list] = (uint8_t)((end - list - 2) >> 8);
    flight[list + 1] = (uint8_t)(end - list - 2);
    return length;
}

static void a_mode_that_was_not_offered_is_refused(void **state) {
    static const uint8_t share[4 + 4 + 32] = {0, 51, 0, 36, 0, 29, 0, 32, 9};
    static const uint8_t no_group[4 + 4 + 1] = {0, 51, 0, 5, 0, 0, 0, 1, 1};
    enum { NONE = -1, SHARE = 51, PSK = 41 };
    static const struct {
        enum psk_mode mode;
        int without;
        const uint8_t *more;
        size_t more_bytes;
        uint8_t alert;
    } cases[] = {
        {PSK_MODE_ANY, SHARE, NULL, 0, 20},           /* psk_ke is taken: it is the server's keys that are others */
        {PSK_MODE_DHE_KE, SHARE, NULL, 0, 109},       /* psk_ke */
        {PSK_MODE_KE, NONE, share, sizeof share, 47}, /* psk_dhe_ke */
        {PSK_MODE_KE, PSK, NULL, 0, 109},             /* no key at all */
        {PSK_MODE_KE, NONE, no_group, sizeof no_group, 50}, /* a share of group 0 is not "no share" */
    };
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct engine *engine = new_engine_of_psk_mode(cases[i].mode);
        SSL_CTX *context = new_server(TLS1_3_VERSION);
        uint8_t flight[65536];
        struct bench bench;
        SSL_CTX_set_options(context, SSL_OP_ALLOW_NO_DHE_KEX);
        void *session = session_for(&any_resumed, engine, context);
        begin(&bench, engine, context, session);
        assert_int_equal(engine->handshake(bench.connection), STREAM_RETRY);
        carry_to_server(&bench);
        SSL_do_handshake(bench.ssl);
        ERR_clear_error();
        size_t length = take_from_server(&bench, flight, sizeof flight / 2);
        length = change_extensions(flight, length, cases[i].without, cases[i].more, cases[i].more_bytes);
        give_to_client(&bench, flight, length);
        enum stream_result result = engine->handshake(bench.connection);
        if (result == STREAM_RETRY) /* the first after a short read does not read */
            result = engine->handshake(bench.connection);
        assert_int_equal(result, STREAM_ERROR);
        assert_int_equal(engine->why(bench.connection), LOAD_TLS_PROTOCOL);
        assert_int_equal(recv(bench.fd, flight, sizeof flight, 0), 7);
        assert_int_equal(flight[0], 21);
        assert_int_equal(flight[6], cases[i].alert);
        engine->session_free(session);
        end(&bench);
        SSL_CTX_free(context);
        engine_light_free(engine);
    }
}

/* ---- A socket that takes little at a time ---- */

static void a_write_that_does_not_fit_goes_on_later(void **state) {
    static char text[1 << 20];
    (void)state;

    memset(text, 'w', sizeof text);
    for (size_t k = 0; k < KINDS; k++) {
        struct engine *engine = new_engine(kinds[k].version, kinds[k].cipher);
        SSL_CTX *context = new_server(kinds[k].version);
        struct bench bench;
        size_t sent = 0, put, heard = 0;
        int retries = 0;
        begin(&bench, engine, context, NULL);
        assert_int_equal(shake_hands(&bench), STREAM_OK);
        while (sent < sizeof text) {
            enum stream_result result = engine->write(bench.connection, text + sent, sizeof text - sent, &put);
            if (result == STREAM_RETRY) {
                char bytes[65536];
                int got;
                assert_int_equal(engine->wants(bench.connection), EV_WRITE);
                retries++;
                carry_to_server(&bench);
                while ((got = SSL_read(bench.ssl, bytes, sizeof bytes)) > 0)
                    heard += (size_t)got;
                ERR_clear_error();
                continue;
            }
            assert_int_equal(result, STREAM_OK);
            sent += put;
        }
        carry_to_server(&bench);
        char bytes[65536];
        int got;
        while ((got = SSL_read(bench.ssl, bytes, sizeof bytes)) > 0)
            heard += (size_t)got;
        ERR_clear_error();
        assert_int_equal(heard, sizeof text);
        assert_true(retries > 0);
        end(&bench);
        SSL_CTX_free(context);
        engine_light_free(engine);
    }
}

/* ---- What it is asked for ---- */

static void what_it_does_not_speak_is_refused_with_the_option(void **state) {
    static const struct {
        struct engine_config config;
        const char *begins;
    } refused[] = {
        {{.cipher = "DHE-RSA-AES128-GCM-SHA256"}, "--cipher: DHE-RSA-AES128-GCM-SHA256: "},
        {{.cipher = "HIGH"}, "--cipher: HIGH: "},
        {{.cipher = ""}, "--cipher: : "},
        {{.cipher = "ECDHE-RSA-AES128-GCM-SHA256", .tls_version = TLS1_3_VERSION}, "--cipher: ECDHE"},
        {{.cipher = "TLS_AES_128_GCM_SHA256", .tls_version = TLS1_2_VERSION}, "--cipher: TLS_"},
        {{.groups = "X448"}, "--group: X448: "},
        {{.groups = ""}, "--group: : "},
        {{.groups = "X25519:X25519:X25519:X25519:X25519"}, "--group: "},
        {{.sigalgs = "rsa_fancy"}, "--sigalgs: rsa_fancy: "},
        {{.alpn = "a,,b"}, "--alpn: a,,b: "},
        {{.verify_peer = true}, "--verify-peer: "},
        {{.resume = true, .resume_with = RESUME_WITH_ID, .tls_version = TLS1_3_VERSION}, "--resume-with: id: "},
        {{.tls_version = 0x300}, "--tls-version: "},
        {{.resume = true, .psk_mode = PSK_MODE_KE, .tls_version = TLS1_2_VERSION}, "--psk-mode: "},
        {{.resume = true, .psk_mode = PSK_MODE_ANY, .cipher = "AES128-SHA"}, "--psk-mode: "},
    };
    (void)state;

    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct engine *engine = NULL;
        const char *reason = engine_light_new(&engine, &refused[i].config);
        assert_non_null(reason);
        assert_null(engine);
        if (strncmp(reason, refused[i].begins, strlen(refused[i].begins)) != 0)
            fail_msg("%s: %s", refused[i].begins, reason);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_talk_and_end),
        cmocka_unit_test(data_comes_whole_through_small_buffers),
        cmocka_unit_test(a_flight_comes_in_pieces),
        cmocka_unit_test(a_large_chain_is_taken_and_measured),
        cmocka_unit_test(keys_are_updated_when_the_server_says_so),
        cmocka_unit_test(renegotiation_is_refused_and_talk_goes_on),
        cmocka_unit_test(finished_goes_out_at_once_if_nothing_will_follow),
        cmocka_unit_test(a_psk_is_used_in_a_mode_that_both_sides_allow),
        cmocka_unit_test(a_mode_that_was_not_offered_is_refused),
        cmocka_unit_test(a_write_that_does_not_fit_goes_on_later),
        cmocka_unit_test(what_it_does_not_speak_is_refused_with_the_option),
    };

    return cmocka_run_group_tests(tests, make_keys, free_keys);
}
