/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_TALLY_H
#define TLSDYNO_TALLY_H
/*
 * What the workers count. Each worker writes a tally of its own in shared memory; the master reads it, for the live
 * line while the worker writes (each counter is right, two of them may be a moment apart), for the result when it has
 * ended.
 */
#include "engine.h"
#include "latency_histogram.h"
#include "load_error.h"

#include <stdint.h>

enum phase { PHASE_WARMUP, PHASE_MEASURED, PHASE_DRAIN, PHASES };

/* An event is counted in the phase in which it happens. */
struct counters {
    uint64_t connections_opened; /* TCP (or UNIX) connected */
    uint64_t handshakes_full;
    uint64_t handshakes_resumed;
    uint64_t resume_offered; /* of completed handshakes */
    uint64_t resume_refused; /* offered, and full all the same */
    uint64_t transactions;
    uint64_t bytes_received; /* of the application: HTTP heads and bodies, no TLS */
    uint64_t bytes_sent;
    uint64_t closes_unanswered; /* the target had not closed its side a second after we closed ours */
    uint64_t errors[LOAD_ERRORS];
};

enum latency {
    LATENCY_CONNECT,
    LATENCY_HANDSHAKE_FULL,
    LATENCY_HANDSHAKE_RESUMED,
    LATENCY_TTFB,
    LATENCY_TRANSACTION,
    LATENCY_CONNECTION,  /* open loop, handshake only: from the moment it was due to the end of the handshake */
    LATENCY_START_DELAY, /* open loop: from the moment it was due to its beginning */
    LATENCY_SERVICE,     /* open loop: from its beginning to its end */
    LATENCIES
};

/* Open loop: what became of the arrivals that were due in the measured phase, whenever that was. */
struct arrival_counts {
    uint64_t done, failed, never_begun; /* the sum is what was due */
    uint64_t ended_in_time;             /* of done and failed: before the measured phase was over */
};

#define TALLY_NAME_MAX     48
#define TALLY_NEGOTIATED   32
#define TALLY_CERTIFICATES 8

struct negotiated {
    char tls_version[TALLY_NAME_MAX], cipher[TALLY_NAME_MAX], group[TALLY_NAME_MAX], sigalg[TALLY_NAME_MAX];
    char alpn[256];
    uint64_t count; /* 0: this row and those after it are not in use */
};

struct certificate {
    char key[TALLY_NAME_MAX];
    unsigned chain_bytes;
    uint64_t count;
};

struct tally {
    struct counters phase[PHASES];
    /* Of the measured phase; in the open loop, of the arrivals that were due in it (connect and handshakes: of the
     * phase). */
    struct latency_histogram latency[LATENCIES];
    uint64_t body_min_bytes, body_max_bytes; /* of the measured transactions' responses; min 0 until there is one */
    struct arrival_counts arrivals;
    uint64_t open_now;    /* connections that are through their handshake */
    uint64_t open_at_end; /* the same, when the measured phase ended */
    uint64_t half_ops[2]; /* of the measured phase, before and after its middle */
    /* Of all phases, so that a connection of the warm-up that is used ever after is seen. */
    struct negotiated negotiated[TALLY_NEGOTIATED];
    struct certificate certificates[TALLY_CERTIFICATES];
    uint64_t user_ns, system_ns;                  /* CPU time of the measured phase */
    uint64_t measured_from_ns, measured_until_ns; /* monotonic; until is 0 while it lasts */
    bool ended;                                   /* the worker came to its own end */
};

/* Adds all of from to into, and widens its measured phase to both. */
void tally_merge(struct tally *into, const struct tally *from);

void counters_add(struct counters *into, const struct counters *from);
struct counters tally_totals(const struct tally *tally); /* of all phases */
uint64_t counters_errors(const struct counters *counters);

/* Counts the parameters of a completed handshake. What does not fit in the table is counted in its last row. */
void tally_negotiated(struct tally *tally, const struct engine_facts *facts);

void tally_body(struct tally *tally, uint64_t bytes);

/* As in the JSON result. */
const char *latency_name(enum latency latency);
const char *phase_name(enum phase phase);

#endif
