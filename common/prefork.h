/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_PREFORK_H
#define TLSDYNO_PREFORK_H
/*
 * One master, N single-threaded workers, each pinned to its CPU. The master runs libev's default loop; a worker makes a
 * loop of its own. Workers end with their master, however it ends: each watches a pipe that only the master holds open.
 */
#include "affinity.h"

#include <ev.h>
#include <stdbool.h>
#include <sys/types.h>

#define PREFORK_WORKERS_MAX 256

struct prefork_worker {
    ev_child watcher;
    struct prefork *pool;
    pid_t pid; /* 0: not running */
    int index;
    ev_timer respawn;
    ev_tstamp started;
};

struct prefork {
    /* Set by the caller before prefork_start. */
    int workers;
    const struct cpu_list *cpus; /* count 0: no pinning */
    bool respawn;                /* replace a worker that ends before prefork_end was called */
    /* A worker's whole life; what it returns is its exit status. */
    int (*run)(int index, struct ev_loop *loop, void *context);
    /* In the master, on SIGINT, SIGTERM or SIGHUP. NULL: SIGINT and SIGTERM are passed on by prefork_end, SIGHUP
     * ignored. */
    void (*signalled)(int signal_number, void *context);
    /* In the master, after a worker ended (wait_status as of waitpid). May be NULL. */
    void (*ended)(int index, int wait_status, void *context);
    void *context;

    /* Private. */
    struct ev_loop *loop;
    bool ending;
    int running;
    int lifeline[2];
    ev_signal signals[3];
    struct prefork_worker worker[PREFORK_WORKERS_MAX];
};

/*
 * Forks the workers; they and the signals SIGINT, SIGTERM and SIGHUP are watched on loop, which must be the default
 * loop. The workers start with the default action of these signals, and with SIGPIPE ignored. The loop is broken out of
 * when the last worker has ended and none will be replaced. Exits with EXIT_FAILED if a worker cannot be forked.
 */
void prefork_start(struct prefork *pool, struct ev_loop *loop);

/* No worker is replaced from here on; each that still runs is sent the signal. */
void prefork_end(struct prefork *pool, int signal_number);

#endif
