/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_COUNTERS_H
#define PROXY_SYNC_COUNTERS_H
/*
 * What was exchanged with other hosts, counted in shared memory by all processes that do it, and shown with the other
 * statistics.
 */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/* X(name, text) */
#define SYNC_COUNTERS(X)                                                                                               \
    X(datagrams_sent, "datagrams sent, one for each peer or one for a multicast group")                                \
    X(bytes_sent, "bytes in them")                                                                                     \
    X(datagrams_unsent, "datagrams that the system did not take, or that a peer refused")                              \
    X(datagrams_received, "datagrams received, those that were rejected included")                                     \
    X(bytes_received, "bytes in them")                                                                                 \
    X(datagrams_dropped, "datagrams that the system dropped unseen because there was no room for more")                \
    X(sessions_announced, "new sessions that peers were told of")                                                      \
    X(sessions_applied, "sessions of peers put into the cache")                                                        \
    X(sessions_known, "sessions of peers that were in the cache already")                                              \
    X(sessions_evicted, "sessions that made room before they expired for what peers have told of")                     \
    X(withdrawals_announced, "dead sessions that peers were told of")                                                  \
    X(withdrawals_applied, "sessions that a peer had withdrawn taken out of the cache")                                \
    X(pulls_asked, "sessions that peers were asked for")                                                               \
    X(pulls_answered, "sessions given to a peer that had asked")                                                       \
    X(ticket_keys_applied, "new ticket keys of peers taken")                                                           \
    X(challenges_sent, "proofs of freshness asked of peers")                                                           \
    X(proofs_taken, "proofs of freshness received")                                                                    \
    X(catch_ups_begun, "times that a peer was asked for all that it has")                                              \
    X(catch_ups_done, "times that all of it has come")                                                                 \
    X(lag_us_sum, "microseconds from a session's birth to its arrival here, from where on it is found, added up")      \
    X(lag_count, "datagrams that lag_us_sum is of")

/* X(name, text): what can also go down. */
#define SYNC_GAUGES(X)                                                                                                 \
    X(lost, "datagrams of peers that have not come: gaps in their numbers")                                            \
    X(peers, "senders that have proven to be alive and were heard in the last half minute")                            \
    X(lag_us_last,                                                                                                     \
      "microseconds from the birth of a session to its arrival here, from where on it is found: the last one")         \
    X(lag_us_max, "the same: the greatest")

/* X(name, text): why a datagram, or a session in one, was not taken. */
#define SYNC_REJECTIONS(X)                                                                                             \
    X(oversized, "longer than a datagram of ours can be")                                                              \
    X(truncated, "shorter than a datagram of ours can be")                                                             \
    X(not_ours, "does not begin as our datagrams do")                                                                  \
    X(wrong_version, "of a version that is not spoken here")                                                           \
    X(forged, "not sealed, or not signed, with our key")                                                               \
    X(replayed, "came before, or is older than what is remembered of its sender")                                      \
    X(unproven, "sent before its sender had proven that it is alive, which it is asked to do")                         \
    X(misdated, "its date is not that of its sender's clock")                                                          \
    X(misaddressed, "meant for another host")                                                                          \
    X(malformed, "sealed with our key, and not understood")                                                            \
    X(crowded, "from one sender more than are remembered")                                                             \
    X(expired, "a session that is over")                                                                               \
    X(withdrawn, "a session that had been withdrawn")                                                                  \
    X(too_large, "a session that does not fit the cache")                                                              \
    X(flood, "one of so many that were not ours that the system was told to drop them unseen; not among those "        \
             "received")

enum sync_rejection {
    SYNC_TAKEN = -1,
#define X(name, text) SYNC_##name,
    SYNC_REJECTIONS(X)
#undef X
        SYNC_REJECTION_COUNT
};

struct sync_counters {
#define X(name, text) uint64_t name;
    SYNC_COUNTERS(X)
    SYNC_GAUGES(X)
#undef X
    uint64_t rejected[SYNC_REJECTION_COUNT];
};

/* Adds to a counter that other processes add to as well. */
static inline void sync_count(uint64_t *counter, uint64_t amount) {
    __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED);
}

/* In shared memory: in the master, before anything is forked. */
struct sync_counters *sync_counters_new(void);

/* A new object: counters, gauges, and "rejected" by reason. */
json_t *sync_counters_json(const struct sync_counters *counters);

/* Prometheus' text format: each name begins with this prefix. */
void sync_counters_write_prometheus(const struct sync_counters *counters, const char *prefix, FILE *out);

#endif
