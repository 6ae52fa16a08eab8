/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "units.h"

static void whole_numbers_are_read_to_the_last_that_fits(void **state) {
    (void)state;
    uint64_t value;

    assert_true(parse_uint("0", &value));
    assert_int_equal(value, 0);
    assert_true(parse_uint("007", &value));
    assert_int_equal(value, 7);
    assert_true(parse_uint("18446744073709551615", &value));
    assert_true(value == UINT64_MAX);
}

static void what_is_not_a_whole_number_is_refused_and_changes_nothing(void **state) {
    (void)state;
    static const char *const bad[] = {"", " 1", "1 ", "+1", "-1", "1.5", "0x10", "1k", "18446744073709551616", "one"};
    uint64_t value = 42;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(parse_uint(bad[i], &value));
        assert_int_equal(value, 42);
    }
}

static void sizes_are_powers_of_1024(void **state) {
    (void)state;
    uint64_t value;

    assert_true(parse_size("100", &value));
    assert_int_equal(value, 100);
    assert_true(parse_size("16k", &value));
    assert_int_equal(value, 16384);
    assert_true(parse_size("2M", &value));
    assert_int_equal(value, 2097152);
    assert_true(parse_size("1g", &value));
    assert_int_equal(value, 1073741824);
    assert_true(parse_size("17179869183g", &value));
    assert_true(value == UINT64_C(17179869183) << 30);
}

static void a_size_that_does_not_fit_is_not_cut_off(void **state) {
    (void)state;
    static const char *const bad[] = {
        "17179869184g", "18446744073709551615k", "18446744073709551616", "k", "", "1kb", "1 k", "-1k", "1t", "1.5k"};
    uint64_t value = 42;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(parse_size(bad[i], &value));
        assert_int_equal(value, 42);
    }
}

static void times_have_units_and_a_bare_number_is_seconds(void **state) {
    (void)state;
    uint64_t value_ns;

    assert_true(parse_duration_ns("250ms", &value_ns));
    assert_int_equal(value_ns, 250 * NS_PER_MS);
    assert_true(parse_duration_ns("5s", &value_ns));
    assert_int_equal(value_ns, 5 * NS_PER_S);
    assert_true(parse_duration_ns("5", &value_ns));
    assert_int_equal(value_ns, 5 * NS_PER_S);
    assert_true(parse_duration_ns("2m", &value_ns));
    assert_int_equal(value_ns, 120 * NS_PER_S);
    assert_true(parse_duration_ns("1h", &value_ns));
    assert_int_equal(value_ns, 3600 * NS_PER_S);
    assert_true(parse_duration_ns("87600h", &value_ns));
    assert_int_equal(value_ns, 10 * 365 * UINT64_C(86400) * NS_PER_S);
    assert_true(parse_duration_ns("1.5s", &value_ns));
    assert_int_equal(value_ns, 1500 * NS_PER_MS);
    assert_true(parse_duration_ns("0.001", &value_ns));
    assert_int_equal(value_ns, NS_PER_MS);
    assert_true(parse_duration_ns("0", &value_ns));
    assert_int_equal(value_ns, 0);
}

static void what_is_not_a_time_is_refused_and_changes_nothing(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",      "s",           "-1s",   "+1s", " 1s", "1 s", "1d",  "1msx", "1hm", "1H",
        "h",     "87601h",      "0x10",  "0X",  ".5s", "nan", "inf", "1e",   "1us", "999999999999999999999m",
        "1e300", "0.0000001ms", "1e-300"};
    uint64_t value_ns = 42;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(parse_duration_ns(bad[i], &value_ns));
        assert_int_equal(value_ns, 42);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_numbers_are_read_to_the_last_that_fits),
        cmocka_unit_test(what_is_not_a_whole_number_is_refused_and_changes_nothing),
        cmocka_unit_test(sizes_are_powers_of_1024),
        cmocka_unit_test(a_size_that_does_not_fit_is_not_cut_off),
        cmocka_unit_test(times_have_units_and_a_bare_number_is_seconds),
        cmocka_unit_test(what_is_not_a_time_is_refused_and_changes_nothing),
    };

    return cmocka_run_group_tests_name("units", tests, NULL, NULL);
}
