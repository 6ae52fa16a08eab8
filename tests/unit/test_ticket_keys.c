/* SPDX-License-Identifier: MIT */
/* What a key that was replaced means for the tickets of clients: handshakes in memory, and rotations when we want them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tls_connections.h"
#include "tls_context.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct fixture {
    struct ticket_keys *keys;
    SSL_CTX *server, *client;
    SSL_SESSION *session; /* that came last */
};

static int set_up(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    static struct certificate_source source;
    static struct ticket_keys *keys; /* as long as the program, as in the master */
    struct proxy_settings settings = {.certificates = {&source, 1},
                                      .tickets = 1,
                                      .num_tickets = 1,
                                      .session_lifetime_ns = 3600 * UINT64_C(1000000000)};

    if (!source.file) {
        source.file = certificate_file("localhost");
        keys = ticket_keys_new();
    }
    fixture->keys = keys;
    assert_null(tls_context_new(&fixture->server, &settings, NULL, fixture->keys, NULL));
    fixture->client = SSL_CTX_new(TLS_client_method());
    *state = fixture;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *fixture = *state;

    SSL_SESSION_free(fixture->session);
    SSL_CTX_free(fixture->server);
    SSL_CTX_free(fixture->client);
    free(fixture);
    return 0;
}

/* One connection that offers the session, with something said: was it resumed? The handshake succeeds in any case. */
static bool resumes(struct fixture *fixture, SSL_SESSION *offer) {
    struct tls_connection connection;
    bool resumed;

    connection_open(&connection, fixture->client, fixture->server);
    if (offer)
        assert_int_equal(SSL_set_session(connection.client, offer), 1);
    assert_true(connection_shake_hands(&connection));
    connection_say(&connection, "x");
    resumed = SSL_session_reused(connection.server);
    SSL_SESSION_free(fixture->session);
    fixture->session = SSL_get1_session(connection.client);
    connection_close(&connection);
    return resumed;
}

static SSL_SESSION *last_session(struct fixture *fixture) {
    SSL_SESSION *session = fixture->session;

    assert_non_null(session);
    fixture->session = NULL;
    return session;
}

static void ticket_of_the_key_before_is_taken_and_replaced_older_ones_are_not(struct fixture *fixture) {
    SSL_SESSION *first, *second;

    assert_false(resumes(fixture, NULL));
    first = last_session(fixture);
    assert_true(resumes(fixture, first));
    assert_true(ticket_keys_rotate(fixture->keys));
    assert_true(resumes(fixture, first));
    second = last_session(fixture);
    assert_true(ticket_keys_rotate(fixture->keys));
    assert_false(resumes(fixture, first));
    assert_true(resumes(fixture, second)); /* it was sealed anew */
    for (int i = 0; i < 10; i++)
        assert_true(ticket_keys_rotate(fixture->keys));
    assert_false(resumes(fixture, first) || resumes(fixture, second));
    SSL_SESSION_free(first);
    SSL_SESSION_free(second);
}

static void old_tickets_tls12(void **state) {
    struct fixture *fixture = *state;

    SSL_CTX_set_max_proto_version(fixture->client, TLS1_2_VERSION);
    ticket_of_the_key_before_is_taken_and_replaced_older_ones_are_not(fixture);
}

static void old_tickets_tls13(void **state) {
    struct fixture *fixture = *state;

    SSL_CTX_set_min_proto_version(fixture->client, TLS1_3_VERSION);
    ticket_of_the_key_before_is_taken_and_replaced_older_ones_are_not(fixture);
}

static void only_the_last_two_keys_are_found(void **state) {
    (void)state;
    static struct ticket_keys *keys;
    const uint8_t nobody[TICKET_KEY_NAME_BYTES] = {0};
    struct ticket_key made[6], found;
    bool is_current;

    keys = ticket_keys_new();
    /* No slot that was never filled, or was wiped, may answer: its key would be known to everybody. */
    assert_false(ticket_keys_find(keys, nobody, &found, &is_current));
    for (int i = 0; i < 6; i++) {
        ticket_keys_current(keys, &made[i]);
        for (int j = 0; j <= i; j++) {
            assert_int_equal(ticket_keys_find(keys, made[j].name, &found, &is_current), j >= i - 1);
            assert_true(j < i - 1 || is_current == (j == i));
            assert_true(j < i - 1 || memcmp(&found, &made[j], sizeof found) == 0);
        }
        assert_true(ticket_keys_rotate(keys));
        assert_false(ticket_keys_find(keys, nobody, &found, &is_current));
    }
}

/* A worker that reads while the master rotates as fast as it can never sees half a key. */
static void a_key_is_never_seen_half_made(void **state) {
    struct fixture *fixture = *state;
    struct ticket_key key, again;
    bool is_current;
    int status, found = 0;
    pid_t reader = fork();

    assert_true(reader >= 0);
    if (reader == 0) {
        for (int i = 0; i < 2000000; i++) {
            ticket_keys_current(fixture->keys, &key);
            if (!ticket_keys_find(fixture->keys, key.name, &again, &is_current))
                continue; /* two rotations ago by now */
            found++;
            if (memcmp(&key, &again, sizeof key) != 0)
                _exit(1);
        }
        _exit(found ? 0 : 2);
    }
    while (waitpid(reader, &status, WNOHANG) == 0)
        ticket_keys_rotate(fixture->keys);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(old_tickets_tls12, set_up, tear_down),
        cmocka_unit_test_setup_teardown(old_tickets_tls13, set_up, tear_down),
        cmocka_unit_test(only_the_last_two_keys_are_found),
        cmocka_unit_test_setup_teardown(a_key_is_never_seen_half_made, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
