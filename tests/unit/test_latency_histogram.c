/* SPDX-License-Identifier: MIT */
/* Without these, a percentile may be off by any amount and nobody would see it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "latency_histogram.h"

#define US   UINT64_C(1000)
#define HOUR (UINT64_C(3600) * 1000000000)

static struct latency_histogram histogram, other;

static int clear(void **state) {
    (void)state;
    memset(&histogram, 0, sizeof histogram);
    memset(&other, 0, sizeof other);
    return 0;
}

static void empty_has_no_quantile(void **state) {
    (void)state;
    assert_int_equal(latency_histogram_quantile_ns(&histogram, 0.99), 0);
    assert_true(latency_histogram_mean_ns(&histogram) == 0);
}

/* Each duration alone between two far ones, so that the quantile cannot be clamped to min or max. */
static void error_is_at_most_half_a_percent(void **state) {
    double worst = 0;
    (void)state;

    for (uint64_t ns = US; ns <= HOUR; ns += ns / 1000 + 1) {
        memset(&histogram, 0, sizeof histogram);
        latency_histogram_record(&histogram, 1);
        latency_histogram_record(&histogram, ns);
        latency_histogram_record(&histogram, 4 * HOUR);
        double got = (double)latency_histogram_quantile_ns(&histogram, 0.5);
        double error = fabs(got - (double)ns) / (double)ns;
        if (error > worst)
            worst = error;
    }
    assert_true(worst <= 0.005);
}

static int compare(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

static void quantiles_agree_with_sorting(void **state) {
    static const double shares[] = {0.001, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1};
    static uint64_t durations[10007];
    const size_t count = sizeof durations / sizeof *durations;
    uint64_t random = 88172645463325252u;
    (void)state;

    for (size_t i = 0; i < count; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        durations[i] = US + random % (UINT64_C(1) << (11 + random % 25));
        latency_histogram_record(i % 2 ? &histogram : &other, durations[i]);
    }
    latency_histogram_merge(&histogram, &other);
    qsort(durations, count, sizeof *durations, compare);
    assert_int_equal(histogram.count, count);
    assert_int_equal(histogram.min_ns, durations[0]);
    assert_int_equal(histogram.max_ns, durations[count - 1]);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        size_t rank = (size_t)ceil(shares[i] * (double)count);
        double exact = (double)durations[rank - 1];
        double got = (double)latency_histogram_quantile_ns(&histogram, shares[i]);
        assert_true(fabs(got - exact) <= 0.005 * exact);
    }
}

static void merging_is_recording_in_one(void **state) {
    static struct latency_histogram both;
    (void)state;

    memset(&both, 0, sizeof both);
    for (uint64_t i = 1; i < 2000; i++) {
        latency_histogram_record(i % 3 ? &histogram : &other, i * i * 137);
        latency_histogram_record(&both, i * i * 137);
    }
    latency_histogram_merge(&histogram, &other);
    assert_memory_equal(&histogram, &both, sizeof both);
    memset(&other, 0, sizeof other);
    latency_histogram_merge(&histogram, &other); /* adding nothing changes nothing */
    assert_memory_equal(&histogram, &both, sizeof both);
}

static void what_is_too_long_is_counted_and_its_maximum_kept(void **state) {
    (void)state;
    latency_histogram_record(&histogram, 100 * HOUR);
    latency_histogram_record(&histogram, UINT64_MAX / 2);
    assert_int_equal(histogram.count, 2);
    assert_int_equal(histogram.max_ns, UINT64_MAX / 2);
    assert_true(latency_histogram_quantile_ns(&histogram, 1) >= 100 * HOUR);
}

static void the_mean_is_exact(void **state) {
    (void)state;
    for (uint64_t i = 1; i <= 1000; i++)
        latency_histogram_record(&histogram, i * US);
    assert_true(fabs(latency_histogram_mean_ns(&histogram) - 500.5 * (double)US) < 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(empty_has_no_quantile, clear),
        cmocka_unit_test_setup(error_is_at_most_half_a_percent, clear),
        cmocka_unit_test_setup(quantiles_agree_with_sorting, clear),
        cmocka_unit_test_setup(merging_is_recording_in_one, clear),
        cmocka_unit_test_setup(what_is_too_long_is_counted_and_its_maximum_kept, clear),
        cmocka_unit_test_setup(the_mean_is_exact, clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
