/* SPDX-License-Identifier: MIT */
#ifndef PROXY_REPLAY_WINDOW_H
#define PROXY_REPLAY_WINDOW_H
/*
 * Which of a sender's numbered datagrams have come already. Numbers only grow at the sender, but may arrive in another
 * order: of the last REPLAY_WINDOW it is known one by one, anything older counts as seen (RFC 4303, 3.4.3).
 */
#include <stdbool.h>
#include <stdint.h>

#define REPLAY_WINDOW 1024

struct replay_window {
    uint64_t highest;                  /* that has come */
    uint64_t seen[REPLAY_WINDOW / 64]; /* number n: bit n % REPLAY_WINDOW */
};

/* Nothing up to this number, inclusive, is new from here on. */
void replay_window_begin(struct replay_window *window, uint64_t highest);

/*
 * True, once, for a number that is new. *missing, which counts the numbers that were left out, grows with each gap and
 * shrinks when one of them comes after all.
 */
bool replay_window_take(struct replay_window *window, uint64_t number, uint64_t *missing);

#endif
