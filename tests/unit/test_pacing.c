/* SPDX-License-Identifier: MIT */
/* Without these, an open loop of R a second may be one of something else, and a late arrival may be lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>

#include "pacing.h"
#include "units.h"

#define START_NS (1000 * NS_PER_S)

/* ramp, then 1 s of warm-up, then the measured time. */
static struct window window_of(uint64_t ramp_ns, uint64_t measured_ns) {
    struct window window = {.start_ns = START_NS};

    window.ramped_ns = window.start_ns + ramp_ns;
    window.measured_from_ns = window.ramped_ns + NS_PER_S;
    window.measured_until_ns = measured_ns ? window.measured_from_ns + measured_ns : UINT64_MAX;
    return window;
}

/* Takes the next one at the moment when it is due; 0 when there is none any more. */
static uint64_t next(struct pacing *pacing, struct arrival *arrival) {
    uint64_t due_ns = pacing_next_ns(pacing);

    if (due_ns == UINT64_MAX)
        return 0;
    assert_int_equal(pacing_take(pacing, PHASE_WARMUP, due_ns - 1, arrival), PACING_LATER);
    assert_int_equal(pacing_take(pacing, PHASE_WARMUP, due_ns, arrival), PACING_NOW);
    assert_int_equal(arrival->due_ns, due_ns);
    return due_ns;
}

static void fixed_arrivals_of_all_workers_are_evenly_spaced(void **state) {
    const struct pacing_config config = {.arrivals = ARRIVALS_FIXED, .rate_per_s = 300};
    const struct window window = window_of(0, 2 * NS_PER_S);
    struct pacing workers[3];
    uint64_t measured = 0;
    (void)state;

    for (int i = 0; i < 3; i++)
        pacing_init(&workers[i], &config, &window, i, 3);
    for (uint64_t k = 0; k < 900; k++) {
        struct arrival arrival;
        uint64_t due_ns = next(&workers[k % 3], &arrival);
        uint64_t expected_ns = START_NS + k * NS_PER_S / 300;
        assert_in_range(due_ns, expected_ns - 1, expected_ns + 1);
        measured += arrival.measured;
    }
    assert_int_equal(measured, 600);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pacing_next_ns(&workers[i]), UINT64_MAX);
}

static void a_late_one_is_taken_in_order_and_knows_when_it_was_due(void **state) {
    const struct pacing_config config = {.arrivals = ARRIVALS_FIXED, .rate_per_s = 10};
    const struct window window = window_of(0, 10 * NS_PER_S);
    uint64_t late_ns = START_NS + 5 * NS_PER_S;
    struct arrival arrival;
    struct pacing pacing;
    (void)state;

    pacing_init(&pacing, &config, &window, 0, 1);
    for (uint64_t k = 0; k <= 50; k++) {
        assert_int_equal(pacing_take(&pacing, PHASE_MEASURED, late_ns, &arrival), PACING_NOW);
        assert_int_equal(arrival.due_ns, START_NS + k * NS_PER_S / 10);
        assert_int_equal(arrival.measured, k >= 10);
    }
    assert_int_equal(pacing_take(&pacing, PHASE_MEASURED, late_ns, &arrival), PACING_LATER);
}

static void what_waits_at_the_end_may_begin_for_a_while_and_the_rest_is_counted(void **state) {
    const struct pacing_config config = {.arrivals = ARRIVALS_FIXED, .rate_per_s = 10};
    const struct window window = window_of(0, 10 * NS_PER_S);
    uint64_t end_ns = window.measured_until_ns;
    struct arrival arrival;
    struct pacing pacing;
    (void)state;

    pacing_init(&pacing, &config, &window, 0, 1);
    for (int k = 0; k < 30; k++)
        assert_int_equal(pacing_take(&pacing, PHASE_MEASURED, end_ns - 1, &arrival), PACING_NOW);
    assert_false(pacing_is_exhausted(&pacing, PHASE_DRAIN, end_ns));
    assert_int_equal(pacing_take(&pacing, PHASE_DRAIN, end_ns + PACING_BACKLOG_NS - 1, &arrival), PACING_NOW);
    assert_int_equal(pacing_take(&pacing, PHASE_DRAIN, end_ns + PACING_BACKLOG_NS, &arrival), PACING_NEVER);
    assert_int_equal(pacing_never_taken(&pacing), 100 - (31 - 10));
}

static void the_slots_wait_for_the_end_when_all_was_taken(void **state) {
    const struct pacing_config config = {.arrivals = ARRIVALS_FIXED, .rate_per_s = 1};
    const struct window window = window_of(0, NS_PER_S);
    struct arrival arrival;
    struct pacing pacing;
    (void)state;

    pacing_init(&pacing, &config, &window, 0, 1);
    while (next(&pacing, &arrival))
        ;
    assert_int_equal(pacing_take(&pacing, PHASE_MEASURED, window.measured_until_ns - 1, &arrival), PACING_LATER);
    assert_int_equal(pacing_take(&pacing, PHASE_DRAIN, window.measured_until_ns, &arrival), PACING_NEVER);
    assert_int_equal(pacing_never_taken(&pacing), 0);
}

static void the_rate_rises_in_a_straight_line(void **state) {
    const struct pacing_config config = {.arrivals = ARRIVALS_FIXED, .rate_per_s = 1000, .ramp_ns = 4 * NS_PER_S};
    const struct window window = window_of(config.ramp_ns, NS_PER_S);
    uint64_t quarter[4] = {0}, ramp = 0, warmup = 0, measured = 0, due_ns;
    struct arrival arrival;
    struct pacing pacing;
    (void)state;

    pacing_init(&pacing, &config, &window, 0, 1);
    while ((due_ns = next(&pacing, &arrival)) != 0) {
        if (due_ns < window.ramped_ns) {
            quarter[(due_ns - START_NS) / NS_PER_S]++;
            ramp++;
        } else if (due_ns < window.measured_from_ns) {
            warmup++;
        } else {
            measured++;
        }
    }
    assert_int_equal(ramp, 2000); /* half of 4 s x 1000 */
    for (uint64_t i = 0; i < 4; i++)
        assert_in_range(quarter[i], (2 * i + 1) * 125 - 1, (2 * i + 1) * 125 + 1);
    assert_int_equal(warmup, 1000);
    assert_int_equal(measured, 1000);
}

/* Each batch begins where the arrivals of its time would: all in it are due then, and as many as without batches. */
static void arrivals_of_a_batch_are_due_at_its_beginning(void **state) {
    const struct pacing_config single = {.arrivals = ARRIVALS_FIXED, .rate_per_s = 900, .ramp_ns = 110 * NS_PER_MS};
    struct pacing_config config = single;
    const struct window window = window_of(single.ramp_ns, NS_PER_S); /* no whole number of batches before the time */
    struct pacing alone, pacing;
    uint64_t measured = 0, before = 0;
    (void)state;

    config.batch_ns = 50 * NS_PER_MS;
    pacing_init(&alone, &single, &window, 0, 1);
    pacing_init(&pacing, &config, &window, 0, 1);
    for (;;) {
        struct arrival arrival;
        uint64_t own_ns = next(&alone, &arrival);
        uint64_t due_ns = next(&pacing, &arrival);
        assert_int_equal(own_ns == 0, due_ns == 0);
        if (due_ns == 0)
            break;
        assert_in_range(own_ns - due_ns, 0, config.batch_ns - 1);
        assert_int_equal(arrival.measured, own_ns >= window.measured_from_ns);
        measured += arrival.measured;
        before += !arrival.measured;
        if (due_ns > START_NS)
            assert_int_equal((due_ns + config.batch_ns * 100 - window.measured_from_ns) % config.batch_ns, 0);
    }
    assert_int_equal(measured, 900);
    assert_in_range(before, 940, 960);
}

static void random_arrivals_are_poisson_and_the_same_each_time(void **state) {
    const struct pacing_config config = {.arrivals = ARRIVALS_POISSON, .rate_per_s = 2000};
    const struct window window = window_of(0, 0);
    enum { COUNT = 100000 };
    double sum = 0, squares = 0;
    uint64_t last_ns = START_NS, longer_than_mean = 0;
    struct arrival arrival, again;
    struct pacing pacing, same, other;
    (void)state;

    pacing_init(&pacing, &config, &window, 0, 2);
    pacing_init(&same, &config, &window, 0, 2);
    pacing_init(&other, &config, &window, 1, 2);
    assert_true(next(&other, &again) != pacing_next_ns(&pacing));
    for (int i = 0; i < COUNT; i++) {
        uint64_t due_ns = next(&pacing, &arrival);
        double gap_ms = (double)(due_ns - last_ns) / 1e6;
        assert_int_equal(next(&same, &again), due_ns);
        sum += gap_ms;
        squares += gap_ms * gap_ms;
        longer_than_mean += gap_ms > 1;
        last_ns = due_ns;
    }
    /* Half of 2000 a second: gaps of 1 ms on average, with as much deviation, and longer in 1/e of all cases. */
    assert_true(fabs(sum / COUNT - 1) < .02);
    assert_true(fabs(sqrt(squares / COUNT - sum / COUNT * (sum / COUNT)) - 1) < .02);
    assert_true(fabs((double)longer_than_mean / COUNT - exp(-1)) < .01);
}

static void a_limit_is_shared_and_counts_measured_arrivals_only(void **state) {
    const struct pacing_config config = {.arrivals = ARRIVALS_FIXED, .rate_per_s = 100, .limit = 10};
    const struct window window = window_of(0, 0);
    uint64_t taken = 0, measured = 0;
    (void)state;

    for (int i = 0; i < 3; i++) {
        struct arrival arrival;
        struct pacing pacing;
        pacing_init(&pacing, &config, &window, i, 3);
        while (next(&pacing, &arrival)) {
            taken++;
            measured += arrival.measured;
        }
        assert_true(pacing_is_exhausted(&pacing, PHASE_MEASURED, START_NS));
    }
    assert_int_equal(measured, 10);
    assert_int_equal(taken, 110); /* 1 s of warm-up */
}

static void a_burst_is_due_all_at_once(void **state) {
    const struct pacing_config config = {.arrivals = ARRIVALS_BURST, .limit = 5};
    struct window window = {.start_ns = START_NS, .ramped_ns = START_NS, .measured_from_ns = START_NS};
    struct arrival arrival;
    struct pacing pacing;
    (void)state;

    window.measured_until_ns = UINT64_MAX;
    pacing_init(&pacing, &config, &window, 1, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(next(&pacing, &arrival), START_NS);
        assert_true(arrival.measured);
    }
    assert_int_equal(pacing_take(&pacing, PHASE_MEASURED, START_NS, &arrival), PACING_NEVER);
}

static void a_burst_waits_for_the_end_of_the_warm_up(void **state) {
    const struct pacing_config config = {.arrivals = ARRIVALS_BURST, .limit = 2};
    struct window window = {.start_ns = START_NS, .ramped_ns = START_NS, .measured_until_ns = UINT64_MAX};
    struct arrival arrival;
    struct pacing pacing;
    (void)state;

    window.measured_from_ns = START_NS + NS_PER_S;
    pacing_init(&pacing, &config, &window, 0, 1);
    assert_int_equal(pacing_take(&pacing, PHASE_WARMUP, START_NS, &arrival), PACING_LATER);
    for (int i = 0; i < 2; i++) {
        assert_false(pacing_is_exhausted(&pacing, PHASE_MEASURED, START_NS));
        assert_int_equal(next(&pacing, &arrival), START_NS + NS_PER_S);
        assert_true(arrival.measured);
    }
    assert_true(pacing_is_exhausted(&pacing, PHASE_MEASURED, START_NS + NS_PER_S));
}

static void nothing_begins_after_it_was_stopped(void **state) {
    const struct pacing_config config = {.arrivals = ARRIVALS_FIXED, .rate_per_s = 10};
    const struct window window = window_of(0, 10 * NS_PER_S);
    uint64_t now_ns = START_NS + 3 * NS_PER_S;
    struct arrival arrival;
    struct pacing pacing;
    (void)state;

    pacing_init(&pacing, &config, &window, 0, 1);
    pacing_stop(&pacing, now_ns);
    assert_int_equal(pacing_take(&pacing, PHASE_DRAIN, now_ns, &arrival), PACING_NEVER);
    assert_int_equal(pacing_never_taken(&pacing), 20); /* of 2 s of measured time */
}

static void a_closed_loop_begins_at_once_until_its_limit(void **state) {
    const struct pacing_config config = {.limit = 5};
    const struct window window = window_of(0, NS_PER_S);
    struct arrival arrival;
    struct pacing pacing;
    (void)state;

    pacing_init(&pacing, &config, &window, 1, 2);
    for (int i = 0; i < 10; i++)
        assert_int_equal(pacing_take(&pacing, PHASE_WARMUP, START_NS, &arrival), PACING_NOW);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pacing_take(&pacing, PHASE_MEASURED, START_NS, &arrival), PACING_NOW);
    assert_int_equal(pacing_take(&pacing, PHASE_MEASURED, START_NS, &arrival), PACING_NEVER);
    assert_int_equal(pacing_never_taken(&pacing), 0);
    pacing_init(&pacing, &(struct pacing_config){0}, &window, 0, 1);
    assert_int_equal(pacing_take(&pacing, PHASE_MEASURED, START_NS, &arrival), PACING_NOW);
    assert_int_equal(pacing_take(&pacing, PHASE_DRAIN, START_NS, &arrival), PACING_NEVER);
}

/* One by one it would take a century. */
static void what_is_too_much_to_be_counted_is_reckoned(void **state) {
    struct pacing_config config = {.arrivals = ARRIVALS_POISSON, .rate_per_s = 1e6, .limit = UINT64_MAX / 2};
    struct window window = window_of(0, 0);
    struct pacing pacing;
    (void)state;

    pacing_init(&pacing, &config, &window, 0, 1);
    assert_int_equal(pacing_never_taken(&pacing), config.limit);
    window = window_of(3 * NS_PER_S, 1000000 * NS_PER_S);
    config.ramp_ns = 3 * NS_PER_S;
    pacing_init(&pacing, &config, &window, 1, 4);
    assert_in_range(pacing_never_taken(&pacing), UINT64_C(249999000000), UINT64_C(250001000000));
    config.limit = 0;
    pacing_init(&pacing, &config, &window, 1, 4);
    assert_in_range(pacing_never_taken(&pacing), UINT64_C(249999000000), UINT64_C(250001000000));
    config.arrivals = ARRIVALS_FIXED;
    pacing_init(&pacing, &config, &window, 3, 4);
    assert_in_range(pacing_never_taken(&pacing), UINT64_C(249999999999), UINT64_C(250000000001));
    pacing_stop(&pacing, window.measured_from_ns + 100 * NS_PER_S);
    assert_in_range(pacing_never_taken(&pacing), 24999999, 25000001);
    pacing_stop(&pacing, window.ramped_ns);
    assert_int_equal(pacing_never_taken(&pacing), 0);
    config.limit = 40000000;
    pacing_init(&pacing, &config, &window, 0, 4);
    assert_int_equal(pacing_never_taken(&pacing), 10000000);
    config.arrivals = ARRIVALS_BURST;
    pacing_init(&pacing, &config, &window, 0, 1);
    assert_int_equal(pacing_never_taken(&pacing), 40000000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed_arrivals_of_all_workers_are_evenly_spaced),
        cmocka_unit_test(a_late_one_is_taken_in_order_and_knows_when_it_was_due),
        cmocka_unit_test(what_waits_at_the_end_may_begin_for_a_while_and_the_rest_is_counted),
        cmocka_unit_test(the_slots_wait_for_the_end_when_all_was_taken),
        cmocka_unit_test(the_rate_rises_in_a_straight_line),
        cmocka_unit_test(arrivals_of_a_batch_are_due_at_its_beginning),
        cmocka_unit_test(random_arrivals_are_poisson_and_the_same_each_time),
        cmocka_unit_test(a_limit_is_shared_and_counts_measured_arrivals_only),
        cmocka_unit_test(a_burst_is_due_all_at_once),
        cmocka_unit_test(a_burst_waits_for_the_end_of_the_warm_up),
        cmocka_unit_test(nothing_begins_after_it_was_stopped),
        cmocka_unit_test(what_is_too_much_to_be_counted_is_reckoned),
        cmocka_unit_test(a_closed_loop_begins_at_once_until_its_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
