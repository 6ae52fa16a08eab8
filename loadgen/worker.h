/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_WORKER_H
#define TLSDYNO_WORKER_H
/* One process of the load generator: its connection slots, its phase, its tally. */
#include "http_framing.h"
#include "linger.h"
#include "pacing.h"
#include "plan.h"
#include "poller.h"
#include "spare_sockets.h"
#include "tally.h"

#include <ev.h>
#include <sys/queue.h>

#define WORKER_READ_BYTES (64 * 1024)

TAILQ_HEAD(client_list, client);

struct worker {
    const struct plan *plan;
    const struct window *window;
    struct start *start;
    struct tally *tally;
    struct engine *engine;
    struct ev_loop *loop; /* for signals and the life line; connections are the poller's */
    struct pacing pacing;
    int index;
    enum phase phase;
    uint64_t phase_ends_ns;    /* UINT64_MAX: when the limit is reached */
    struct counters *counters; /* of the phase */
    struct client *clients;
    int client_count, clients_begun, clients_left; /* left: not CLIENT_DONE */
    struct client_list busy;                       /* have a deadline: swept */
    struct client_list waiting;                    /* for an arrival; the longest waiting first. They cost nothing. */
    bool waking;                                   /* those that wait: it is their turn */
    struct lingerers lingerers;
    struct poller poller;
    bool keeps_sockets; /* of ended connections, as spare_sockets_serve() says */
    struct spare_sockets spare_sockets;
    uint64_t sweep_ns;             /* the next sweep is due */
    bool batching, batch_was_full; /* --coalesce: the last batch had something; and there is more */
    ev_signal terminate;
    bool ended; /* its loop need not go on */
    uint64_t source_turn[PLAN_TARGETS_MAX];
    struct http_known_head known_head; /* of responses to all slots */
    uint64_t last_done_ns;             /* the last operation was done, or had failed */
    uint64_t user_ns, system_ns;       /* CPU time when the measured phase began */
    char bytes[WORKER_READ_BYTES];     /* what the slot at work just read */
};

/* A worker's whole life, in a process and on a loop of its own; returns its exit status. */
int worker_run(int index, struct ev_loop *loop, const struct load *load);

/* The time, ns; the phase is that of this moment from here on. */
uint64_t worker_now(struct worker *worker);

/* A unit of what is measured was done (a transaction, or a handshake where there are no transactions). */
void worker_count_op(struct worker *worker, uint64_t now_ns);

void worker_count_latency(struct worker *worker, enum latency latency, uint64_t duration_ns);

/* Moves a slot to the end of a list of its worker's, or out of the one that it is in (NULL). */
void worker_list(struct client *client, struct client_list *list);

/* A slot will begin nothing any more. */
void worker_client_done(struct worker *worker);

/* Nobody listens at the target, and nobody ever has: there is nothing to measure. */
void worker_no_target(struct worker *worker, int target, int error_number);

#endif
