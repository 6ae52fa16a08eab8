/* SPDX-License-Identifier: MIT */
#include "replay_window.h"

#include <string.h>

static uint64_t *word_of(struct replay_window *window, uint64_t number) {
    return &window->seen[number % REPLAY_WINDOW / 64];
}

static uint64_t bit_of(uint64_t number) {
    return UINT64_C(1) << number % 64;
}

void replay_window_begin(struct replay_window *window, uint64_t highest) {
    window->highest = highest;
    memset(window->seen, 0xff, sizeof window->seen);
}

/* The numbers after the highest, up to this one, take the places of those that are as much older. */
static void advance(struct replay_window *window, uint64_t number) {
    if (number - window->highest >= REPLAY_WINDOW)
        memset(window->seen, 0, sizeof window->seen);
    else
        for (uint64_t next = number; next != window->highest; next--)
            *word_of(window, next) &= ~bit_of(next);
    window->highest = number;
}

bool replay_window_take(struct replay_window *window, uint64_t number, uint64_t *missing) {
    if (number > window->highest) {
        *missing += number - window->highest - 1;
        advance(window, number);
    } else {
        if (window->highest - number >= REPLAY_WINDOW || *word_of(window, number) & bit_of(number))
            return false;
        *missing -= 1;
    }
    *word_of(window, number) |= bit_of(number);
    return true;
}
