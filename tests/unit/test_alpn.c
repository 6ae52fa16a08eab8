/* SPDX-License-Identifier: MIT */
/* Next Protocol Negotiation, in which a client may choose what it was not shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "alpn.h"
#include "tls_connections.h"

static int choose(SSL *ssl, unsigned char **chosen, unsigned char *length, const unsigned char *shown,
                  unsigned shown_length, void *user) {
    (void)ssl, (void)shown, (void)shown_length;
    *chosen = user;
    *length = (unsigned char)strlen(user);
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *new_server(const struct alpn *alpn) {
    SSL_CTX *server = SSL_CTX_new(TLS_server_method());
    const char *file = certificate_file("backend.example");

    assert_int_equal(SSL_CTX_use_certificate_file(server, file, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(server, file, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(server, TLS1_2_VERSION), 1);
    alpn_serve(server, alpn);
    return server;
}

/* What both agree on if the client chooses this. */
static void assert_agreed(SSL_CTX *server, const char *chosen, const char *expected) {
    SSL_CTX *client = SSL_CTX_new(TLS_client_method());
    struct tls_connection connection;
    const unsigned char *name;
    unsigned length;

    SSL_CTX_set_next_proto_select_cb(client, choose, (void *)(uintptr_t)chosen);
    connection_open(&connection, client, server);
    assert_true(connection_shake_hands(&connection));
    alpn_agreed(connection.server, &name, &length);
    assert_int_equal(length, strlen(expected));
    assert_memory_equal(name, expected, length);
    connection_close(&connection);
    SSL_CTX_free(client);
}

static void what_the_client_makes_up_is_not_agreed(void **state) {
    (void)state;
    struct alpn alpn;
    SSL_CTX *server;

    assert_null(alpn_parse(&alpn, "http/1.1, spdy/3"));
    server = new_server(&alpn);
    assert_agreed(server, "spdy/3", "spdy/3");
    assert_agreed(server, "h2", "");
    assert_agreed(server, "spdy", "");
    SSL_CTX_free(server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_client_makes_up_is_not_agreed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
