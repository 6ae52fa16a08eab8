/* SPDX-License-Identifier: MIT */
#ifndef PROXY_WORKER_H
#define PROXY_WORKER_H
/* One process, one event loop: accepts connections and carries them. */
#include "access_log.h"
#include "admission.h"
#include "backends.h"
#include "buffer_pool.h"
#include "prefork.h"
#include "settings.h"
#include "stats.h"

#include <ev.h>
#include <openssl/ssl.h>

struct worker;

/* What clients of one frontend come in by. */
struct door {
    /* Set by the caller. */
    SSL_CTX *tls;
    char name[ADDRESS_TEXT_MAX]; /* where it listens */
    struct frontend_counters *counters;
    const uint32_t *leaving; /* not 0: nobody follows who would take what is queued */
    int listener;            /* this worker's own socket; -1: closed */
    /* Private to worker.c. */
    struct worker *worker;
    ev_io watcher;
};

struct worker {
    struct ev_loop *loop;
    const struct proxy_settings *settings;
    const struct prefork_worker *self;
    struct door *doors; /* [door_count] */
    int door_count;
    struct worker_counters *counters;
    struct client_table *clients; /* NULL: nobody asked for it */
    struct access_log access_log;
    struct admission_queue admission; /* set by the caller: admission */
    struct backend_choice backends;   /* set by the caller: backends */
    struct buffer_pool buffers;
    int connections;
    bool draining; /* all doors are closed */
    /* Private to worker.c. */
    ev_timer accept_pause;
    bool is_closing, is_last_look; /* a door is closed when nobody waits at it, and at the last look that counts */
    ev_timer clock;                /* never due: what is left of it tells how time goes by */
    ev_signal drain_watcher, retire_watcher;
};

/* A worker's whole life. Returns its exit status. */
int worker_run(struct worker *worker);

/*
 * Seconds, since some moment of the past, at the beginning of this turn of the loop. Unlike ev_now it takes no part in
 * what is done to the machine's clock, so it is for intervals.
 */
ev_tstamp worker_now(const struct worker *worker);

/* A connection has ended: a worker that drains ends with its last one. */
void worker_connection_ended(struct worker *worker);

#endif
