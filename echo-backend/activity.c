/* SPDX-License-Identifier: MIT */
#include "activity.h"

#include <stddef.h>

void activity_begin(struct activities *all, struct activity *one) {
    one->longer_idle = all->latest_active;
    one->later_active = NULL;
    *(all->latest_active ? &all->latest_active->later_active : &all->longest_idle) = one;
    all->latest_active = one;
    one->at = ev_now(all->loop);
}

void activity_end(struct activities *all, struct activity *one) {
    struct activity *before = one->longer_idle, *after = one->later_active;

    *(before ? &before->later_active : &all->longest_idle) = after;
    *(after ? &after->longer_idle : &all->latest_active) = before;
}

void activity_renew(struct activities *all, struct activity *one) {
    activity_end(all, one);
    activity_begin(all, one);
}

struct activity *activity_find_idle(const struct activities *all, ev_tstamp *left_s) {
    struct activity *idle = all->longest_idle;

    *left_s = idle ? idle->at + all->timeout_s * (1. + ACTIVITY_GRAIN) - ev_now(all->loop) : all->timeout_s;
    return idle && *left_s <= 0. ? idle : NULL;
}
