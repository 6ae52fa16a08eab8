/* SPDX-License-Identifier: MIT */
/* Clients that ask for one name, and when they are told to ask again (RFC 8446, 4.1.4) for another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tls_connections.h"
#include "tls_context.h"

static struct ticket_keys *keys;

static int make_keys(void **state) {
    (void)state;
    keys = ticket_keys_new();
    return keys ? 0 : -1;
}

/* Clients of the first name are asked for nothing, those of the second as all are. */
static SSL_CTX *new_server(void) {
    char *authority = certificate_file("authority.example");
    struct certificate_source sources[] = {
        {.file = certificate_file("open.example"), .client_verify = CLIENT_VERIFY_NONE},
        {.file = certificate_file("closed.example")},
    };
    const struct proxy_settings settings = {
        .certificates = {sources, 2}, .client_ca = authority, .groups = "P-256", .tickets = 1, .num_tickets = 1};
    SSL_CTX *context = NULL;

    assert_null(tls_context_new(&context, &settings, NULL, keys, NULL));
    return context;
}

/* Whether somebody without a certificate is served who asks for one name, and then for another. */
static bool serves(SSL_CTX *client, SSL_CTX *server, const char *first, const char *then) {
    struct tls_connection connection;
    bool served;

    connection_open(&connection, client, server);
    assert_int_equal(SSL_set_tlsext_host_name(connection.client, first), 1);
    assert_int_equal(SSL_do_handshake(connection.client), -1);
    assert_int_equal(SSL_do_handshake(connection.server), -1);
    assert_int_equal(SSL_set_tlsext_host_name(connection.client, then), 1);
    served = connection_shake_hands(&connection);
    connection_close(&connection);
    return served;
}

static void nobody_is_let_in_under_one_name_and_asks_for_another(void **state) {
    (void)state;
    SSL_CTX *client = SSL_CTX_new(TLS_client_method()), *server = new_server();

    /* The server has to ask for another key share. */
    assert_int_equal(SSL_CTX_set1_groups_list(client, "X25519:P-256"), 1);
    assert_true(serves(client, server, "open.example", "open.example"));
    assert_false(serves(client, server, "closed.example", "closed.example"));
    assert_false(serves(client, server, "open.example", "closed.example"));
    assert_false(serves(client, server, "closed.example", "open.example"));
    SSL_CTX_free(client);
    SSL_CTX_free(server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_let_in_under_one_name_and_asks_for_another),
    };

    return cmocka_run_group_tests(tests, make_keys, NULL);
}
