/* SPDX-License-Identifier: MIT */
/*
 * The light engine, a server that is at fault and a wire that is: cut, changed and made up. Without these, a server's
 * fault is our crash, or is taken for a good handshake.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "light_bench.h"

/* ---- A wire that cannot be trusted ---- */

/* The server's flights, each passed through change() with the bytes that came before it counted; false ends the wire.
 */
struct fault {
    size_t at;    /* of the server's bytes of the handshake */
    uint8_t xor ; /* 0: the wire is cut there */
    size_t seen;
};

static bool pass(struct bench *bench, struct fault *fault, uint8_t *bytes, size_t length) {
    bool is_here = fault->at >= fault->seen && fault->at < fault->seen + length;
    size_t offset = fault->at - fault->seen;

    fault->seen += length;
    if (is_here && fault->xor)
        bytes[offset] ^= fault->xor ;
    if (is_here && !fault->xor) {
        give_to_client(bench, bytes, offset);
        shutdown(bench->fd, SHUT_WR);
        return false;
    }
    give_to_client(bench, bytes, length);
    return true;
}

/* With EOF at the end: a faulty handshake that still waits for something must come to an end. */
static enum stream_result shake_hands_with(struct bench *bench, struct fault *fault) {
    enum stream_result result = STREAM_RETRY;
    bool open = true;

    for (int i = 0; i < 20 && result == STREAM_RETRY; i++) {
        uint8_t bytes[65536];
        result = bench->engine->handshake(bench->connection);
        if (!open || result != STREAM_RETRY)
            continue;
        carry_to_server(bench);
        SSL_do_handshake(bench->ssl);
        ERR_clear_error();
        size_t length = take_from_server(bench, bytes, sizeof bytes);
        if (length > 0)
            open = pass(bench, fault, bytes, length);
        else if (i > 8) {
            shutdown(bench->fd, SHUT_WR);
            open = false;
        }
    }
    return result;
}

static void with_every_byte(uint8_t xor,
                            void (*judge)(const struct bench *bench, enum stream_result result, size_t at)) {
    for (size_t k = 0; k < KINDS; k++) {
        struct engine *engine = new_engine(kinds[k].version, kinds[k].cipher);
        SSL_CTX *context = new_server(kinds[k].version);
        void *session = session_for(&kinds[k], engine, context);
        bool past_the_end = false;
        for (size_t at = 0; !past_the_end; at++) {
            struct fault fault = {.at = at, .xor = xor};
            struct bench bench;
            begin(&bench, engine, context, session);
            enum stream_result result = shake_hands_with(&bench, &fault);
            past_the_end = fault.seen <= at;
            if (past_the_end)
                assert_int_equal(result, STREAM_OK);
            else
                judge(&bench, result, at);
            end(&bench);
        }
        if (session)
            engine->session_free(session);
        SSL_CTX_free(context);
        engine_light_free(engine);
    }
}

static void must_be_end_of_file(const struct bench *bench, enum stream_result result, size_t at) {
    (void)bench, (void)at;
    assert_int_equal(result, STREAM_EOF);
}

static void a_wire_cut_at_any_byte_is_an_unexpected_end(void **state) {
    (void)state;
    with_every_byte(0, must_be_end_of_file);
}

static int harmless; /* faults that changed nothing that counts */

static void must_be_an_error(const struct bench *bench, enum stream_result result, size_t at) {
    (void)at;
    if (result == STREAM_OK) {
        harmless++;
        return;
    }
    assert_true(result == STREAM_EOF || result == STREAM_ERROR);
    if (result == STREAM_ERROR) {
        enum load_error why = bench->engine->why(bench->connection);
        assert_true(why == LOAD_TLS_PROTOCOL || why == LOAD_TLS_ALERT);
    }
}

static void any_changed_bit_is_an_error(void **state) {
    static const uint8_t masks[] = {0x01, 0x80, 0xff};
    (void)state;

    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        harmless = 0;
        with_every_byte(masks[i], must_be_an_error);
        /*
         * The minor version of a record in the clear, which nobody authenticates: of TLS 1.2's and older at most nine
         * records in the six kinds each, of TLS 1.3's two.
         */
        assert_true(harmless <= 40);
    }
}

/* ---- A server that makes things up ---- */

static enum stream_result answer_with(struct engine *engine, const uint8_t *bytes, size_t length,
                                      enum load_error *why) {
    enum stream_result result = STREAM_RETRY;
    struct bench bench;

    begin(&bench, engine, NULL, NULL);
    assert_int_equal(engine->handshake(bench.connection), STREAM_RETRY);
    give_to_client(&bench, bytes, length);
    shutdown(bench.fd, SHUT_WR);
    for (int i = 0; i < 1000 && result == STREAM_RETRY; i++)
        result = engine->handshake(bench.connection);
    *why = result == STREAM_ERROR ? engine->why(bench.connection) : LOAD_NO_ERROR;
    end(&bench);
    return result;
}

static void answers_that_are_no_tls_are_protocol_errors(void **state) {
    static const struct {
        const char *what;
        size_t length;
        uint8_t bytes[64];
    } answers[] = {
        {"HTTP", 17, "HTTP/1.1 400 Bad\n"},
        {"SSH", 9, "SSH-2.0-x"},
        {"TLS 9", 6, {22, 9, 0, 0, 1, 0}},
        {"a record too long", 6, {22, 3, 3, 0x40, 1, 0}},
        {"empty handshake record", 5, {22, 3, 3, 0, 0}},
        {"data before keys", 6, {23, 3, 3, 0, 1, 0}},
        {"ChangeCipherSpec first", 6, {20, 3, 3, 0, 1, 1}},
        {"half an alert", 6, {21, 3, 3, 0, 1, 2}},
        {"a message of 16 MiB", 9, {22, 3, 3, 0, 4, 2, 255, 255, 255}},
        {"ServerHello of nothing", 9, {22, 3, 3, 0, 4, 2, 0, 0, 0}},
        {"Finished first", 9, {22, 3, 3, 0, 4, 20, 0, 0, 0}},
        {"ClientHello", 9, {22, 3, 3, 0, 4, 1, 0, 0, 0}},
        {"alert in a message", 18, {22, 3, 3, 0, 6, 2, 0, 0, 70, 3, 3, 21, 3, 3, 0, 2, 1, 0}},
    };
    struct engine *engine = new_engine(0, NULL);
    (void)state;

    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        enum load_error why;
        enum stream_result result = answer_with(engine, answers[i].bytes, answers[i].length, &why);
        if (result != STREAM_ERROR || why != LOAD_TLS_PROTOCOL)
            fail_msg("%s: result %d, error %d", answers[i].what, (int)result, (int)why);
    }
    engine_light_free(engine);
}

static void alerts_are_told_from_faults_and_from_the_end(void **state) {
    static const uint8_t fatal[] = {21, 3, 3, 0, 2, 2, 40}, notify[] = {21, 3, 3, 0, 2, 1, 0};
    struct engine *engine = new_engine(0, NULL);
    enum load_error why;
    (void)state;

    assert_int_equal(answer_with(engine, fatal, sizeof fatal, &why), STREAM_ERROR);
    assert_int_equal(why, LOAD_TLS_ALERT);
    assert_int_equal(answer_with(engine, notify, sizeof notify, &why), STREAM_EOF);
    assert_int_equal(answer_with(engine, fatal, 0, &why), STREAM_EOF);
    engine_light_free(engine);
}

static void warnings_and_messages_without_end_have_one(void **state) {
    struct engine *engine = new_engine(TLS1_2_VERSION, NULL);
    uint8_t bytes[7 * 50];
    enum load_error why;
    (void)state;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (const uint8_t[]){21, 3, 3, 0, 2, 1, 112}[i % 7];
    assert_int_equal(answer_with(engine, bytes, sizeof bytes, &why), STREAM_ERROR);
    assert_int_equal(why, LOAD_TLS_PROTOCOL);
    engine_light_free(engine);
}

/* Bytes that look like the beginning of a record and go on at random: no crash, and always an end. */
static void random_answers_come_to_an_end(void **state) {
    static const int versions[] = {0, TLS1_3_VERSION, TLS1_2_VERSION, TLS1_VERSION};
    uint32_t seed = 1;
    (void)state;

    for (int v = 0; v < 4; v++) {
        struct engine *engine = new_engine(versions[v], NULL);
        for (int round = 0; round < 3000; round++) {
            uint8_t bytes[300];
            size_t length = 0;
            while (length + 80 < sizeof bytes) {
                size_t body;
                seed = seed * 1664525 + 1013904223;
                body = (seed >> 8) % 64;
                bytes[length++] = (uint8_t)(20 + (seed >> 16) % 4);
                bytes[length++] = 3;
                bytes[length++] = 3;
                bytes[length++] = 0;
                bytes[length++] = (uint8_t)body;
                for (size_t i = 0; i < body; i++) {
                    seed = seed * 1664525 + 1013904223;
                    /* Small numbers more often than not: they are types and lengths. */
                    bytes[length++] = (uint8_t)(seed >> 24 & 1 ? (seed >> 16) % 24 : seed >> 16);
                }
            }
            enum load_error why;
            enum stream_result result = answer_with(engine, bytes, length, &why);
            assert_true(result == STREAM_EOF || result == STREAM_ERROR);
        }
        engine_light_free(engine);
    }
}

/* Garbage of every kind where the keys are in use. */
static void garbage_after_the_handshake_is_a_protocol_error(void **state) {
    static const uint8_t garbage[][32] = {
        {23, 3, 3, 0, 20, 1, 2, 3}, {22, 3, 3, 0, 4, 0, 0, 0, 0}, {21, 3, 3, 0, 2, 2, 40}, {20, 3, 3, 0, 1, 1},
        {99, 3, 3, 0, 1, 1},        {23, 3, 3, 0xff, 0xff, 1},    {23, 3, 3, 0, 0},        {23, 3, 3, 0, 3, 1, 2, 3},
    };
    (void)state;

    for (size_t k = 0; k < KINDS; k++) {
        for (size_t g = 0; g < sizeof garbage / sizeof *garbage; g++) {
            struct engine *engine = new_engine(kinds[k].version, kinds[k].cipher);
            SSL_CTX *context = new_server(kinds[k].version);
            struct bench bench;
            char bytes[100];
            size_t got;
            begin(&bench, engine, context, NULL);
            assert_int_equal(shake_hands(&bench), STREAM_OK);
            assert_both_talk(&bench);
            give_to_client(&bench, garbage[g], sizeof garbage[g]);
            assert_int_equal(read_some(&bench, bytes, sizeof bytes, &got), STREAM_ERROR);
            assert_int_equal(engine->why(bench.connection), LOAD_TLS_PROTOCOL);
            assert_int_equal(read_some(&bench, bytes, sizeof bytes, &got), STREAM_ERROR);
            assert_int_equal(engine->write(bench.connection, "x", 1, &got), STREAM_ERROR);
            end(&bench);
            SSL_CTX_free(context);
            engine_light_free(engine);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wire_cut_at_any_byte_is_an_unexpected_end),
        cmocka_unit_test(any_changed_bit_is_an_error),
        cmocka_unit_test(answers_that_are_no_tls_are_protocol_errors),
        cmocka_unit_test(alerts_are_told_from_faults_and_from_the_end),
        cmocka_unit_test(warnings_and_messages_without_end_have_one),
        cmocka_unit_test(random_answers_come_to_an_end),
        cmocka_unit_test(garbage_after_the_handshake_is_a_protocol_error),
    };

    return cmocka_run_group_tests(tests, make_keys, free_keys);
}
