/* SPDX-License-Identifier: MIT */
#include "slowdown.h"

#ifdef PROXY_SLOWDOWN
#include "units.h"

#include <stdint.h>
#include <time.h>

/*
 * What a connection costs is found in the first handshakes of each worker, while it is busy: some to warm up, then a
 * few groups of which the cheapest counts, for whatever disturbs only adds. The length of the loop is then a fixed
 * number of turns, so that it is the same work wherever it is counted, in time or in instructions.
 */
enum { WARM_UP = 16, GROUPS = 4, GROUP = 16, TRIALS = 5, TRIAL_TURNS = 200000 };

static uint64_t cpu_ns(void) {
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Nothing that a compiler could leave out, or do in fewer turns. */
static void turn(uint64_t turns) {
    uint64_t state = 1;

    for (uint64_t i = 0; i < turns; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(state));
    }
}

static uint64_t lesser(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t turns_in(uint64_t ns) {
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < TRIALS; i++) {
        uint64_t begin = cpu_ns();

        turn(TRIAL_TURNS);
        best = lesser(best, cpu_ns() - begin);
    }
    return best ? ns * TRIAL_TURNS / best : 0;
}

void slowdown_after_handshake(void) {
    static unsigned done;
    static uint64_t group_began, connection_ns = UINT64_MAX, turns;

    if (turns) {
        turn(turns);
        return;
    }
    if (done++ < WARM_UP || (done - WARM_UP - 1) % GROUP)
        return;
    if (done > WARM_UP + 1)
        connection_ns = lesser(connection_ns, (cpu_ns() - group_began) / GROUP);
    if (done > WARM_UP + GROUPS * GROUP)
        turns = turns_in(connection_ns * PROXY_SLOWDOWN / 100) + 1;
    group_began = cpu_ns();
}
#endif
