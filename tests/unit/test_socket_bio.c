/* SPDX-License-Identifier: MIT */
/* What the TLS library is told of a socket, and that what belongs together leaves together. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "socket_bio.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct pair {
    int near, far;
    BIO *bio; /* on near */
};

/* Two ends of a TCP connection, near without Nagle's algorithm and not blocking. */
static struct pair tcp_pair(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct pair pair;

    assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    pair.far = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(pair.far, (struct sockaddr *)&address, length), 0);
    pair.near = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    assert_true(pair.near >= 0);
    assert_int_equal(setsockopt(pair.near, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), 0);
    close(listener);
    pair.bio = socket_bio_new(pair.near);
    assert_non_null(pair.bio);
    assert_int_equal(BIO_get_fd(pair.bio, NULL), pair.near);
    assert_ptr_equal(BIO_find_type(pair.bio, BIO_TYPE_DESCRIPTOR), pair.bio); /* as SSL_get_fd looks for it */
    return pair;
}

static void close_pair(struct pair *pair) {
    BIO_free(pair->bio);
    close(pair->near);
    close(pair->far);
}

static unsigned data_segments_sent(int fd) {
    struct tcp_info info;
    socklen_t length = sizeof info;

    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
    return info.tcpi_data_segs_out;
}

static unsigned segments_of_two_writes(bool more) {
    struct pair pair = tcp_pair();
    char got[16];
    unsigned segments;

    socket_bio_more(pair.bio, more);
    assert_int_equal(BIO_write(pair.bio, "together", 8), 8);
    socket_bio_more(pair.bio, false);
    assert_int_equal(BIO_write(pair.bio, ", always", 8), 8);
    assert_int_equal(recv(pair.far, got, sizeof got, MSG_WAITALL), 16);
    assert_memory_equal(got, "together, always", 16);
    segments = data_segments_sent(pair.near);
    close_pair(&pair);
    return segments;
}

static void what_more_follows_leaves_with_it(void **state) {
    int tries = 100;

    (void)state;
    assert_int_equal(segments_of_two_writes(false), 2);
    /* The kernel waits 200 ms for what follows: a process that was stopped for so long may try again. */
    while (segments_of_two_writes(true) != 1)
        assert_true(--tries > 0);
}

static void a_fin_takes_what_waits_along(void **state) {
    struct pair pair = tcp_pair();
    char got[16];

    (void)state;
    socket_bio_more(pair.bio, true);
    assert_int_equal(BIO_write(pair.bio, "the end", 7), 7);
    assert_int_equal(shutdown(pair.near, SHUT_WR), 0);
    assert_int_equal(recv(pair.far, got, sizeof got, MSG_WAITALL), 7);
    assert_memory_equal(got, "the end", 7);
    close_pair(&pair);
}

static void nothing_there_is_told_from_the_end(void **state) {
    struct pair pair = tcp_pair();
    char got[16];

    (void)state;
    assert_int_equal(BIO_read(pair.bio, got, sizeof got), -1);
    assert_true(BIO_should_read(pair.bio));
    assert_false(BIO_eof(pair.bio));
    assert_int_equal(send(pair.far, "x", 1, 0), 1);
    while (BIO_read(pair.bio, got, sizeof got) != 1)
        assert_true(BIO_should_read(pair.bio));
    assert_false(BIO_should_retry(pair.bio));
    shutdown(pair.far, SHUT_WR);
    while (BIO_read(pair.bio, got, sizeof got) != 0)
        assert_true(BIO_should_read(pair.bio));
    assert_false(BIO_should_retry(pair.bio));
    assert_true(BIO_eof(pair.bio));
    close_pair(&pair);
}

static void a_full_socket_is_to_be_tried_again_and_a_dead_one_is_not(void **state) {
    struct pair pair = tcp_pair();
    static char many[1 << 16];
    struct linger reset = {.l_onoff = 1};
    int put;

    (void)state;
    while ((put = BIO_write(pair.bio, many, sizeof many)) > 0)
        ;
    assert_int_equal(put, -1);
    assert_true(BIO_should_write(pair.bio));
    assert_int_equal(setsockopt(pair.far, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(pair.far);
    pair.far = -1;
    while (BIO_write(pair.bio, many, 1) == -1 && BIO_should_retry(pair.bio))
        ;
    assert_int_equal(BIO_write(pair.bio, many, 1), -1); /* and no SIGPIPE */
    assert_false(BIO_should_retry(pair.bio));
    close_pair(&pair);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_more_follows_leaves_with_it),
        cmocka_unit_test(a_fin_takes_what_waits_along),
        cmocka_unit_test(nothing_there_is_told_from_the_end),
        cmocka_unit_test(a_full_socket_is_to_be_tried_again_and_a_dead_one_is_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
