/* SPDX-License-Identifier: MIT */
/* Sockets that serve one connection after the other. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "plan.h"
#include "spare_sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int listen_at(struct sockaddr_in *address) {
    socklen_t length = sizeof *address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(listener, (struct sockaddr *)address, length), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)address, &length), 0);
    return listener;
}

/* A connection of the socket near (-1: a new one) through the listener; returns its far end. */
static int connect_through(int listener, const struct sockaddr_in *address, int *near) {
    int far;

    if (*near < 0)
        *near = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(*near, (const struct sockaddr *)address, sizeof *address), 0);
    far = accept(listener, NULL, NULL);
    assert_true(far >= 0);
    return far;
}

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

static void one_that_both_sides_have_ended_connects_again(void **state) {
    struct spare_sockets spare = {.count = 0};
    struct sockaddr_in address;
    int listener = listen_at(&address), near = -1;
    char bytes[8];
    (void)state;

    for (int i = 0; i < 3; i++) {
        int far = connect_through(listener, &address, &near);
        assert_int_equal(send(near, "one", 3, 0), 3);
        assert_int_equal(recv(far, bytes, sizeof bytes, 0), 3); /* and nothing of the connection before */
        assert_int_equal(shutdown(near, SHUT_WR), 0);
        assert_int_equal(recv(far, bytes, sizeof bytes, 0), 0);
        close(far);
        spare_sockets_keep(&spare, near);
        assert_int_equal(spare.count, 1);
        assert_int_equal(spare_sockets_take(&spare), near);
        assert_int_equal(spare_sockets_take(&spare), -1);
    }
    close(near);
    close(listener);
}

/* It is closed as ever: the other side sees its end, and no reset. */
static void one_that_is_not_at_its_end_is_closed(void **state) {
    struct spare_sockets spare = {.count = 0};
    struct sockaddr_in address;
    int listener = listen_at(&address), near = -1, far = connect_through(listener, &address, &near);
    char byte;
    (void)state;

    shutdown(near, SHUT_WR);
    spare_sockets_keep(&spare, near);
    assert_int_equal(spare.count, 0);
    assert_false(is_open(near));
    assert_int_equal(recv(far, &byte, 1, 0), 0);
    close(far);
    close(listener);
}

static void one_that_is_reset_connects_again(void **state) {
    struct sockaddr_in address;
    int listener = listen_at(&address), near = -1;
    char byte;
    (void)state;

    for (int i = 0; i < 3; i++) {
        int far = connect_through(listener, &address, &near);
        assert_int_equal(send(far, "unread", 6, 0), 6);
        assert_true(spare_socket_disconnect(near));
        assert_int_equal(recv(far, &byte, 1, 0), -1);
        assert_int_equal(errno, ECONNRESET);
        close(far);
        assert_int_equal(recv(near, &byte, 1, MSG_DONTWAIT), -1); /* what was unread is gone */
    }
    close(near);
    close(listener);
}

static void there_is_an_end_to_how_many_are_kept(void **state) {
    struct spare_sockets spare = {.count = 0};
    struct sockaddr_in address;
    int listener = listen_at(&address), last = -1;
    (void)state;

    for (int i = 0; i < SPARE_SOCKETS_MAX + 1; i++) {
        int near = -1, far = connect_through(listener, &address, &near);
        shutdown(near, SHUT_WR);
        close(far);
        spare_sockets_keep(&spare, near);
        last = near;
    }
    assert_int_equal(spare.count, SPARE_SOCKETS_MAX);
    assert_false(is_open(last));
    last = spare.fds[0];
    spare_sockets_end(&spare);
    assert_false(is_open(last));
    close(listener);
}

static struct plan plan_to(const char *one, const char *other) {
    struct plan plan = {.targets = 2};

    assert_null(address_parse(&plan.target[0].address, one));
    assert_null(address_parse(&plan.target[1].address, other));
    return plan;
}

static void one_serves_only_where_it_fits_every_target(void **state) {
    struct plan plan = plan_to("127.0.0.1:1", "127.0.0.2:2");
    (void)state;

    assert_true(spare_sockets_serve(&plan));
    assert_null(source_parse(&plan.source, "127.1.0.0/16")); /* it has the source of the connection before */
    assert_false(spare_sockets_serve(&plan));
    plan = plan_to("127.0.0.1:1", "[::1]:1");
    assert_false(spare_sockets_serve(&plan));
    plan = plan_to("[::1]:1", "[::1]:2");
    assert_true(spare_sockets_serve(&plan));
    plan = plan_to("/a", "/a");
    assert_false(spare_sockets_serve(&plan));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_both_sides_have_ended_connects_again),
        cmocka_unit_test(one_that_is_not_at_its_end_is_closed),
        cmocka_unit_test(one_that_is_reset_connects_again),
        cmocka_unit_test(there_is_an_end_to_how_many_are_kept),
        cmocka_unit_test(one_serves_only_where_it_fits_every_target),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
