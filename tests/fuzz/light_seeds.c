/* SPDX-License-Identifier: MIT */
/*
 * Seeds for both targets: OpenSSL's server talks to the light engine in the wire's deterministic world, and what it
 * says is written down, once as it came over the wire and once in the clear, with what the engine is to do in between.
 *
 *   light_seeds WIRE-DIRECTORY SEALED-DIRECTORY
 */
#include "light_wire.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static EVP_PKEY *keys[2];
static X509 *certificates[2];

static void must(bool condition, const char *what) {
    if (condition)
        return;
    fprintf(stderr, "light_seeds: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void make_keys(void) {
    keys[0] = EVP_RSA_gen(2048);
    keys[1] = EVP_EC_gen("P-256");
    for (int i = 0; i < 2; i++) {
        X509 *x509 = certificates[i] = X509_new();
        X509_gmtime_adj(X509_getm_notBefore(x509), -60);
        X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
        X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_ASC, (const unsigned char *)"localhost",
                                   -1, -1, 0);
        X509_set_issuer_name(x509, X509_get_subject_name(x509));
        X509_set_pubkey(x509, keys[i]);
        must(X509_sign(x509, keys[i], EVP_sha256()) > 0, "no certificate");
    }
}

/* ---- What is written down ---- */

struct record_of_it {
    uint8_t wire[1 << 16], sealed[1 << 16];
    size_t wire_length, sealed_length;
    bool reopened; /* the wire's recording is of one connection */
};

static struct record_of_it notes;
static BIO *to_server, *to_client;

static void note(uint8_t action, uint8_t hint, const uint8_t *bytes, size_t length) {
    uint8_t *at = notes.sealed + notes.sealed_length;

    must(notes.sealed_length + 4 + length <= sizeof notes.sealed, "a flight is too long");
    at[0] = action;
    at[1] = hint;
    at[2] = (uint8_t)(length >> 8);
    at[3] = (uint8_t)length;
    if (length > 0)
        memcpy(at + 4, bytes, length);
    notes.sealed_length += 4 + length;
}

/* A ticket with the longest nonce: as no mutation makes one, since all of its lengths must fit. */
static void note_odd_ticket(void) {
    static uint8_t ticket[4 + 8 + 1 + 255 + 2 + 4 + 2] = {SSL3_MT_NEWSESSION_TICKET, 0, (sizeof ticket - 4) >> 8,
                                                          (uint8_t)(sizeof ticket - 4)};

    ticket[6] = 1; /* of its lifetime */
    ticket[12] = 255;
    ticket[4 + 8 + 1 + 255 + 1] = 4;
    note(ACTION_RECORD, SSL3_RT_HANDSHAKE, ticket, sizeof ticket);
}

static void on_message(int is_written, int version, int type, const void *bytes, size_t length, SSL *ssl, void *user) {
    const uint8_t *message = bytes;

    static const uint8_t change[] = {SSL3_RT_CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1};

    (void)version, (void)user;
    if (!is_written || length == 0)
        return;
    if (type == SSL3_RT_HANDSHAKE && message[0] == SSL3_MT_FINISHED)
        note(ACTION_FINISHED, 0, NULL, 0);
    else if (type == SSL3_RT_CHANGE_CIPHER_SPEC && SSL_version(ssl) == TLS1_3_VERSION)
        note(ACTION_RAW, 0, change, sizeof change); /* never encrypted */
    else if (type == SSL3_RT_HANDSHAKE || type == SSL3_RT_CHANGE_CIPHER_SPEC || type == SSL3_RT_ALERT)
        note(ACTION_RECORD, (uint8_t)type, message, length);
    if (type == SSL3_RT_HANDSHAKE && message[0] == SSL3_MT_NEWSESSION_TICKET && SSL_version(ssl) == TLS1_3_VERSION)
        note_odd_ticket();
}

static void to_the_server(void *user, const uint8_t *bytes, size_t length) {
    (void)user;
    BIO_write(to_server, bytes, (int)length);
}

static void write_file(const char *directory, const char *name, const uint8_t *head, size_t head_length,
                       const uint8_t *bytes, size_t length) {
    char path[4096];

    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    must(file && fwrite(head, 1, head_length, file) == head_length && fwrite(bytes, 1, length, file) == length &&
             fclose(file) == 0,
         path);
}

/* ---- Talks ---- */

struct talk {
    const char *name;
    unsigned setting;
    int version;
    const char *cipher;
    int group; /* the only one the server takes; 0: any */
    bool no_tickets, wants_certificate, renegotiates, allows_psk_ke;
};

static void carry(struct wire *wire, SSL *ssl) {
    for (int i = 0; i < 10; i++) {
        uint8_t bytes[1 << 15], nothing[100];
        int count;
        if (!SSL_is_init_finished(ssl))
            SSL_do_handshake(ssl);
        else
            SSL_read(ssl, nothing, sizeof nothing);
        ERR_clear_error();
        while ((count = BIO_read(to_client, bytes, sizeof bytes)) > 0) {
            if (!notes.reopened && notes.wire_length + (size_t)count <= sizeof notes.wire) {
                memcpy(notes.wire + notes.wire_length, bytes, (size_t)count);
                notes.wire_length += (size_t)count;
            }
            wire_give(wire, bytes, (size_t)count);
        }
        wire_step(wire);
    }
}

static void talk(struct wire *wire, SSL_CTX *context, struct talk *what) {
    static const uint8_t answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    SSL *ssl = SSL_new(context);

    to_server = BIO_new(BIO_s_mem());
    to_client = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl, to_server, to_client);
    SSL_set_accept_state(ssl);
    wire->sink = to_the_server;
    wire_reopen(wire); /* now its ClientHello has somewhere to go */
    carry(wire, ssl);
    wire_write(wire, 1);
    note(ACTION_WRITE, 255, NULL, 0);
    carry(wire, ssl);
    must(SSL_is_init_finished(ssl) && wire->connection->established, what->name);
    SSL_write(ssl, answer, sizeof answer - 1);
    note(ACTION_RECORD, SSL3_RT_APPLICATION_DATA, answer, sizeof answer - 1);
    if (what->version == TLS1_3_VERSION)
        SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED);
    else if (what->renegotiates)
        SSL_renegotiate(ssl);
    SSL_do_handshake(ssl);
    carry(wire, ssl);
    wire_write(wire, 1);
    note(ACTION_WRITE, 255, NULL, 0);
    wire_finish(wire);
    note(ACTION_CLOSE_NOTIFY, 0, NULL, 0);
    SSL_shutdown(ssl);
    carry(wire, ssl);
    note(ACTION_FIN, 0, NULL, 0);
    SSL_free(ssl);
}

static int without_certificate(int good, X509_STORE_CTX *store) {
    (void)good, (void)store;
    return 1;
}

static SSL_CTX *new_context(struct talk *what) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, what->version);
    SSL_CTX_set_max_proto_version(context, what->version);
    SSL_CTX_set_cipher_list(context, what->version == TLS1_3_VERSION ? "ALL" : what->cipher);
    if (what->version == TLS1_3_VERSION && what->cipher)
        SSL_CTX_set_ciphersuites(context, what->cipher);
    if (what->group)
        SSL_CTX_set1_groups(context, &what->group, 1);
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"seed", 4);
    if (what->no_tickets)
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    if (what->allows_psk_ke)
        SSL_CTX_set_options(context, SSL_OP_ALLOW_NO_DHE_KEX);
    if (what->wants_certificate)
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, without_certificate);
    for (int i = 0; i < 2; i++)
        must(SSL_CTX_use_certificate(context, certificates[i]) == 1 && SSL_CTX_use_PrivateKey(context, keys[i]) == 1,
             "a key is refused");
    SSL_CTX_set_msg_callback(context, on_message);
    return context;
}

static void record(struct talk *what, const char *wire_directory, const char *sealed_directory) {
    SSL_CTX *context = new_context(what);
    uint8_t head[2] = {(uint8_t)what->setting, 0};
    struct wire wire;
    size_t of_the_first;

    notes.wire_length = notes.sealed_length = 0;
    notes.reopened = false;
    /* Each connection draws the same random numbers, so what is said here to the second fits the target's first. */
    wire_begin(&wire, what->setting);
    talk(&wire, context, what);
    of_the_first = notes.sealed_length;
    notes.reopened = true;
    note(ACTION_REOPEN, 0, NULL, 0);
    talk(&wire, context, what);
    wire_end(&wire);
    SSL_CTX_free(context);
    write_file(wire_directory, what->name, head, 2, notes.wire, notes.wire_length);
    write_file(sealed_directory, what->name, head, 1, notes.sealed, notes.sealed_length);
    char name[100];
    snprintf(name, sizeof name, "%s-once", what->name);
    write_file(sealed_directory, name, head, 1, notes.sealed, of_the_first);
    /* Byte by byte, and with no room to send. */
    snprintf(name, sizeof name, "%s-slow", what->name);
    head[1] = 1;
    write_file(wire_directory, name, head, 2, notes.wire, notes.wire_length);
    snprintf(name, sizeof name, "%s-full", what->name);
    head[1] = 4;
    write_file(wire_directory, name, head, 2, notes.wire, notes.wire_length);
}

int main(int argc, char **argv) {
    static struct talk talks[] = {
        {"tls13", 0, TLS1_3_VERSION, NULL},
        {"tls13-chacha", 32, TLS1_3_VERSION, "TLS_CHACHA20_POLY1305_SHA256"},
        {"tls13-sha256", 0, TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256"},
        {"tls13-retry", 0, TLS1_3_VERSION, NULL, .group = NID_X9_62_prime256v1},
        {"tls13-certificate-request", 0, TLS1_3_VERSION, NULL, .wants_certificate = true},
        {"tls13-psk-ke", 4, TLS1_3_VERSION, NULL, .allows_psk_ke = true},
        {"tls13-of-either", 2, TLS1_3_VERSION, NULL},
        {"tls12-gcm-ecdsa", 1, TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256"},
        {"tls12-chacha-rsa", 1, TLS1_2_VERSION, "ECDHE-RSA-CHACHA20-POLY1305", .group = NID_X9_62_prime256v1},
        {"tls12-rsa", 1, TLS1_2_VERSION, "AES128-GCM-SHA256"},
        {"tls12-cbc", 5, TLS1_2_VERSION, "ECDHE-RSA-AES128-SHA256", .renegotiates = true},
        {"tls12-cbc-rsa", 5, TLS1_2_VERSION, "AES128-SHA"},
        {"tls12-id", 17, TLS1_2_VERSION, "ECDHE-RSA-AES256-GCM-SHA384", .no_tickets = true},
        {"tls12-certificate-request", 33, TLS1_2_VERSION, "ALL", .wants_certificate = true},
        {"tls12-of-either", 2, TLS1_2_VERSION, "ALL"},
        {"tls13-fresh", 48, TLS1_3_VERSION, NULL},
        {"tls12-fresh", 49, TLS1_2_VERSION, "ECDHE-RSA-AES128-GCM-SHA256"},
        {"tls11", 3, TLS1_1_VERSION, "ECDHE-RSA-AES128-SHA"},
    };

    if (argc != 3) {
        fprintf(stderr, "light_seeds: usage: light_seeds WIRE-DIRECTORY SEALED-DIRECTORY\n");
        return 2;
    }
    make_keys();
    for (size_t i = 0; i < sizeof talks / sizeof *talks; i++)
        record(&talks[i], argv[1], argv[2]);
    for (int i = 0; i < 2; i++) {
        X509_free(certificates[i]);
        EVP_PKEY_free(keys[i]);
    }
    return 0;
}
