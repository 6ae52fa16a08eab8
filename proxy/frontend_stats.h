/* SPDX-License-Identifier: MIT */
#ifndef PROXY_FRONTEND_STATS_H
#define PROXY_FRONTEND_STATS_H
/*
 * What happened at each frontend, counted as in stats.h: each process has counters of its own in shared memory, by the
 * frontend's place (listeners.h). A frontend that a reload has taken away is shown no more; the totals still have what
 * happened there.
 */
#include "address.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/* X(name, text) */
#define FRONTEND_COUNTERS(X)                                                                                           \
    X(connections_accepted, "client connections accepted at a frontend")                                               \
    X(connections_closed, "client connections of a frontend that have ended")                                          \
    X(handshakes_full, "full TLS handshakes completed at a frontend")                                                  \
    X(handshakes_resumed, "TLS handshakes that resumed a session, completed at a frontend")                            \
    X(handshakes_failed, "TLS handshakes at a frontend that did not come to their end")

struct frontend_counters {
#define X(name, text) uint64_t name;
    FRONTEND_COUNTERS(X)
#undef X
} __attribute__((aligned(64)));

struct frontend_stats {
    struct frontend_place *place;       /* in shared memory, by place */
    struct frontend_counters *counters; /* of each slot, by place; then of processes that have ended */
    int slots;
};

/* In the master, before anything is forked. */
void frontend_stats_init(struct frontend_stats *stats, int slots);

/* In the master: what is at this place from now on, with all counters at zero; NULL: nothing. */
void frontend_stats_show(struct frontend_stats *stats, int place, const struct address *address);

/* A process's own, of one frontend. */
struct frontend_counters *frontend_stats_of(const struct frontend_stats *stats, int slot, int place);

/* In the master, after the process has ended: what it held is closed, and its counters join those of ended ones. */
void frontend_stats_end(struct frontend_stats *stats, int slot);

/* All processes together, by place: sums has LISTENER_PLACES. */
void frontend_stats_add_up(const struct frontend_stats *stats, struct frontend_counters *sums);

/* Of such sums. An array, a frontend each. */
json_t *frontend_stats_json(const struct frontend_stats *stats, const struct frontend_counters *sums);
void frontend_stats_write_prometheus(const struct frontend_stats *stats, const struct frontend_counters *sums,
                                     FILE *out);

#endif
