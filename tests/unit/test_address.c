/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "address.h"

static void assert_reads_as(const char *text, const char *expected) {
    struct address address;
    char formatted[ADDRESS_TEXT_MAX];
    const char *reason = address_parse(&address, text);

    if (reason)
        fail_msg("%s: %s", text, reason);
    assert_string_equal(address_format(&address, formatted), expected);
}

static void every_spelling_of_an_address_is_read(void **state) {
    (void)state;
    assert_reads_as("127.0.0.1:80", "127.0.0.1:80");
    assert_reads_as("127.0.0.1,80", "127.0.0.1:80");
    assert_reads_as("[::1]:443", "[::1]:443");
    assert_reads_as("[::1],443", "[::1]:443");
    assert_reads_as("[127.0.0.1]:0", "127.0.0.1:0");
    assert_reads_as("/run/it.sock", "/run/it.sock");
    assert_reads_as("127.0.0.1:65535", "127.0.0.1:65535");
}

static void a_star_is_every_local_address(void **state) {
    (void)state;
    struct address star, empty;
    char star_text[ADDRESS_TEXT_MAX], empty_text[ADDRESS_TEXT_MAX];

    assert_null(address_parse(&star, "*:8080"));
    assert_null(address_parse(&empty, ":8080"));
    assert_string_equal(address_format(&star, star_text), address_format(&empty, empty_text));
    assert_true(strcmp(star_text, "[::]:8080") == 0 || strcmp(star_text, "0.0.0.0:8080") == 0);
    assert_false(address_is_loopback(&star));
}

static void what_is_no_address_is_refused_with_a_reason(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "127.0.0.1",
                                      "127.0.0.1:",
                                      "127.0.0.1:x",
                                      "127.0.0.1:65536",
                                      "127.0.0.1:-1",
                                      "::1:80",
                                      "[::1]80",
                                      "[::1",
                                      "127.0.0.1:080000",
                                      "run/it.sock",
                                      "[::1]:",
                                      "no-such-host.invalid:80"};
    struct address address;
    char text[512];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!address_parse(&address, bad[i]))
            fail_msg("%s: taken", bad[i]);
    memset(text, 'h', sizeof text);
    memcpy(text + 300, ":80", 4);
    assert_non_null(address_parse(&address, text));
    memset(text, '/', sizeof text);
    text[108] = '\0';
    assert_non_null(address_parse(&address, text));
    text[107] = '\0';
    assert_null(address_parse(&address, text));
}

static void loopback_is_told_from_the_rest_of_the_world(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool loopback;
    } cases[] = {{"127.0.0.1:1", true},          {"127.8.9.1:1", true},      {"[::1]:1", true},
                 {"[::ffff:127.0.0.1]:1", true}, {"/run/x.sock", true},      {"10.0.0.1:1", false},
                 {"128.0.0.1:1", false},         {"[2001:db8::1]:1", false}, {"[::ffff:10.0.0.1]:1", false}};
    struct address address;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(address_parse(&address, cases[i].text));
        assert_int_equal(address_is_loopback(&address), cases[i].loopback);
    }
}

static void an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_peer(void **state) {
    (void)state;
    struct address mapped, plain, ipv6;
    char text[ADDRESS_TEXT_MAX];

    assert_null(address_parse(&mapped, "[::ffff:192.0.2.1]:80"));
    assert_null(address_parse(&plain, "192.0.2.1:80"));
    assert_null(address_parse(&ipv6, "[2001:db8::1]:80"));
    assert_false(address_is_equal(&mapped, &plain));
    address_unmap(&mapped);
    assert_true(address_is_equal(&mapped, &plain));
    address_unmap(&ipv6);
    assert_string_equal(address_format(&ipv6, text), "[2001:db8::1]:80");
}

static void a_port_that_somebody_else_has_is_refused_also_to_many_workers(void **state) {
    (void)state;
    struct address first, second;
    int fds[4], more[4];

    for (int count = 1; count <= 4; count += 3) {
        assert_null(address_parse(&first, "127.0.0.1:0"));
        assert_true(address_listen(&first, 16, fds, count));
        assert_int_not_equal(ntohs(first.sockaddr.ipv4.sin_port), 0);
        for (int more_count = 1; more_count <= 4; more_count += 3) {
            second = first;
            errno = 0;
            assert_false(address_listen(&second, 16, more, more_count));
            assert_int_equal(errno, EADDRINUSE);
        }
        for (int i = 0; i < count; i++)
            close(fds[i]);
    }
}

static void each_worker_has_a_queue_of_its_own(void **state) {
    (void)state;
    struct address address;
    int fds[3];

    assert_null(address_parse(&address, "127.0.0.1:0"));
    assert_true(address_listen(&address, 64, fds, 3));
    for (int i = 0; i < 3; i++) {
        struct address own = {.length = sizeof own.sockaddr};
        assert_int_equal(getsockname(fds[i], &own.sockaddr.any, &own.length), 0);
        assert_int_equal(own.sockaddr.ipv4.sin_port, address.sockaddr.ipv4.sin_port);
        assert_true(fcntl(fds[i], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
        for (int j = 0; j < i; j++)
            assert_int_not_equal(fds[i], fds[j]);
    }
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

static char directory[] = "/tmp/test_address.XXXXXX";

static int make_directory(void **state) {
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state) {
    (void)state;
    return rmdir(directory);
}

static void local_address(struct address *address, const char *name) {
    char path[100];

    snprintf(path, sizeof path, "%s/%s", directory, name);
    assert_null(address_parse(address, path));
}

static void a_socket_file_that_nobody_listens_on_is_replaced(void **state) {
    (void)state;
    struct address address;
    int fds[2], client;

    local_address(&address, "stale");
    assert_true(address_listen(&address, 16, fds, 1));
    close(fds[0]);
    assert_true(address_listen(&address, 16, fds, 2));
    assert_int_equal(fds[0], fds[1]);
    client = address_connect(&address);
    assert_true(client >= 0);
    close(client);
    close(fds[0]);
    unlink(address.sockaddr.local.sun_path);
}

static void a_socket_file_in_use_is_left_to_its_owner(void **state) {
    (void)state;
    struct address address;
    int fd, other, client;

    local_address(&address, "live");
    assert_true(address_listen(&address, 16, &fd, 1));
    assert_false(address_listen(&address, 16, &other, 1));
    assert_int_equal(errno, EADDRINUSE);
    client = address_connect(&address);
    assert_true(client >= 0);
    assert_true(accept(fd, NULL, NULL) >= 0);
    close(client);
    close(fd);
    unlink(address.sockaddr.local.sun_path);
}

static void an_ordinary_file_is_never_removed_to_make_room_for_a_socket(void **state) {
    (void)state;
    struct address address;
    struct stat file;
    int fd;

    local_address(&address, "precious");
    fd = open(address.sockaddr.local.sun_path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "data", 4), 4);
    close(fd);
    assert_false(address_listen(&address, 16, &fd, 1));
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(stat(address.sockaddr.local.sun_path, &file), 0);
    assert_int_equal(file.st_size, 4);
    unlink(address.sockaddr.local.sun_path);
}

static void a_connection_reaches_its_listener(void **state) {
    (void)state;
    static const char *const texts[] = {"127.0.0.1:0", "127.0.0.2:0"};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct address address;
        struct pollfd ready = {.events = POLLIN};
        int client, served;

        assert_null(address_parse(&address, texts[i]));
        assert_true(address_listen(&address, 16, &ready.fd, 1));
        client = address_connect(&address);
        assert_true(client >= 0);
        assert_int_equal(poll(&ready, 1, 10000), 1);
        served = accept(ready.fd, NULL, NULL);
        assert_true(served >= 0);
        close(served);
        close(client);
        close(ready.fd);
    }
}

static void who_comes_after_the_door_was_closed_is_not_answered_and_who_came_before_is(void **state) {
    (void)state;
    struct address address;
    struct pollfd early, late;
    int listener, accepted;

    assert_null(address_parse(&address, "127.0.0.1:0"));
    assert_true(address_listen(&address, 10, &listener, 1));
    early = (struct pollfd){.fd = address_connect(&address), .events = POLLOUT};
    assert_int_equal(poll(&early, 1, 60000), 1);
    address_refuse_new(listener);
    late = (struct pollfd){.fd = address_connect(&address), .events = POLLOUT};
    assert_int_equal(poll(&late, 1, 50), 0);
    accepted = accept(listener, NULL, NULL);
    assert_true(accepted >= 0);
    assert_int_equal(accept(listener, NULL, NULL), -1);
    assert_int_equal(send(early.fd, "x", 1, 0), 1);
    close(listener);
    /* When it tries again it is refused, not reset. */
    assert_int_equal(poll(&late, 1, 60000), 1);
    assert_int_equal(connect(late.fd, &address.sockaddr.any, address.length), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(early.fd);
    close(late.fd);
    close(accepted);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling_of_an_address_is_read),
        cmocka_unit_test(a_star_is_every_local_address),
        cmocka_unit_test(what_is_no_address_is_refused_with_a_reason),
        cmocka_unit_test(loopback_is_told_from_the_rest_of_the_world),
        cmocka_unit_test(an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_peer),
        cmocka_unit_test(a_port_that_somebody_else_has_is_refused_also_to_many_workers),
        cmocka_unit_test(each_worker_has_a_queue_of_its_own),
        cmocka_unit_test(a_socket_file_that_nobody_listens_on_is_replaced),
        cmocka_unit_test(a_socket_file_in_use_is_left_to_its_owner),
        cmocka_unit_test(an_ordinary_file_is_never_removed_to_make_room_for_a_socket),
        cmocka_unit_test(a_connection_reaches_its_listener),
        cmocka_unit_test(who_comes_after_the_door_was_closed_is_not_answered_and_who_came_before_is),
    };

    return cmocka_run_group_tests_name("address", tests, make_directory, remove_directory);
}
