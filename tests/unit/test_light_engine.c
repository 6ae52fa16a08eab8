/* SPDX-License-Identifier: MIT */
/*
 * The light engine against OpenSSL's server in the same process. Whatever lies between them is in our hands: here it is
 * cut, changed, split and made up. Without these, a server's fault is our crash, or is taken for a good handshake.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "light/engine_light.h"

#include <errno.h>
#include <ev.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- A server ---- */

static EVP_PKEY *keys[2]; /* RSA, ECDSA */
static X509 *certificates[2];

static X509 *make_certificate(EVP_PKEY *key, int comment_bytes) {
    X509 *x509 = X509_new();
    X509_NAME *name = X509_get_subject_name(x509);

    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509), -60);
    X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
    for (int i = 0; i < comment_bytes; i += 60)
        X509_NAME_add_entry_by_txt(
            name, "OU", MBSTRING_ASC,
            (const unsigned char *)"sixty letters to make a certificate larger than it should be", 60, -1, 0);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(x509, name);
    X509_set_pubkey(x509, key);
    assert_true(X509_sign(x509, key, EVP_sha256()) > 0);
    return x509;
}

static int make_keys(void **state) {
    (void)state;
    keys[0] = EVP_RSA_gen(2048);
    keys[1] = EVP_EC_gen("P-256");
    for (int i = 0; i < 2; i++)
        certificates[i] = make_certificate(keys[i], 0);
    return 0;
}

static int free_keys(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        X509_free(certificates[i]);
        EVP_PKEY_free(keys[i]);
    }
    return 0;
}

static SSL_CTX *new_server(int version) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    SSL_CTX_set_cipher_list(context, "ALL");
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"test", 4);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(SSL_CTX_use_certificate(context, certificates[i]), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(context, keys[i]), 1);
    }
    return context;
}

/* ---- Both ends, and the wire between them ---- */

struct bench {
    struct engine *engine;
    void *connection;
    SSL *ssl;
    BIO *to_server, *to_client; /* the server's */
    int fd;                     /* our end of the engine's socket */
    void *session;              /* that came last */
    int sessions;
};

static void session_arrived(void *owner, void *session) {
    struct bench *bench = owner;

    if (bench->session)
        bench->engine->session_free(bench->session);
    bench->session = session;
    bench->sessions++;
}

static void begin(struct bench *bench, struct engine *engine, SSL_CTX *context, void *session) {
    int pair[2];

    *bench = (struct bench){.engine = engine};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    /* The server's flight fits in one go; what the engine writes need not. */
    for (int i = 0; i < 2; i++) {
        int size = i == 0 ? 1 << 20 : 1 << 15;
        setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    }
    bench->fd = pair[0];
    bench->connection = calloc(1, engine->connection_bytes);
    assert_true(engine->open(engine, bench->connection, pair[1], "localhost", session, bench));
    if (!context)
        return;
    bench->ssl = SSL_new(context);
    bench->to_server = BIO_new(BIO_s_mem());
    bench->to_client = BIO_new(BIO_s_mem());
    SSL_set_bio(bench->ssl, bench->to_server, bench->to_client);
    SSL_set_accept_state(bench->ssl);
}

static void end(struct bench *bench) {
    if (bench->connection)
        bench->engine->close(bench->connection);
    free(bench->connection);
    SSL_free(bench->ssl);
    if (bench->fd >= 0)
        close(bench->fd);
    if (bench->session)
        bench->engine->session_free(bench->session);
    bench->session = NULL;
    bench->connection = NULL;
}

/* What the engine has sent, to the server. */
static void carry_to_server(struct bench *bench) {
    uint8_t bytes[65536];
    ssize_t count;

    while ((count = recv(bench->fd, bytes, sizeof bytes, 0)) > 0)
        assert_int_equal(BIO_write(bench->to_server, bytes, (int)count), count);
}

/* What the server wants to send: to bytes, not yet to the engine. */
static size_t take_from_server(struct bench *bench, uint8_t *bytes, size_t size) {
    int count = BIO_read(bench->to_client, bytes, (int)size);

    return count > 0 ? (size_t)count : 0;
}

static void give_to_client(struct bench *bench, const uint8_t *bytes, size_t length) {
    assert_int_equal(send(bench->fd, bytes, length, MSG_NOSIGNAL), (ssize_t)length);
}

static void carry_to_client(struct bench *bench) {
    uint8_t bytes[65536];
    size_t length;

    while ((length = take_from_server(bench, bytes, sizeof bytes)) > 0)
        give_to_client(bench, bytes, length);
}

/* Steps both sides until the engine has no more to wait for, or both wait for ever. */
static enum stream_result shake_hands(struct bench *bench) {
    enum stream_result result = STREAM_RETRY;

    for (int i = 0; i < 10 && result == STREAM_RETRY; i++) {
        result = bench->engine->handshake(bench->connection);
        carry_to_server(bench);
        SSL_do_handshake(bench->ssl);
        ERR_clear_error();
        carry_to_client(bench);
    }
    return result;
}

static enum stream_result read_some(struct bench *bench, char *bytes, size_t size, size_t *got) {
    enum stream_result result = STREAM_RETRY;

    for (int i = 0; i < 4 && result == STREAM_RETRY; i++)
        result = bench->engine->read(bench->connection, bytes, size, got);
    return result;
}

static void server_says(struct bench *bench, const char *text) {
    assert_int_equal(SSL_write(bench->ssl, text, (int)strlen(text)), (int)strlen(text));
    carry_to_client(bench);
}

static void assert_client_reads(struct bench *bench, const char *text) {
    char bytes[65536];
    size_t got;

    assert_int_equal(read_some(bench, bytes, sizeof bytes, &got), STREAM_OK);
    assert_int_equal(got, strlen(text));
    assert_memory_equal(bytes, text, got);
}

static void assert_server_reads(struct bench *bench, const char *text) {
    char bytes[1000];

    carry_to_server(bench);
    int got = SSL_read(bench->ssl, bytes, sizeof bytes);
    if (got <= 0)
        ERR_print_errors_fp(stderr);
    assert_int_equal(got, (int)strlen(text));
    assert_memory_equal(bytes, text, (size_t)got);
}

static void client_says(struct bench *bench, const char *text) {
    size_t put;

    assert_int_equal(bench->engine->write(bench->connection, text, strlen(text), &put), STREAM_OK);
    assert_int_equal(put, strlen(text));
}

static void assert_both_talk(struct bench *bench) {
    client_says(bench, "question");
    assert_server_reads(bench, "question");
    server_says(bench, "answer");
    assert_client_reads(bench, "answer");
}

static struct engine_config config_of(int version, const char *cipher) {
    return (struct engine_config){
        .tls_version = version, .cipher = cipher, .resume = true, .session_arrived = session_arrived};
}

static struct engine *new_engine(int version, const char *cipher) {
    struct engine_config config = config_of(version, cipher);
    struct engine *engine = NULL;
    const char *reason = engine_light_new(&engine, &config);

    if (reason)
        fail_msg("%s", reason);
    return engine;
}

/* What is provoked below is provoked on each of these. */
static const struct kind {
    int version;
    const char *cipher;
    bool resumed;
} kinds[] = {
    {TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256", false},
    {TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384", true},
    {TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", false},
    {TLS1_2_VERSION, "ECDHE-RSA-AES128-GCM-SHA256", true},
    {TLS1_2_VERSION, "AES128-SHA256", false},
    {TLS1_VERSION, "ECDHE-ECDSA-AES128-SHA", false},
};

#define KINDS (sizeof kinds / sizeof *kinds)

/* A session of one whole connection, the caller's to free; NULL where none is to be offered. */
static void *session_for(const struct kind *kind, struct engine *engine, SSL_CTX *context) {
    struct bench bench;

    if (!kind->resumed)
        return NULL;
    begin(&bench, engine, context, NULL);
    assert_int_equal(shake_hands(&bench), STREAM_OK);
    assert_both_talk(&bench);
    void *session = bench.session;
    assert_non_null(session);
    bench.session = NULL;
    end(&bench);
    return session;
}

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
        cmocka_unit_test(a_wire_cut_at_any_byte_is_an_unexpected_end),
        cmocka_unit_test(any_changed_bit_is_an_error),
        cmocka_unit_test(answers_that_are_no_tls_are_protocol_errors),
        cmocka_unit_test(alerts_are_told_from_faults_and_from_the_end),
        cmocka_unit_test(warnings_and_messages_without_end_have_one),
        cmocka_unit_test(random_answers_come_to_an_end),
        cmocka_unit_test(garbage_after_the_handshake_is_a_protocol_error),
        cmocka_unit_test(what_it_does_not_speak_is_refused_with_the_option),
    };

    return cmocka_run_group_tests(tests, make_keys, free_keys);
}
