/* SPDX-License-Identifier: MIT */
#ifndef PROXY_STATS_H
#define PROXY_STATS_H
/*
 * What happened, counted. Each worker process has its own counters in shared memory and is their only writer; when it
 * has ended, the master adds them to those of the worker's earlier processes. Whoever asks gets the sums. Every
 * connection that was accepted is closed for exactly one reason, so the counters add up: accepted = open + sum of
 * closed by reason, and handshake_failed + handshake_timeout = sum of failed handshakes by reason.
 */
#include "client_table.h"
#include "frontend_stats.h"
#include "handshake_failure.h"
#include "sync_counters.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* X(name, text): why a connection was closed. */
#define CLOSE_REASONS(X)                                                                                               \
    X(done, "both sides had ended")                                                                                    \
    X(handshake_failed, "the TLS handshake failed")                                                                    \
    X(handshake_timeout, "the TLS handshake took too long")                                                            \
    X(connect_failed, "the backend refused")                                                                           \
    X(connect_timeout, "the backend did not answer")                                                                   \
    X(client_error, "the client's side broke")                                                                         \
    X(backend_error, "the backend's side broke")                                                                       \
    X(idle_timeout, "nothing came for too long")                                                                       \
    X(hung_up, "the TLS side hung up without a close_notify")                                                          \
    X(half_closed_timeout, "one side had ended and nothing came from the other for too long")                          \
    X(bad_proxy_header, "the client sent no PROXY header, or a broken one")                                            \
    X(queue_timeout, "no place at the backend came free in time")                                                      \
    X(left_queue, "the client left while it waited for a place at the backend")                                        \
    X(no_resources, "out of memory or descriptors")                                                                    \
    X(worker_died, "the worker that held it died")

enum close_reason {
#define X(name, text) CLOSE_##name,
    CLOSE_REASONS(X)
#undef X
        CLOSE_REASON_COUNT
};

/* X(name, text): the other counters. Bytes are those of the application, in the clear. */
#define COUNTERS(X)                                                                                                    \
    X(connections_accepted, "client connections accepted")                                                             \
    X(handshakes_full, "full TLS handshakes completed")                                                                \
    X(handshakes_resumed, "TLS handshakes that resumed a session, completed")                                          \
    X(bytes_from_client, "application bytes received from clients")                                                    \
    X(bytes_to_client, "application bytes sent to clients")                                                            \
    X(bytes_from_backend, "bytes received from the backend")                                                           \
    X(bytes_to_backend, "bytes sent to the backend")                                                                   \
    X(queued, "connections that had to wait for a place at the backend")                                               \
    X(accept_pauses, "times accepting paused for want of descriptors")                                                 \
    X(session_hits, "sessions found in the cache")                                                                     \
    X(session_misses, "sessions asked for and not found")                                                              \
    X(session_stores, "sessions put into the cache")                                                                   \
    X(session_too_large, "sessions that did not fit a slot of the cache")                                              \
    X(session_evictions, "sessions that made room for others before they expired")                                     \
    X(session_expired, "expired sessions that were asked for or made room")                                            \
    X(session_waits, "sessions that a client waited for until what other hosts had sent was taken")                    \
    X(session_waits_found, "of these, those that were in it")                                                          \
    X(session_pulls, "sessions that other hosts were asked for while a client waited")                                 \
    X(session_pulls_found, "of these, those that came in time")                                                        \
    X(access_log_lines, "lines written to the access log")                                                             \
    X(access_log_lost, "lines of the access log that could not be written")

/* 64-bit numbers only: they are read and added up as an array. */
struct worker_counters {
#define X(name, text) uint64_t name;
    COUNTERS(X)
#undef X
    uint64_t closed[CLOSE_REASON_COUNT];
    uint64_t handshake_failures[HANDSHAKE_FAILURE_COUNT];
} __attribute__((aligned(64)));

/* What the master says of itself, in shared memory. */
struct stats_master {
    uint32_t sequence; /* odd while counters move from an ended process to those before it */
    uint64_t generation, reloads, reloads_refused;
    uint64_t started_unix_ns;
};

struct stats_process {
    int worker; /* which one it is a process of; -1: none */
    struct worker_counters counters;
};

struct stats {
    struct stats_master *master;
    struct worker_counters *ended; /* [workers]: of processes that have ended */
    struct stats_process *process; /* [slots] */
    struct frontend_stats frontends;
    /*
     * From here on each process has its own. Every worker can write to what the pointers above lead to, so the master,
     * which may be root, takes nothing from there but numbers to add up.
     */
    int *worker_of;               /* [slots], for the master: process[].worker as it was written */
    struct client_table *clients; /* [slots]; NULL: not asked for */
    uint64_t top_clients;
    const struct sync_counters *sync; /* NULL: nothing is shared with other hosts */
    int workers, slots;
};

/* In the master, before anything is forked: counters for so many workers and processes, all zero. top_clients 0: none.
 */
void stats_init(struct stats *stats, int workers, int slots, uint64_t top_clients);

/* In the master, before a process is forked: it counts in this slot. */
void stats_begin(struct stats *stats, int slot, int worker);

/*
 * In the master, after that process has ended: the connections that it still held are counted as closed by its death,
 * and its counters join those of the worker.
 */
void stats_end(struct stats *stats, int slot);

/* Adds to a counter that this process alone writes and others read. */
static inline void stats_add(uint64_t *counter, uint64_t amount) {
    __atomic_store_n(counter, *counter + amount, __ATOMIC_RELAXED);
}

/* "done", "idle_timeout"... */
const char *close_reason_name(enum close_reason reason);

/* One JSON object: totals at the top level, the same by worker in "workers". */
void stats_write_json(const struct stats *stats, FILE *out);

/* Prometheus' text format, version 0.0.4. */
void stats_write_prometheus(const struct stats *stats, FILE *out);

#endif
