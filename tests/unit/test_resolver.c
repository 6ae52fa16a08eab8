/* SPDX-License-Identifier: MIT */
/* Without these, a name server that does not answer stops the master for good, or its answer leads it astray. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* cmocka has one of its own */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "resolver.h"

static const struct privileges nothing_to_drop;

static void a_number_has_its_addresses_at_once_and_a_name_has_none_yet(void **state) {
    (void)state;
    struct address_list list;
    char text[ADDRESS_TEXT_MAX];

    assert_null(resolver_read(&list, "192.0.2.1:80"));
    assert_int_equal(list.count, 1);
    assert_string_equal(address_format(&list.address[0], text), "192.0.2.1:80");
    assert_null(resolver_read(&list, "/some.sock"));
    assert_int_equal(list.count, 1);
    assert_null(resolver_read(&list, "localhost:80"));
    assert_int_equal(list.count, 0);
    assert_non_null(resolver_read(&list, "localhost"));
    assert_non_null(resolver_read(&list, "192.0.2.1:0"));
}

static void a_name_is_asked_for_and_nobody_is_left(void **state) {
    (void)state;
    struct address_list list;

    assert_null(resolver_resolve(&list, "localhost:80", &nothing_to_drop));
    assert_true(list.count >= 1);
    assert_true(address_is_loopback(&list.address[0]));
    assert_non_null(resolver_resolve(&list, "localhost:0", &nothing_to_drop));
    assert_non_null(resolver_resolve(&list, "no.such.host.invalid:80", &nothing_to_drop));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

/* As SIGALRM does where a name server does not answer. */
static void who_dies_without_an_answer_is_not_waited_for(void **state) {
    (void)state;
    struct address_list list;
    struct resolver resolver;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    resolver = (struct resolver){.fd = fds[0], .pid = fork()};
    if (resolver.pid == 0)
        for (;;)
            pause();
    close(fds[1]);
    kill(resolver.pid, SIGALRM);
    assert_string_equal(resolver_finish(&resolver, &list), "no answer of a name server within 10 s");
    assert_true(resolver_start(&resolver, "localhost:80", &nothing_to_drop));
    resolver_abandon(&resolver);
    assert_int_equal(waitpid(resolver.pid, NULL, 0), resolver.pid);
}

/* Whoever asks reads what comes from the network, and may have been taken over by it. */
static void an_answer_that_is_no_list_of_addresses_is_not_believed(void **state) {
    (void)state;
    struct address_list list;

    for (int pattern = 0; pattern < 256; pattern += 51) {
        struct resolver resolver;
        unsigned char noise[4096];
        int fds[2];

        memset(noise, pattern, sizeof noise);
        assert_int_equal(pipe(fds), 0);
        resolver = (struct resolver){.fd = fds[0], .pid = fork()};
        if (resolver.pid == 0)
            _exit(write(fds[1], noise, sizeof noise) < 0);
        close(fds[1]);
        assert_non_null(resolver_finish(&resolver, &list));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_has_its_addresses_at_once_and_a_name_has_none_yet),
        cmocka_unit_test(a_name_is_asked_for_and_nobody_is_left),
        cmocka_unit_test(who_dies_without_an_answer_is_not_waited_for),
        cmocka_unit_test(an_answer_that_is_no_list_of_addresses_is_not_believed),
    };

    return cmocka_run_group_tests_name("resolver", tests, NULL, NULL);
}
