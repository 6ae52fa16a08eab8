/* SPDX-License-Identifier: MIT */
/* What a TLS server says at once, and what may wait for company. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "stream.h"
#include "tls_connections.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static SSL_CTX *server_context, *client_context;

static int make_contexts(void **state) {
    char *file = certificate_file("localhost");

    (void)state;
    server_context = SSL_CTX_new(TLS_server_method());
    client_context = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_use_PrivateKey_file(server_context, file, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_certificate_file(server_context, file, SSL_FILETYPE_PEM), 1);
    SSL_CTX_set_min_proto_version(server_context, TLS1_3_VERSION);
    return 0;
}

static int free_contexts(void **state) {
    (void)state;
    SSL_CTX_free(server_context);
    SSL_CTX_free(client_context);
    return 0;
}

struct ends {
    struct stream server;
    SSL *client;
    int client_fd;
};

/* A server's stream and a client over TCP, neither of which waits. */
static void ends_open(struct ends *ends) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, accepted;

    assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    ends->client_fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(ends->client_fd, (struct sockaddr *)&address, length), 0);
    accepted = accept(listener, NULL, NULL);
    close(listener);
    assert_int_equal(fcntl(accepted, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(fcntl(ends->client_fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), 0);
    assert_true(stream_open_tls(&ends->server, accepted, server_context, true));
    ends->client = SSL_new(client_context);
    SSL_set_fd(ends->client, ends->client_fd);
    SSL_set_connect_state(ends->client);
}

static void ends_close(struct ends *ends) {
    stream_close(&ends->server);
    SSL_free(ends->client);
    close(ends->client_fd);
}

static int held_back_bytes(const struct ends *ends) {
    int bytes = -1;

    assert_int_equal(ioctl(ends->server.fd, SIOCOUTQNSD, &bytes), 0);
    return bytes;
}

/* Both take turns until the server has sent as many flights. */
static void server_flights(struct ends *ends, int flights) {
    uint64_t written = 0;

    while (flights > 0) {
        BIO *out = SSL_get_wbio(ends->server.ssl);
        if (SSL_do_handshake(ends->client) != 1)
            assert_int_not_equal(SSL_want(ends->client), SSL_NOTHING);
        assert_int_equal(stream_handshake(&ends->server), STREAM_RETRY);
        flights -= BIO_number_written(out) != written;
        written = BIO_number_written(out);
    }
}

static int held_back_after_flights(int flights) {
    struct ends ends;
    int bytes;

    ends_open(&ends);
    server_flights(&ends, flights);
    bytes = held_back_bytes(&ends);
    ends_close(&ends);
    return bytes;
}

static void the_flight_of_a_server_leaves_at_once(int flights) {
    int tries = 20;

    /* What paces the kernel may hold it up now and then, but not each time. */
    while (held_back_after_flights(flights) != 0)
        assert_true(--tries > 0);
}

static void a_flight_leaves_at_once(void **state) {
    (void)state;
    the_flight_of_a_server_leaves_at_once(1);
}

/* The client waits for it: held back it would cost each such handshake the 200 ms that the kernel waits. */
static void a_flight_after_a_hello_retry_request_leaves_at_once(void **state) {
    (void)state;
    assert_int_equal(SSL_CTX_set1_groups_list(server_context, "P-384"), 1);
    assert_int_equal(SSL_CTX_set1_groups_list(client_context, "P-256:P-384"), 1);
    the_flight_of_a_server_leaves_at_once(2);
    assert_int_equal(SSL_CTX_set1_groups_list(server_context, "P-256:P-384"), 1);
}

static bool tickets_leave_with_the_answer(void) {
    struct ends ends;
    enum stream_result result;
    int before;
    size_t put;

    ends_open(&ends);
    server_flights(&ends, 1);
    while (SSL_do_handshake(ends.client) != 1)
        assert_int_not_equal(SSL_want(ends.client), SSL_NOTHING);
    while ((result = stream_handshake(&ends.server)) == STREAM_RETRY)
        ;
    assert_int_equal(result, STREAM_OK);
    before = held_back_bytes(&ends);
    assert_int_equal(stream_write(&ends.server, "answer", 6, &put), STREAM_OK);
    before = before > 0 && held_back_bytes(&ends) == 0;
    ends_close(&ends);
    return before;
}

static void tickets_wait_for_the_first_answer(void **state) {
    int tries = 20;

    (void)state;
    /* A process that was stopped for the 200 ms that the kernel waits may try again. */
    while (!tickets_leave_with_the_answer())
        assert_true(--tries > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flight_leaves_at_once),
        cmocka_unit_test(a_flight_after_a_hello_retry_request_leaves_at_once),
        cmocka_unit_test(tickets_wait_for_the_first_answer),
    };

    return cmocka_run_group_tests(tests, make_contexts, free_contexts);
}
