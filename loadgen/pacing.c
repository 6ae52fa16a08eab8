/* SPDX-License-Identifier: MIT */
#include "pacing.h"

#include <math.h>

const char *arrivals_name(enum arrivals arrivals) {
    static const char *const names[] = {
        [ARRIVALS_NONE] = "", [ARRIVALS_FIXED] = "fixed", [ARRIVALS_POISSON] = "poisson", [ARRIVALS_BURST] = "burst"};

    return names[arrivals];
}

/* Arrivals that nobody took are counted one by one, which takes 20 ns each, up to so many. */
#define COUNTED_MAX 1000000

/* ---- The moments of an open loop ---- */

/* Batches begin with the measured phase, so that none is half in it, and lie before and after that. */
static uint64_t batch_of(const struct pacing *pacing, uint64_t moment_ns) {
    uint64_t into_ns;

    if (pacing->batch_ns == 0)
        return moment_ns;
    if (moment_ns >= pacing->measured_from_ns)
        return moment_ns - (moment_ns - pacing->measured_from_ns) % pacing->batch_ns;
    into_ns = pacing->batch_ns - (pacing->measured_from_ns - moment_ns - 1) % pacing->batch_ns - 1;
    return moment_ns - into_ns < pacing->start_ns ? pacing->start_ns : moment_ns - into_ns;
}

/*
 * At the full rate the arrival at position p would be due p / rate after the beginning. While the rate rises in a
 * straight line over the time T, rate x t^2 / 2T have arrived after the time t; that is half of what the full rate
 * would have brought, so from T on everything is T / 2 late.
 */
static uint64_t moment_of(const struct pacing *pacing, double position) {
    double ramp_ns = (double)pacing->ramp_ns, full_rate_ns;

    if (pacing->arrivals == ARRIVALS_BURST)
        return pacing->measured_from_ns;
    full_rate_ns = position / pacing->rate_per_ns;
    if (full_rate_ns < ramp_ns / 2)
        return batch_of(pacing, pacing->start_ns + (uint64_t)(sqrt(2 * ramp_ns * full_rate_ns) + .5));
    return batch_of(pacing, pacing->start_ns + (uint64_t)(full_rate_ns + ramp_ns / 2 + .5));
}

/* Uniform in (0, 1]. xorshift64*: not for secrets. */
static double random_share(struct pacing *pacing) {
    uint64_t x = pacing->random;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    pacing->random = x;
    return (double)((x * UINT64_C(0x2545f4914f6cdd1d) >> 11) + 1) / 9007199254740992.; /* 2^53 */
}

static void advance(struct pacing *pacing) {
    pacing->position += pacing->arrivals == ARRIVALS_POISSON ? -log(random_share(pacing)) : 1;
    pacing->next_ns = moment_of(pacing, pacing->position);
}

static bool is_measured(const struct pacing *pacing) {
    return pacing->next_ns >= pacing->measured_from_ns;
}

/* ---- Both loops ---- */

void pacing_init(struct pacing *pacing, const struct pacing_config *config, const struct window *window, int worker,
                 int workers) {
    uint64_t all = (uint64_t)workers;

    *pacing = (struct pacing){
        .arrivals = config->arrivals,
        .limited = config->limit > 0,
        .left = config->limit / all + ((uint64_t)worker < config->limit % all),
        .start_ns = window->start_ns,
        .measured_from_ns = window->measured_from_ns,
        .until_ns = window->measured_until_ns,
        .late_until_ns =
            window->measured_until_ns == UINT64_MAX ? UINT64_MAX : window->measured_until_ns + PACING_BACKLOG_NS,
        .ramp_ns = config->ramp_ns,
        .batch_ns = config->batch_ns,
        .rate_per_ns = config->rate_per_s / 1e9 / workers,
        .random = UINT64_C(0x9e3779b97f4a7c15) * ((uint64_t)worker + 1),
    };
    if (pacing->arrivals == ARRIVALS_NONE)
        return;
    /* The fixed arrivals of the workers lie between each other: together they are evenly spaced again. */
    pacing->position = pacing->arrivals == ARRIVALS_FIXED ? (double)worker / workers : 0;
    if (pacing->arrivals == ARRIVALS_POISSON)
        advance(pacing);
    else
        pacing->next_ns = moment_of(pacing, pacing->position);
}

bool pacing_is_exhausted(const struct pacing *pacing, enum phase phase, uint64_t now_ns) {
    if (pacing->arrivals == ARRIVALS_NONE)
        return phase == PHASE_DRAIN || (phase == PHASE_MEASURED && pacing->limited && pacing->left == 0);
    if (pacing->next_ns >= pacing->until_ns)
        return now_ns >= pacing->until_ns; /* what is open stays so until then */
    return pacing_next_ns(pacing) == UINT64_MAX || now_ns >= pacing->late_until_ns;
}

enum pacing_answer pacing_take(struct pacing *pacing, enum phase phase, uint64_t now_ns, struct arrival *arrival) {
    if (pacing_is_exhausted(pacing, phase, now_ns))
        return PACING_NEVER;
    if (pacing->arrivals == ARRIVALS_NONE) {
        *arrival = (struct arrival){.due_ns = now_ns, .measured = phase == PHASE_MEASURED};
    } else {
        if (now_ns < pacing->next_ns)
            return PACING_LATER;
        *arrival = (struct arrival){.due_ns = pacing->next_ns, .measured = is_measured(pacing)};
        advance(pacing);
    }
    if (arrival->measured && pacing->limited)
        pacing->left--;
    return PACING_NOW;
}

/* ---- Open loop ---- */

uint64_t pacing_next_ns(const struct pacing *pacing) {
    if (pacing->next_ns >= pacing->until_ns || (pacing->limited && pacing->left == 0 && is_measured(pacing)))
        return UINT64_MAX;
    return pacing->next_ns;
}

void pacing_stop(struct pacing *pacing, uint64_t now_ns) {
    if (now_ns < pacing->until_ns)
        pacing->until_ns = now_ns;
    if (now_ns < pacing->late_until_ns)
        pacing->late_until_ns = now_ns;
}

/* The inverse of moment_of: how many have arrived by then, on average. */
static double position_at(const struct pacing *pacing, uint64_t moment_ns) {
    double since_ns = (double)(int64_t)(moment_ns - pacing->start_ns), ramp_ns = (double)pacing->ramp_ns;

    if (since_ns < ramp_ns)
        return pacing->rate_per_ns * since_ns * since_ns / (2 * ramp_ns);
    return pacing->rate_per_ns * (since_ns - ramp_ns / 2);
}

/* As many as the rate brings from the next one on. */
static uint64_t reckon(const struct pacing *pacing) {
    double from = position_at(pacing, pacing->measured_from_ns), arrivals;

    if (pacing->arrivals == ARRIVALS_BURST || pacing->until_ns == UINT64_MAX)
        return pacing->left;
    arrivals = position_at(pacing, pacing->until_ns) - (pacing->position > from ? pacing->position : from);
    if (pacing->limited && arrivals > (double)pacing->left)
        return pacing->left;
    return arrivals > 0 ? (uint64_t)arrivals : 0;
}

uint64_t pacing_never_taken(const struct pacing *pacing) {
    struct pacing rest = *pacing;
    uint64_t count = 0;

    if (pacing->arrivals == ARRIVALS_NONE)
        return 0;
    for (int i = 0; pacing_next_ns(&rest) != UINT64_MAX; i++) {
        if (i == COUNTED_MAX)
            return count + reckon(&rest);
        if (is_measured(&rest)) {
            count++;
            if (rest.limited)
                rest.left--;
        }
        advance(&rest);
    }
    return count;
}
