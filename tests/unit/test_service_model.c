/* SPDX-License-Identifier: MIT */
/* Without these, the server of the maxconn scenario is not the one that it is compared with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service_model.h"

static void the_quadratic_model_is_that_of_the_article(void **state) {
    static const struct {
        unsigned in_flight;
        double ms;
    } cells[] = {{1, 9}, {10, 9}, {20, 9}, {30, 9}, {31, 9.61}, {50, 25}, {100, 100}, {150, 225}, {250, 625}};
    struct service_model model;
    (void)state;

    assert_null(service_model_parse(&model, "quadratic:9ms,100"));
    assert_int_equal(model.kind, SERVICE_QUADRATIC);
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
        assert_float_equal(service_model_ns(&model, cells[i].in_flight), cells[i].ms * 1e6, 1.);
}

static void a_fixed_time_is_the_same_for_any_number(void **state) {
    struct service_model model;
    (void)state;

    assert_null(service_model_parse(&model, "fixed:1.5s"));
    assert_int_equal(model.kind, SERVICE_FIXED);
    for (unsigned requests = 1; requests < 100000; requests *= 10)
        assert_float_equal(service_model_ns(&model, requests), 1.5e9, 1.);
}

static void none_is_none(void **state) {
    struct service_model model;
    (void)state;

    assert_null(service_model_parse(&model, "none"));
    assert_int_equal(model.kind, SERVICE_NONE);
}

/* The largest numbers that are taken do not overflow into short times. */
static void many_requests_take_long(void **state) {
    struct service_model model;
    (void)state;

    assert_null(service_model_parse(&model, "quadratic:1ms,1"));
    assert_true(service_model_ns(&model, 1000000) > 0.99e18);
    assert_null(service_model_parse(&model, "quadratic:1ms,18446744073709551615"));
    assert_float_equal(service_model_ns(&model, 1000000), 1e6, 1.);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_quadratic_model_is_that_of_the_article),
        cmocka_unit_test(a_fixed_time_is_the_same_for_any_number),
        cmocka_unit_test(none_is_none),
        cmocka_unit_test(many_requests_take_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
