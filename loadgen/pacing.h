/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_PACING_H
#define TLSDYNO_PACING_H
/*
 * When the next transaction (or connection, where connections are all there is) may begin. This is a closed loop: a
 * slot begins the next as soon as its last has ended, so a slow target is asked less, and latencies are those of the
 * load it got, not of a load that keeps coming.
 */
#include "tally.h"

#include <stdbool.h>
#include <stdint.h>

struct pacing {
    bool limited;  /* -n */
    uint64_t left; /* may still begin in the measured phase */
};

/* This worker's part of limit (0: none), which the workers share as evenly as it goes. */
void pacing_init(struct pacing *pacing, uint64_t limit, int worker, int workers);

/* Takes one, if one may begin in this phase. One that fails later has been taken all the same. */
bool pacing_begin(struct pacing *pacing, enum phase phase);

/* No other will begin. */
bool pacing_is_exhausted(const struct pacing *pacing, enum phase phase);

#endif
