/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "sync_priority.h"

#include "clock.h"
#include "units.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Of the CPU at a time, where the system lets a process choose (Linux 6.12) and it is one among others. */
#define SLICE_NS 100000
/* Of real-time processes, the last. */
#define PRIORITY 1
/* A CPU's share that it may take ahead of all others: one in so many parts, between two looks. */
#define SHARE 5
/* A shorter time says nothing: a process begins with work. */
#define LOOK_NS (50 * NS_PER_MS)
/* So many looks with less, and it is over. */
#define CALM 10

static bool get(struct sync_scheduling *scheduling) {
    return syscall(SYS_sched_getattr, 0, scheduling, sizeof *scheduling, 0) == 0;
}

static bool set(const struct sync_scheduling *scheduling) {
    return syscall(SYS_sched_setattr, 0, scheduling, 0) == 0;
}

static bool go_first(struct sync_priority *priority) {
    const struct sync_scheduling first = {.size = sizeof first, .policy = SCHED_RR, .priority = PRIORITY};

    return priority->first = set(&first);
}

static void fall_in(struct sync_priority *priority) {
    priority->first = false;
    set(&priority->usual);
}

/* What a user who is nobody may ask for. */
static void keep_right(void) {
    struct rlimit limit;

    if (getrlimit(RLIMIT_RTPRIO, &limit) != 0 || limit.rlim_cur >= PRIORITY)
        return;
    limit.rlim_cur = PRIORITY;
    if (limit.rlim_max < PRIORITY)
        limit.rlim_max = PRIORITY;
    setrlimit(RLIMIT_RTPRIO, &limit);
}

static uint64_t cpu_ns(void) {
    struct timespec time;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

void sync_priority_begin(struct sync_priority *priority) {
    *priority = (struct sync_priority){.cpu_ns = cpu_ns(), .time_ns = monotonic_ns()};
    /* Somebody has chosen for the whole proxy, or the system does not know how. */
    if (!get(&priority->usual) || priority->usual.policy != SCHED_OTHER || priority->usual.nice > 0)
        return;
    priority->usual.runtime_ns = SLICE_NS;
    keep_right();
    priority->may_be_first = go_first(priority);
    if (!priority->first)
        fall_in(priority);
}

void sync_priority_look(struct sync_priority *priority) {
    uint64_t now_ns = monotonic_ns(), used_ns = cpu_ns();
    bool much = (used_ns - priority->cpu_ns) * SHARE > now_ns - priority->time_ns;

    if (now_ns - priority->time_ns < LOOK_NS)
        return;
    priority->cpu_ns = used_ns;
    priority->time_ns = now_ns;
    priority->calm_looks = much ? 0 : priority->calm_looks + 1;
    if (priority->first && much)
        fall_in(priority);
    else if (!priority->first && priority->may_be_first && priority->calm_looks == CALM)
        priority->may_be_first = go_first(priority);
}
