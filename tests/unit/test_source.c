/* SPDX-License-Identifier: MIT */
/* Without these, connections come from addresses that nobody asked for, and the ports of the others are never used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ports.h"
#include "source.h"

static const char *nth(const char *network, uint64_t turn) {
    static char text[ADDRESS_TEXT_MAX];
    struct source source;
    struct address address;

    assert_null(source_parse(&source, network));
    address = source_address(&source, turn);
    return source_format(&address, text);
}

static uint64_t count(const char *network) {
    struct source source;

    assert_null(source_parse(&source, network));
    return source.count;
}

static void a_network_is_its_addresses_without_those_that_mean_the_whole(void **state) {
    (void)state;
    assert_int_equal(count("127.1.2.0/29"), 6);
    assert_string_equal(nth("127.1.2.0/29", 0), "127.1.2.1");
    assert_string_equal(nth("127.1.2.0/29", 5), "127.1.2.6");
    assert_string_equal(nth("127.1.2.0/29", 6), "127.1.2.1");
    assert_string_equal(nth("127.1.2.7/29", 0), "127.1.2.1"); /* written with another of its addresses */
    assert_int_equal(count("127.1.2.4/31"), 2);
    assert_string_equal(nth("127.1.2.4/31", 0), "127.1.2.4");
    assert_int_equal(count("127.1.2.3/32"), 1);
    assert_int_equal(count("127.1.2.3"), 1);
    assert_string_equal(nth("127.1.2.3", 7), "127.1.2.3");
    assert_int_equal(count("127.0.0.0/8"), (1 << 24) - 2);
    assert_string_equal(nth("127.0.0.0/8", 255), "127.0.1.0");
    assert_string_equal(nth("127.0.0.0/8", (1 << 24) - 3), "127.255.255.254");
    assert_int_equal(count("0.0.0.0/0"), (UINT64_C(1) << 32) - 2);
}

static void of_ipv6_too(void **state) {
    (void)state;
    assert_int_equal(count("::1"), 1);
    assert_string_equal(nth("::1", 3), "::1");
    assert_int_equal(count("fd00::/126"), 3);
    assert_string_equal(nth("fd00::/126", 2), "fd00::3");
    assert_int_equal(count("fd00::2/127"), 2);
    assert_string_equal(nth("fd00::/64", 65535), "fd00::1:0");
    assert_int_equal(count("fd00::/8"), (UINT64_C(1) << 32) - 1);
}

static void anything_else_is_refused(void **state) {
    static const char *const bad[] = {"",    "localhost",    "127.0.0",      "127.0.0.1/", "127.0.0.1/33", "::1/129",
                                      "::g", "127.0.0.1/8x", "127.0.0.1/-1", "1.2.3.4:80", "127.0.0.1 "};
    struct source source;
    (void)state;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_non_null(source_parse(&source, bad[i]));
}

static void ports_count_for_each_source_and_destination(void **state) {
    const struct ports ports = {.range = 28232, .sources = 3, .destinations = 2, .time_wait_ns = 60 * NS_PER_S};
    (void)state;

    assert_int_equal(ports_capacity(&ports), 169392);
    assert_int_equal(ports_in_time_wait(&ports, 500, 10 * NS_PER_S), 5000);   /* all of a short load */
    assert_int_equal(ports_in_time_wait(&ports, 500, 600 * NS_PER_S), 30000); /* the last minute of a long one */
    assert_int_equal(ports_in_time_wait(&ports, 0, 600 * NS_PER_S), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_is_its_addresses_without_those_that_mean_the_whole),
        cmocka_unit_test(of_ipv6_too),
        cmocka_unit_test(anything_else_is_refused),
        cmocka_unit_test(ports_count_for_each_source_and_destination),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
