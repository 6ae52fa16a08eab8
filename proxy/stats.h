/* SPDX-License-Identifier: MIT */
#ifndef PROXY_STATS_H
#define PROXY_STATS_H
/*
 * What happened, counted. Each worker has its own counters in shared memory and is their only writer; the master reads
 * them all. Every connection that was accepted is closed for exactly one reason, so the counters add up:
 * accepted = open + sum of closed by reason.
 */
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
    X(session_expired, "expired sessions that were asked for or made room")

struct worker_counters {
#define X(name, text) uint64_t name;
    COUNTERS(X)
#undef X
    uint64_t closed[CLOSE_REASON_COUNT];
} __attribute__((aligned(64)));

struct stats {
    struct worker_counters *worker; /* in shared memory */
    int workers;
};

/* Counters for so many workers, all zero, in shared memory. */
void stats_init(struct stats *stats, int workers);

/* In the master, after a worker has died: the connections that it held are closed, and counted so. */
void stats_close_all(struct stats *stats, int worker);

/* Adds to a counter that this process alone writes and others read. */
static inline void stats_add(uint64_t *counter, uint64_t amount) {
    __atomic_store_n(counter, *counter + amount, __ATOMIC_RELAXED);
}

/* One JSON object: totals at the top level, the same by worker in "workers". */
void stats_write_json(const struct stats *stats, FILE *out);

/* Prometheus' text format, version 0.0.4. */
void stats_write_prometheus(const struct stats *stats, FILE *out);

#endif
