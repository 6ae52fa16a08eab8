/* SPDX-License-Identifier: MIT */
/* Without this, a backend that trusts version 2 of the PROXY header does not learn which certificate the client showed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/x509.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "proxy_header.h"
#include "proxy_protocol.h"

static X509 *new_certificate(EVP_PKEY *key, const char *name) {
    X509 *certificate = X509_new();

    assert_non_null(certificate);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8, (const unsigned char *)name, -1,
                               -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
    assert_true(X509_sign(certificate, key, EVP_sha384()) > 0);
    return certificate;
}

static int accept_any(int ok, X509_STORE_CTX *context) {
    (void)ok, (void)context;
    return 1;
}

static SSL *new_end(const SSL_METHOD *method, const char *name, X509 **certificate) {
    SSL_CTX *context = SSL_CTX_new(method);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    SSL *ssl;

    *certificate = new_certificate(key, name);
    assert_int_equal(SSL_CTX_use_certificate(context, *certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, key), 1);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, accept_any);
    ssl = SSL_new(context);
    SSL_CTX_free(context);
    EVP_PKEY_free(key);
    return ssl;
}

static struct reader find_tlv(struct reader tlvs, int type) {
    while (tlvs.left) {
        int found = reader_u8(&tlvs);
        struct reader value = reader_vector(&tlvs, 2);
        if (found == type)
            return value;
    }
    return reader_of((const uint8_t *)"", 0);
}

static void assert_tlv(struct reader tlvs, int type, const void *bytes, size_t length) {
    struct reader value = find_tlv(tlvs, type);

    assert_int_equal(value.left, length);
    assert_memory_equal(value.at, bytes, length);
}

static void version_2_shows_the_client_s_certificate(void **state) {
    (void)state;
    X509 *own, *shown;
    SSL *server = new_end(TLS_server_method(), "server", &own), *client = new_end(TLS_client_method(), "jo", &shown);
    BIO *server_side, *client_side;
    struct address address;
    char header[PROXY_HEADER_BYTES_MAX];
    unsigned char *der = NULL;
    struct reader tlvs, tls;
    size_t length;
    int fd, der_length = i2d_X509(shown, &der);

    assert_int_equal(BIO_new_bio_pair(&server_side, 65536, &client_side, 65536), 1);
    SSL_set_bio(server, server_side, server_side);
    SSL_set_bio(client, client_side, client_side);
    SSL_set_accept_state(server);
    SSL_set_connect_state(client);
    for (int flight = 0; flight < 4; flight++) {
        SSL_do_handshake(client);
        SSL_do_handshake(server);
    }
    assert_true(SSL_is_init_finished(client) && SSL_is_init_finished(server));
    assert_null(address_parse(&address, "127.0.0.1:0"));
    length = proxy_header_make(header, HEADER_PROXY_V2, true, &address, -1, server);
    /* Descriptor -1 has no address: LOCAL, which says nothing of the client. */
    assert_int_equal(length, PROXY_PROTOCOL_V2_FIXED);

    assert_true(address_listen(&address, 1, &fd, 1));
    length = proxy_header_make(header, HEADER_PROXY_V2, true, &address, fd, server);
    assert_true(length > PROXY_PROTOCOL_V2_FIXED + 12);
    tlvs = reader_of((uint8_t *)header + PROXY_PROTOCOL_V2_FIXED + 12, length - PROXY_PROTOCOL_V2_FIXED - 12);
    tls = find_tlv(tlvs, 0x20);
    assert_int_equal(reader_u8(&tls), 0x07); /* TLS, with a certificate, in this connection */
    assert_int_equal(reader_uint(&tls, 4), SSL_get_verify_result(server));
    assert_tlv(tls, 0x21, "TLSv1.3", 7);
    assert_tlv(tls, 0x22, "jo", 2);
    assert_tlv(tls, 0x24, "SHA384", 6);
    assert_tlv(tls, 0x25, "EC256", 5);
    assert_tlv(tls, 0x28, der, (size_t)der_length);
    OPENSSL_free(der);
    X509_free(own);
    X509_free(shown);
    SSL_free(server);
    SSL_free(client);
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_2_shows_the_client_s_certificate),
    };

    return cmocka_run_group_tests_name("proxy_header", tests, NULL, NULL);
}
