/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_PREFORK_H
#define TLSDYNO_PREFORK_H
/*
 * One master, N single-threaded workers, each pinned to its CPU. The master runs libev's default loop; a worker makes a
 * loop of its own. Workers end with their master, however it ends: each watches a pipe that only the master holds open.
 *
 * Workers can be replaced by a new generation, which is forked before the old one is told to retire; so there may be
 * several processes with the same index, each with a slot of its own.
 */
#include "affinity.h"

#include <ev.h>
#include <stdbool.h>
#include <sys/types.h>

#define PREFORK_WORKERS_MAX  256
#define PREFORK_SERVICES_MAX 2

/* A process. Callbacks may read what is not private. */
struct prefork_worker {
    int index; /* which of the workers: 0..workers-1 */
    int slot;  /* no other process that runs now has it: 0..workers*generations-1 */
    unsigned generation;

    /* Private. */
    struct prefork *pool;
    pid_t pid;    /* 0: not running */
    bool retired; /* will not be replaced */
    bool waiting; /* to be started again */
    bool told;    /* to retire, and has not said that it has heard it */
    ev_child watcher;
    ev_timer respawn, deadline;
    ev_tstamp started;
};

struct prefork_service {
    int (*run)(struct ev_loop *loop, void *context); /* its whole life; what it returns is its exit status */
    const char *name;                                /* what ps calls it */
};

struct prefork {
    /* Set by the caller before prefork_start. */
    int workers;
    int generations;             /* at most so many at once; 0: one, for who never calls prefork_renew */
    const struct cpu_list *cpus; /* count 0: no pinning */
    bool respawn;                /* replace a worker that ends before prefork_end was called */
    ev_tstamp drain_limit_s;     /* who has not ended so long after it was told to is killed; 0: no limit */
    /* A worker's whole life; what it returns is its exit status. */
    int (*run)(const struct prefork_worker *self, struct ev_loop *loop, void *context);
    /* The workers begin with SIGTERM and SIGHUP blocked, and unblock them when they are ready for them. */
    bool workers_take_signals;
    /* In the master, before a worker is forked. May be NULL. */
    void (*starting)(const struct prefork_worker *worker, void *context);
    /* In the master, on SIGINT, SIGTERM or SIGHUP. NULL: SIGINT and SIGTERM are passed on by prefork_end, SIGHUP
     * ignored. */
    void (*signalled)(int signal_number, void *context);
    /*
     * In the master, in prefork_renew, before anybody is told to retire: those of before, as a new generation is there,
     * or (false) what there is of one, as it has come to nothing. May be NULL.
     */
    void (*renewed)(bool is_there, void *context);
    /* In the master, some time after prefork_renew: the last of those it told has stepped back. May be NULL. */
    void (*settled)(void *context);
    /* In the master, after a worker ended (wait_status as of waitpid), or could not be forked. May be NULL. */
    void (*ended)(const struct prefork_worker *worker, int wait_status, void *context);
    /* More processes, which are no workers and live as long as the master. */
    struct prefork_service service[PREFORK_SERVICES_MAX];
    int services;
    void *context;

    /* Private. */
    struct ev_loop *loop;
    bool ending;
    int running; /* workers, retired ones included */
    unsigned generation;
    int lifeline[2];
    int heard[2]; /* a pipe: the pids of those that step back */
    ev_io hears;
    ev_signal signals[3];
    struct prefork_worker *worker; /* [workers * generations], by slot */
    struct prefork_worker service_process[PREFORK_SERVICES_MAX];
};

/*
 * Forks the workers; they and the signals SIGINT, SIGTERM and SIGHUP are watched on loop, which must be the default
 * loop. The workers start with the default action of these signals, and with SIGPIPE ignored. The loop is broken out of
 * when the last worker has ended and none will be replaced. Exits with EXIT_FAILED if a worker cannot be forked.
 */
void prefork_start(struct prefork *pool, struct ev_loop *loop);

/*
 * Forks a new generation of workers, then sends SIGHUP to those that were there: they take no more work and end when
 * they have done what they had. NULL, or why nothing has changed; the text is valid until the next call.
 */
const char *prefork_renew(struct prefork *pool);

/* In a worker that was told to retire: from here on it takes no connection that is for the worker in its place. */
void prefork_step_back(const struct prefork_worker *self);

/* Whether all that were told to retire have stepped back, or ended. */
bool prefork_is_settled(const struct prefork *pool);

/* No worker is replaced from here on; each that still runs is sent the signal. */
void prefork_end(struct prefork *pool, int signal_number);

/* After the loop has ended: the services end too. */
void prefork_finish(struct prefork *pool);

#endif
