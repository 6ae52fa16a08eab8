/* SPDX-License-Identifier: MIT */
/* The proxy's own TLS on both ends: the client that --client is against the server that it otherwise is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tls_connections.h"
#include "tls_context.h"

#define HOUR_NS (3600 * UINT64_C(1000000000))

static char *backend_file, *other_file;
static struct ticket_keys *keys;

static int make_files(void **state) {
    (void)state;
    backend_file = certificate_file("backend.example");
    other_file = certificate_file("other.example");
    keys = ticket_keys_new();
    return keys ? 0 : -1;
}

static SSL_CTX *new_server(struct proxy_settings settings) {
    struct certificate_source source = {.file = backend_file};
    SSL_CTX *context = NULL;

    settings.certificates = (struct certificate_list){&source, 1};
    settings.tickets = 1;
    settings.num_tickets = 1;
    settings.session_lifetime_ns = HOUR_NS;
    assert_null(tls_context_new(&context, &settings, NULL, keys, NULL));
    return context;
}

static SSL_CTX *new_client(struct proxy_settings settings) {
    SSL_CTX *context = NULL;

    settings.client_role = true;
    assert_null(tls_context_new(&context, &settings, NULL, NULL, NULL));
    tls_context_begin(context, NULL, 0, NULL); /* it counts nothing, and may be told to as a server is */
    return context;
}

static const char *refusal(struct proxy_settings settings) {
    SSL_CTX *context = NULL;
    const char *reason = tls_context_new_client(&context, &settings);

    assert_non_null(reason);
    assert_null(context);
    return reason;
}

static void open_prepared(struct tls_connection *connection, SSL_CTX *client, SSL_CTX *server) {
    connection_open(connection, client, server);
    assert_true(tls_context_prepare_client(connection->client));
}

/* Whether a client of those settings takes the backend for what it should be. */
static bool believes(struct proxy_settings settings) {
    SSL_CTX *client = new_client(settings), *server = new_server((struct proxy_settings){0});
    struct tls_connection connection;
    bool believed;

    open_prepared(&connection, client, server);
    believed = connection_shake_hands(&connection);
    if (believed && settings.backend_name && settings.backend_name[0] == 'b')
        assert_string_equal(SSL_get_servername(connection.server, TLSEXT_NAMETYPE_host_name), settings.backend_name);
    if (!believed)
        assert_int_not_equal(SSL_get_verify_result(connection.client), X509_V_OK);
    connection_close(&connection);
    SSL_CTX_free(client);
    SSL_CTX_free(server);
    return believed;
}

static void the_backend_must_be_who_it_should_be(void **state) {
    (void)state;

    assert_true(believes((struct proxy_settings){.backend_ca = backend_file, .backend_name = "backend.example"}));
    assert_false(believes((struct proxy_settings){.backend_ca = backend_file, .backend_name = "other.example"}));
    assert_false(believes((struct proxy_settings){.backend_ca = backend_file, .backend_name = "127.0.0.1"}));
    assert_false(believes((struct proxy_settings){.backend_ca = other_file, .backend_name = "backend.example"}));
    /* Not asked to: it asks for the name, and believes anybody. */
    assert_true(believes((struct proxy_settings){.backend_name = "backend.example"}));
    assert_true(believes((struct proxy_settings){.backend_name = "127.0.0.1"}));
    assert_true(believes((struct proxy_settings){0}));
}

static void sessions_resume(int version, int rotate_at) {
    SSL_CTX *client = new_client((struct proxy_settings){.versions = {.min = version, .max = version}});
    SSL_CTX *server = new_server((struct proxy_settings){0});

    for (int i = 0; i < 6; i++) {
        struct tls_connection connection;
        if (i == rotate_at || i == rotate_at + 1)
            assert_true(ticket_keys_rotate(keys));
        open_prepared(&connection, client, server);
        assert_true(connection_shake_hands(&connection));
        connection_say(&connection, "x");
        assert_int_equal(SSL_session_reused(connection.client), i > 0);
        connection_close(&connection);
    }
    SSL_CTX_free(client);
    SSL_CTX_free(server);
}

static void every_handshake_but_the_first_is_resumed(void **state) {
    (void)state;

    for (int rotate_at = -2; rotate_at < 4; rotate_at += 3) { /* never, and from the second connection on */
        sessions_resume(TLS1_2_VERSION, rotate_at);
        sessions_resume(TLS1_3_VERSION, rotate_at);
    }
}

/* Connections that are opened before any has ended offer the same session; each is served. */
static void connections_at_the_same_time_share_what_session_there_is(void **state) {
    (void)state;
    SSL_CTX *client = new_client((struct proxy_settings){0}), *server = new_server((struct proxy_settings){0});
    struct tls_connection connection[4];

    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++)
            open_prepared(&connection[i], client, server);
        for (int i = 0; i < 4; i++) {
            assert_true(connection_shake_hands(&connection[i]));
            connection_say(&connection[i], "x");
        }
        for (int i = 0; i < 4; i++)
            connection_close(&connection[i]);
    }
    SSL_CTX_free(client);
    SSL_CTX_free(server);
}

static void a_client_certificate_and_protocols_are_presented(void **state) {
    (void)state;
    struct certificate_source source = {.file = other_file};
    SSL_CTX *client = new_client((struct proxy_settings){.certificates = {&source, 1}, .alpn = "h2,http/1.1"});
    SSL_CTX *server = new_server((struct proxy_settings){.client_ca = other_file, .alpn = "http/1.1"});
    struct tls_connection connection;
    const unsigned char *chosen;
    unsigned length;

    open_prepared(&connection, client, server);
    assert_true(connection_shake_hands(&connection));
    assert_int_equal(SSL_get_verify_result(connection.server), X509_V_OK);
    assert_non_null(SSL_get0_peer_certificate(connection.server));
    SSL_get0_alpn_selected(connection.client, &chosen, &length);
    assert_int_equal(length, 8);
    assert_memory_equal(chosen, "http/1.1", 8);
    connection_close(&connection);
    SSL_CTX_free(client);
    SSL_CTX_free(server);
}

static void what_cannot_be_is_refused(void **state) {
    (void)state;
    const char *missing = "/no/such/file";
    struct certificate_source certificates[] = {{.file = backend_file}, {.file = other_file}}, none = {.file = missing};
    char longest[300];

    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_non_null(strstr(refusal((struct proxy_settings){.backend_ca = backend_file}), "needs --verify-name"));
    assert_non_null(
        strstr(refusal((struct proxy_settings){.backend_ca = missing, .backend_name = "x"}), "No such file"));
    assert_non_null(
        strstr(refusal((struct proxy_settings){.backend_ca = "/dev/null", .backend_name = "x"}), "not a regular file"));
    assert_non_null(
        strstr(refusal((struct proxy_settings){.backend_ca = "/proc/version", .backend_name = "x"}), "no certificate"));
    assert_non_null(strstr(refusal((struct proxy_settings){.backend_name = longest}), "255"));
    assert_non_null(strstr(refusal((struct proxy_settings){.certificates = {certificates, 2}}), "one certificate"));
    assert_non_null(strstr(refusal((struct proxy_settings){.certificates = {&none, 1}}), "No such file"));
    assert_non_null(strstr(refusal((struct proxy_settings){.alpn = ","}), "--alpn"));
    assert_non_null(strstr(refusal((struct proxy_settings){.ciphers = "nothing"}), "--ciphers"));
    assert_non_null(strstr(refusal((struct proxy_settings){.engine = "nothing"}), "--engine"));
    assert_string_equal(refusal((struct proxy_settings){.client_ca = other_file}),
                        "--client-ca: not together with --client");
    assert_string_equal(refusal((struct proxy_settings){.client_verify = CLIENT_VERIFY_OPTIONAL}),
                        "--client-verify: not together with --client");
    assert_string_equal(refusal((struct proxy_settings){.sni_nomatch_abort = true}),
                        "--sni-nomatch-abort: not together with --client");
    assert_string_equal(refusal((struct proxy_settings){.ticket_keys = missing}),
                        "--ticket-keys: not together with --client");
    assert_string_equal(refusal((struct proxy_settings){.ocsp_files.count = 1}), "--ocsp: not together with --client");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_backend_must_be_who_it_should_be),
        cmocka_unit_test(every_handshake_but_the_first_is_resumed),
        cmocka_unit_test(connections_at_the_same_time_share_what_session_there_is),
        cmocka_unit_test(a_client_certificate_and_protocols_are_presented),
        cmocka_unit_test(what_cannot_be_is_refused),
    };

    return cmocka_run_group_tests(tests, make_files, NULL);
}
