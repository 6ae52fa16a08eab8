/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_ACTIVITY_H
#define TLSDYNO_ECHO_ACTIVITY_H
/* Who was active when, in order, so that those that were idle for too long are found at one end of a list. */
#include <ev.h>

/* A part of whatever is active. */
struct activity {
    ev_tstamp at;
    struct activity *longer_idle, *later_active;
};

/* All zero but for what the owner sets: nobody is there. */
struct activities {
    struct ev_loop *loop; /* whose time counts */
    ev_tstamp timeout_s;
    struct activity *longest_idle, *latest_active; /* private */
};

/*
 * The list is not brought up to date for less than this share of the timeout, which is so much longer for it.
 */
#define ACTIVITY_GRAIN (1. / 16.)

void activity_begin(struct activities *all, struct activity *one);
void activity_end(struct activities *all, struct activity *one);
void activity_renew(struct activities *all, struct activity *one);

/* Something moved. */
static inline void activity_mark(struct activities *all, struct activity *one) {
    if (ev_now(all->loop) - one->at >= all->timeout_s * ACTIVITY_GRAIN)
        activity_renew(all, one);
}

/* One that was idle for too long, or NULL; then *left_s is how long it takes until there may be one. */
struct activity *activity_find_idle(const struct activities *all, ev_tstamp *left_s);

#endif
