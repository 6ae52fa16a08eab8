/* SPDX-License-Identifier: MIT */
#ifndef PROXY_ADMISSION_H
#define PROXY_ADMISSION_H
/*
 * At most N connections to the backend at once, over all workers; who comes when all places are taken waits in its
 * worker's queue. A place that is given back goes to the first in the queue of a worker that has one, the workers in
 * turn, so nobody overtakes those who wait. Places are counted by worker in shared memory: those of a worker that died
 * are taken back by the others.
 *
 * The master, which may be root, never takes the lock, nor does it read anything that workers could write to: a robust
 * mutex is a list of pointers in that memory, which whoever unlocks it follows.
 */
#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

struct admission;

/*
 * In the master, before the workers are forked. NULL for a limit of 0: all are admitted. free() frees what is this
 * process's own.
 */
struct admission *admission_new(uint64_t limit, int workers);

/* In the master, after a worker has ended, however it did: the others hear of it, and so do those to come. NULL is
 * allowed. */
void admission_worker_ended(struct admission *admission, int worker);

/* One that waits. Whoever has the place for it owns it. */
struct waiter {
    struct waiter *previous, *next;
    void *owner;
    int fd; /* of the client, which may leave meanwhile */
};

/* A worker's own part. */
struct admission_queue {
    struct admission *admission; /* NULL: all are admitted */
    int worker;
    void (*admitted)(void *owner); /* it has a place now, and is not in the queue any more */
    void (*left)(void *owner);     /* its client has hung up; it is still in the queue */
    /* Private. */
    struct ev_loop *loop;
    struct waiter *first, *last;
    ev_io wake_watcher;    /* another process has given places to this worker */
    ev_io hang_up_watcher; /* on an epoll of its own: libev cannot watch for a hang-up alone */
};

/* The callbacks, admission and worker are set by the caller. False: no descriptors or memory. */
bool admission_queue_start(struct admission_queue *queue, struct ev_loop *loop);

/* True: there is a place, which admission_give_back must return. False: the waiter is in the queue. */
bool admission_ask(struct admission_queue *queue, struct waiter *waiter);

/* The waiter does not want a place any more. */
void admission_leave(struct admission_queue *queue, struct waiter *waiter);

void admission_give_back(struct admission_queue *queue);

#endif
