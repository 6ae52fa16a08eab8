/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_PLAN_H
#define TLSDYNO_PLAN_H
/* What is to be done, as the command line says: made by main before anything starts, then only read. */
#include "affinity.h"
#include "engine.h"
#include "pacing.h"
#include "proxy_protocol.h"
#include "request.h"
#include "session_policy.h"
#include "source.h"
#include "tally.h"
#include "target.h"
#include "units.h"
#include "window.h"

#include <stdbool.h>
#include <stdint.h>

#define PLAN_TARGETS_MAX 64

enum close_how { CLOSE_FIN, CLOSE_NOTIFY, CLOSE_RST };

struct plan {
    int targets; /* used in turn by the connections of a slot */
    bool sticky; /* each slot stays with one of them instead, until that is lost */
    struct target target[PLAN_TARGETS_MAX];
    struct request request[PLAN_TARGETS_MAX]; /* of each target */
    const char *unix_path;                    /* or NULL */
    struct engine *engine;
    struct engine_config engine_config;
    const char *server_name; /* SNI instead of the target's own host name; NULL: the target's own */

    uint64_t workers, connections;
    int lingerers; /* connections of a worker that may end outside their slot, at a time */
    struct cpu_list cpus;
    uint64_t warmup_ns, duration_ns; /* duration 0: until the limit is reached */
    struct pacing_config pacing;     /* its limit: transactions (connections, if there are none) to begin */
    uint64_t timeout_ns;
    uint64_t coalesce_ns;      /* closed loop, held connections: what happens in so long is handled together */
    bool hold;                 /* a lost connection is an error, also while it rests */
    uint64_t hold_interval_ns; /* each held connection is asked once in this time */
    /*
     * Open loop, several transactions a connection, or a burst after a warm-up: connections are opened before there is
     * something to do for them, and rest between their transactions.
     */
    bool opens_ahead;

    struct session_policy sessions;
    uint64_t requests_per_connection; /* 0: handshake only; UINT64_MAX: as many as go */
    enum method method;
    bool check_body;
    enum close_how close_how;

    enum proxy_protocol proxy_protocol;
    struct source source;

    const char *json_file, *series_file, *histogram_file; /* or NULL; "-" is standard output */
    bool progress;
};

/* Shared by the master and the workers. */
struct load {
    const struct plan *plan;
    struct window window;
    struct tally *tallies; /* shared memory, one a worker */
    struct start *start;   /* shared memory */
};

/* What the workers know of the targets. How the start went: nobody listens there, or at least somebody did once. */
struct start {
    bool reached[PLAN_TARGETS_MAX]; /* a connection to the target was made */
    bool lost[PLAN_TARGETS_MAX];    /* it took none: with --sticky no slot of any worker goes there any more */
    int refused_target;             /* 1 + index of one that refused before it ever was reached; 0: none */
    int refused_errno;
};

/* The latest moment, after the end of the window, at which a worker gives up what is still in flight. */
#define DRAIN_NS (5 * NS_PER_S)

#endif
