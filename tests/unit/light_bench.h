/* SPDX-License-Identifier: MIT */
#ifndef LIGHT_BENCH_H
#define LIGHT_BENCH_H
/*
 * The light engine against OpenSSL's server in the same process. Whatever lies between them is in our hands. In the
 * header, because each test is a program.
 */
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

static inline X509 *make_certificate(EVP_PKEY *key, int comment_bytes) {
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

static inline int make_keys(void **state) {
    (void)state;
    keys[0] = EVP_RSA_gen(2048);
    keys[1] = EVP_EC_gen("P-256");
    for (int i = 0; i < 2; i++)
        certificates[i] = make_certificate(keys[i], 0);
    return 0;
}

static inline int free_keys(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        X509_free(certificates[i]);
        EVP_PKEY_free(keys[i]);
    }
    return 0;
}

static inline SSL_CTX *new_server(int version) {
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

static inline void session_arrived(void *owner, void *session) {
    struct bench *bench = owner;

    if (bench->session)
        bench->engine->session_free(bench->session);
    bench->session = session;
    bench->sessions++;
}

static inline void begin(struct bench *bench, struct engine *engine, SSL_CTX *context, void *session) {
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
    assert_true(engine->open(engine, bench->connection, pair[1], "localhost", NULL, session, bench));
    if (!context)
        return;
    bench->ssl = SSL_new(context);
    bench->to_server = BIO_new(BIO_s_mem());
    bench->to_client = BIO_new(BIO_s_mem());
    SSL_set_bio(bench->ssl, bench->to_server, bench->to_client);
    SSL_set_accept_state(bench->ssl);
}

static inline void end(struct bench *bench) {
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
static inline void carry_to_server(struct bench *bench) {
    uint8_t bytes[65536];
    ssize_t count;

    while ((count = recv(bench->fd, bytes, sizeof bytes, 0)) > 0)
        assert_int_equal(BIO_write(bench->to_server, bytes, (int)count), count);
}

/* What the server wants to send: to bytes, not yet to the engine. */
static inline size_t take_from_server(struct bench *bench, uint8_t *bytes, size_t size) {
    int count = BIO_read(bench->to_client, bytes, (int)size);

    return count > 0 ? (size_t)count : 0;
}

static inline void give_to_client(struct bench *bench, const uint8_t *bytes, size_t length) {
    assert_int_equal(send(bench->fd, bytes, length, MSG_NOSIGNAL), (ssize_t)length);
}

static inline void carry_to_client(struct bench *bench) {
    uint8_t bytes[65536];
    size_t length;

    while ((length = take_from_server(bench, bytes, sizeof bytes)) > 0)
        give_to_client(bench, bytes, length);
}

/* Steps both sides until the engine has no more to wait for, or both wait for ever. */
static inline enum stream_result shake_hands(struct bench *bench) {
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

static inline enum stream_result read_some(struct bench *bench, char *bytes, size_t size, size_t *got) {
    enum stream_result result = STREAM_RETRY;

    for (int i = 0; i < 4 && result == STREAM_RETRY; i++)
        result = bench->engine->read(bench->connection, bytes, size, got);
    return result;
}

static inline void server_says(struct bench *bench, const char *text) {
    assert_int_equal(SSL_write(bench->ssl, text, (int)strlen(text)), (int)strlen(text));
    carry_to_client(bench);
}

static inline void assert_client_reads(struct bench *bench, const char *text) {
    char bytes[65536];
    size_t got;

    assert_int_equal(read_some(bench, bytes, sizeof bytes, &got), STREAM_OK);
    assert_int_equal(got, strlen(text));
    assert_memory_equal(bytes, text, got);
}

static inline void assert_server_reads(struct bench *bench, const char *text) {
    char bytes[1000];

    carry_to_server(bench);
    int got = SSL_read(bench->ssl, bytes, sizeof bytes);
    if (got <= 0)
        ERR_print_errors_fp(stderr);
    assert_int_equal(got, (int)strlen(text));
    assert_memory_equal(bytes, text, (size_t)got);
}

static inline void client_says(struct bench *bench, const char *text) {
    size_t put;

    assert_int_equal(bench->engine->write(bench->connection, text, strlen(text), &put), STREAM_OK);
    assert_int_equal(put, strlen(text));
}

static inline void assert_both_talk(struct bench *bench) {
    client_says(bench, "question");
    assert_server_reads(bench, "question");
    server_says(bench, "answer");
    assert_client_reads(bench, "answer");
}

static inline struct engine_config config_of(int version, const char *cipher) {
    return (struct engine_config){
        .tls_version = version, .cipher = cipher, .resume = true, .session_arrived = session_arrived};
}

static inline struct engine *new_engine(int version, const char *cipher) {
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
static inline void *session_for(const struct kind *kind, struct engine *engine, SSL_CTX *context) {
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

#endif
