/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "replay_window.h"

#include <stdlib.h>
#include <string.h>

static void each_number_is_new_once(void **state) {
    (void)state;
    struct replay_window window;
    uint64_t missing = 0;

    replay_window_begin(&window, 0);
    for (uint64_t number = 1; number < 5000; number++) {
        assert_true(replay_window_take(&window, number, &missing));
        assert_false(replay_window_take(&window, number, &missing));
    }
    assert_int_equal(missing, 0);
}

static void what_was_before_the_beginning_is_not_new(void **state) {
    (void)state;
    struct replay_window window;
    uint64_t missing = 0;

    replay_window_begin(&window, 5000);
    for (uint64_t number = 0; number <= 5000; number++)
        assert_false(replay_window_take(&window, number, &missing));
    assert_true(replay_window_take(&window, 5001, &missing));
    assert_false(replay_window_take(&window, 5000, &missing));
}

static void numbers_may_come_late_but_not_later_than_the_window(void **state) {
    (void)state;
    struct replay_window window;
    uint64_t missing = 0;

    replay_window_begin(&window, 0);
    assert_true(replay_window_take(&window, REPLAY_WINDOW + 1, &missing));
    assert_int_equal(missing, REPLAY_WINDOW);
    assert_false(replay_window_take(&window, 1, &missing)); /* too old */
    assert_true(replay_window_take(&window, 2, &missing));
    assert_false(replay_window_take(&window, 2, &missing));
    assert_int_equal(missing, REPLAY_WINDOW - 1);
    assert_true(replay_window_take(&window, REPLAY_WINDOW + 2, &missing)); /* takes the place of 2 */
    assert_true(replay_window_take(&window, 3, &missing));
    assert_false(replay_window_take(&window, 2, &missing));
}

/* Against a list of all that has come. */
static void any_order_gives_what_a_list_would_give(void **state) {
    (void)state;
    enum { NUMBERS = 20000 };
    static uint8_t came[NUMBERS + 1];
    struct replay_window window;
    uint64_t missing = 0, highest = 0, taken = 0;

    srand(1);
    memset(came, 0, sizeof came);
    replay_window_begin(&window, 0);
    for (int i = 0; i < 200000; i++) {
        uint64_t at = (uint64_t)i / 10, number = at > 1500 ? at - 1500 + (uint64_t)rand() % 3000 : 1 + at;
        bool new;

        if (number > NUMBERS || number < 1)
            continue;
        new = !came[number] && number + REPLAY_WINDOW > highest;
        assert_int_equal(replay_window_take(&window, number, &missing), new);
        if (number > highest)
            highest = number;
        came[number] |= new;
        taken += new;
        assert_int_equal(missing, highest - taken);
    }
}

static void a_leap_of_any_size_forgets_all_before(void **state) {
    (void)state;
    struct replay_window window;
    uint64_t missing = 0;

    replay_window_begin(&window, 0);
    assert_true(replay_window_take(&window, 1, &missing));
    assert_true(replay_window_take(&window, UINT64_MAX - 1, &missing));
    assert_true(replay_window_take(&window, UINT64_MAX, &missing));
    assert_false(replay_window_take(&window, UINT64_MAX, &missing));
    assert_false(replay_window_take(&window, 0, &missing));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_number_is_new_once),
        cmocka_unit_test(what_was_before_the_beginning_is_not_new),
        cmocka_unit_test(numbers_may_come_late_but_not_later_than_the_window),
        cmocka_unit_test(any_order_gives_what_a_list_would_give),
        cmocka_unit_test(a_leap_of_any_size_forgets_all_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
