/* SPDX-License-Identifier: MIT */
#ifndef TLS_CONNECTIONS_H
#define TLS_CONNECTIONS_H
/* TLS connections in memory, between two contexts of a test. In the header, because each test is a program. */
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct tls_connection {
    SSL *client, *server;
};

static inline void connection_open(struct tls_connection *connection, SSL_CTX *client, SSL_CTX *server) {
    BIO *here, *there;

    connection->client = SSL_new(client);
    connection->server = SSL_new(server);
    assert_int_equal(BIO_new_bio_pair(&here, 1 << 16, &there, 1 << 16), 1);
    SSL_set_bio(connection->client, here, here);
    SSL_set_bio(connection->server, there, there);
    SSL_set_connect_state(connection->client);
    SSL_set_accept_state(connection->server);
}

/* False: one of them would not. */
static inline bool connection_shake_hands(struct tls_connection *connection) {
    bool done[2] = {false, false};

    for (int turn = 0; turn < 20 && !(done[0] && done[1]); turn++) {
        SSL *ssl = turn % 2 ? connection->server : connection->client;
        int result = SSL_do_handshake(ssl);
        if (result != 1 && SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ)
            return false;
        done[turn % 2] = result == 1;
    }
    return done[0] && done[1];
}

/* From the server to the client, which so gets its tickets too. */
static inline void connection_say(struct tls_connection *connection, const char *text) {
    char heard[100];

    assert_int_equal(SSL_write(connection->server, text, (int)strlen(text)), (int)strlen(text));
    assert_int_equal(SSL_read(connection->client, heard, sizeof heard), (int)strlen(text));
    assert_memory_equal(heard, text, strlen(text));
}

static inline void connection_close(struct tls_connection *connection) {
    SSL_shutdown(connection->client);
    SSL_shutdown(connection->server);
    SSL_free(connection->client);
    SSL_free(connection->server);
}

static char certificate_paths[8][64];
static int certificate_count;

static inline void remove_certificates(void) {
    while (certificate_count > 0)
        unlink(certificate_paths[--certificate_count]);
}

/* A file with a key and a certificate for that host, which it has itself signed; gone when the program ends. */
static inline char *certificate_file(const char *host) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    char alternative[100], *path;
    X509_EXTENSION *names;
    FILE *file;

    if (certificate_count == 0)
        atexit(remove_certificates);
    assert_true(certificate_count < 8);
    path = certificate_paths[certificate_count++];
    strcpy(path, "/tmp/test-certificate-XXXXXX");
    file = fdopen(mkstemp(path), "w");
    assert_non_null(file);
    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC, (const unsigned char *)host, -1,
                               -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
    snprintf(alternative, sizeof alternative, "DNS:%s", host);
    names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alternative);
    X509_add_ext(certificate, names, -1);
    X509_EXTENSION_free(names);
    X509_set_pubkey(certificate, key);
    assert_int_not_equal(X509_sign(certificate, key, EVP_sha256()), 0);
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(PEM_write_X509(file, certificate), 1);
    fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return path;
}

#endif
