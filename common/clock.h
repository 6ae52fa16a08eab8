/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_CLOCK_H
#define TLSDYNO_CLOCK_H
#include <stdint.h>
#include <time.h>

static inline uint64_t clock_read_ns(clockid_t id) {
    struct timespec now;

    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* For intervals: never steps. */
static inline uint64_t monotonic_ns(void) {
    return clock_read_ns(CLOCK_MONOTONIC);
}

/* For dates: what other programs call the time. */
static inline uint64_t realtime_ns(void) {
    return clock_read_ns(CLOCK_REALTIME);
}

/* User + system time of this process. A system call each, some 300 ns: read it around batches. */
static inline uint64_t process_cpu_ns(void) {
    return clock_read_ns(CLOCK_PROCESS_CPUTIME_ID);
}

#endif
