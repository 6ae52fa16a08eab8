/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "session_sync.h"
#include "sync_receiver.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* As a process begins that has its place in this state: with so many takes begun and ended, and a socket of that size.
 */
static struct sync_receiver begun(uint64_t *takes, int socket_bytes) {
    struct sync_inbox inbox = {0};
    struct session_sync sync = {.takes = takes};
    struct sync_receiver receiver;
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);

    assert_non_null(loop);
    sync.fd = socket(AF_INET, SOCK_DGRAM, 0);
    sync.hurry = eventfd(0, EFD_NONBLOCK);
    assert_true(sync.fd >= 0 && sync.hurry >= 0);
    assert_int_equal(setsockopt(sync.fd, SOL_SOCKET, SO_RCVBUF, &socket_bytes, sizeof socket_bytes), 0);
    sync_receiver_begin(&receiver, loop, &sync, &inbox);
    ev_loop_destroy(loop);
    close(sync.fd);
    close(sync.hurry);
    return receiver;
}

static void a_take_ends_with_the_process_that_was_at_it(void **state) {
    (void)state;
    uint64_t takes = 7;

    begun(&takes, 1 << 16);
    assert_int_equal(takes, 8);
    begun(&takes, 1 << 16);
    assert_int_equal(takes, 8);
}

static void a_small_socket_is_looked_at_sooner(void **state) {
    (void)state;
    uint64_t takes = 0;
    struct sync_receiver least = begun(&takes, 1), small = begun(&takes, 1 << 14), larger = begun(&takes, 1 << 16);

    assert_true(least.longest_rest_s > 0.0009 && least.longest_rest_s <= small.longest_rest_s);
    assert_true(small.room > 0 && small.room < larger.room);
    assert_true(larger.longest_rest_s > small.longest_rest_s && larger.longest_rest_s <= 0.1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_take_ends_with_the_process_that_was_at_it),
        cmocka_unit_test(a_small_socket_is_looked_at_sooner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
