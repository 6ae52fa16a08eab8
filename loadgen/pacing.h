/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_PACING_H
#define TLSDYNO_PACING_H
/*
 * When the next transaction (or connection, where each has one transaction at most) may begin.
 *
 * Closed loop: a slot begins the next as soon as its last has ended, so a slow target is asked less, and latencies are
 * those of the load it got, not of a load that keeps coming.
 *
 * Open loop: they arrive at moments that the target has no influence on. One that finds every slot at work waits for
 * the first that is free, in order, and is late then; none is left out. There is no queue: what has not been taken yet
 * is known from the moment of the next one, because the moments are a function of how many came before.
 */
#include "tally.h"
#include "window.h"

#include <stdbool.h>
#include <stdint.h>

enum arrivals {
    ARRIVALS_NONE,    /* closed loop */
    ARRIVALS_FIXED,   /* evenly spaced */
    ARRIVALS_POISSON, /* independent of each other; the same sequence in every run */
    ARRIVALS_BURST,   /* all of the limit at the beginning of the measured phase */
};

struct pacing_config {
    enum arrivals arrivals;
    double rate_per_s; /* of all workers together; fixed and Poisson */
    uint64_t ramp_ns;  /* the rate rises from 0 to rate_per_s in this time, a straight line */
    uint64_t batch_ns; /* fixed: those of so long a time are all due at its beginning; 0: each at its own moment */
    uint64_t limit;    /* of all workers together, in the measured phase; 0: none */
};

/* So long after the measured phase may an arrival that became due in it still begin. */
#define PACING_BACKLOG_NS UINT64_C(2000000000)

struct pacing {
    enum arrivals arrivals;
    bool limited;  /* -n */
    uint64_t left; /* may still begin in the measured phase */
    /* Open loop. */
    uint64_t start_ns, measured_from_ns, until_ns; /* none becomes due at until_ns or later */
    uint64_t late_until_ns;                        /* none begins at this moment or later */
    uint64_t ramp_ns, batch_ns;
    double rate_per_ns; /* this worker's */
    double position;    /* of the next arrival, in arrivals at the full rate since the beginning */
    uint64_t next_ns;   /* when the next arrival is due */
    uint64_t random;
};

struct arrival {
    uint64_t due_ns; /* closed loop: now */
    bool measured;   /* due in the measured phase; closed loop: begins in it */
};

enum pacing_answer { PACING_NOW, PACING_LATER, PACING_NEVER };

/* The worker-th of so many workers: they share the rate and the limit as evenly as it goes. window must be set. */
void pacing_init(struct pacing *pacing, const struct pacing_config *config, const struct window *window, int worker,
                 int workers);

/*
 * Takes one, if one may begin now (PACING_NOW); *arrival says when it was to. One that fails later has been taken all
 * the same. PACING_LATER, open loop only: at pacing_next_ns().
 */
enum pacing_answer pacing_take(struct pacing *pacing, enum phase phase, uint64_t now_ns, struct arrival *arrival);

/* No other will begin. */
bool pacing_is_exhausted(const struct pacing *pacing, enum phase phase, uint64_t now_ns);

/* Open loop: when the next one becomes, or became, due. UINT64_MAX: none will. */
uint64_t pacing_next_ns(const struct pacing *pacing);

/* Open loop: the measured phase ends now, and nothing that waits will begin. */
void pacing_stop(struct pacing *pacing, uint64_t now_ns);

/* Open loop: how many became due in the measured phase and were never taken. Those beyond a million are reckoned. */
uint64_t pacing_never_taken(const struct pacing *pacing);

/* "fixed", "poisson" or "burst". */
const char *arrivals_name(enum arrivals arrivals);

#endif
