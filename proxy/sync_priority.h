/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_PRIORITY_H
#define PROXY_SYNC_PRIORITY_H
/*
 * The process that takes datagrams runs for microseconds at a time, and its sessions are of no use before it has. Where
 * the system lets it, it runs ahead of all workers, as the lowest of real-time processes; else it asks for short turns
 * of the CPU, which a new system gives to who has used little of it lately. Anybody can send datagrams: as soon as they
 * take more than a small share of a CPU, it is one among others until they do not.
 */
#include <stdbool.h>
#include <stdint.h>

/* sched_setattr(2): the system's, which the C library has no name for. */
struct sync_scheduling {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

struct sync_priority {
    struct sync_scheduling usual; /* as one among others */
    bool first;                   /* ahead of all workers, now */
    bool may_be_first;            /* as far as is known */
    uint64_t cpu_ns, time_ns;     /* used by this process, and the time, at the last look */
    int calm_looks;
};

/* Before privileges are dropped: afterwards it may come back to what it had then. */
void sync_priority_begin(struct sync_priority *priority);

/* Ten times a second. */
void sync_priority_look(struct sync_priority *priority);

#endif
