/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "admission.h"

#include "log.h"
#include "shared_memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HANG_UPS_A_TURN 64

struct share {
    uint32_t held;    /* places of this worker, in use or granted */
    uint32_t granted; /* of these, those that it does not know of yet */
    uint32_t waiting; /* in its queue, without a place granted */
    uint32_t ended;   /* set by the master, without the lock: all that is above is to be taken back */
} __attribute__((aligned(64)));

struct shared_admission {
    pthread_mutex_t lock; /* robust: a worker may die with it */
    uint64_t in_use;      /* the sum of all held */
    uint64_t waiting;     /* the sum of all waiting */
    uint32_t any_ended;   /* some share's ended may be set */
    int last_served;
    struct share share[];
};

/* Each process has its own, from before the fork. */
struct admission {
    struct shared_admission *shared;
    uint64_t limit;
    int workers;
    int wake[]; /* an eventfd a worker */
};

/* A process may be killed between any two of its stores: where their order matters, the compiler must keep it. */
#define IN_ORDER() __atomic_signal_fence(__ATOMIC_SEQ_CST)

static void *allocate(size_t bytes) {
    void *memory = calloc(1, bytes);

    if (!memory)
        fail(EXIT_FAILED, "--maxconn: out of memory");
    return memory;
}

struct admission *admission_new(uint64_t limit, int workers) {
    struct admission *admission;
    pthread_mutexattr_t attributes;

    if (!limit)
        return NULL;
    admission = allocate(sizeof *admission + (size_t)workers * sizeof *admission->wake);
    admission->shared = shared_memory_new(sizeof *admission->shared + (size_t)workers * sizeof(struct share));
    admission->limit = limit;
    admission->workers = workers;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&admission->shared->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    for (int i = 0; i < workers; i++) {
        admission->wake[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (admission->wake[i] < 0)
            fail(EXIT_FAILED, "--maxconn: eventfd: %s", strerror(errno));
    }
    return admission;
}

static void wake(const struct admission *admission, int worker) {
    const uint64_t one = 1;

    /* No room for one more (EAGAIN): it has not been emptied yet, and so will wake the worker. */
    if (write(admission->wake[worker], &one, sizeof one) != sizeof one && errno != EAGAIN)
        log_error("--maxconn: cannot wake worker %d: %s", worker, strerror(errno));
}

/* Somebody may have to be served for what has ended: everybody has a look. */
static void wake_all(const struct admission *admission) {
    __atomic_store_n(&admission->shared->any_ended, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < admission->workers; i++)
        wake(admission, i);
}

static void lock(const struct admission *admission) {
    struct shared_admission *shared = admission->shared;

    if (pthread_mutex_lock(&shared->lock) != EOWNERDEAD)
        return;
    /* Its last owner died halfway: what it held is counted anew, and nobody misses a grant. */
    pthread_mutex_consistent(&shared->lock);
    shared->in_use = shared->waiting = 0;
    for (int i = 0; i < admission->workers; i++) {
        shared->in_use += shared->share[i].held;
        shared->waiting += shared->share[i].waiting;
    }
    wake_all(admission);
}

static void unlock(const struct admission *admission) {
    pthread_mutex_unlock(&admission->shared->lock);
}

/* A free place, not counted in in_use any more, goes to whom it is due. Returns that worker, -1 if nobody waits. */
static int grant(const struct admission *admission) {
    struct shared_admission *shared = admission->shared;

    for (int i = 1; shared->waiting && i <= admission->workers; i++) {
        int worker = (shared->last_served + i) % admission->workers;
        struct share *share = &shared->share[worker];
        if (!share->waiting)
            continue;
        /* Cut short, this leaves one grant too many, which comes back, rather than one that waits for ever. */
        share->held++;
        IN_ORDER();
        share->granted++;
        IN_ORDER();
        share->waiting--;
        shared->waiting--;
        shared->in_use++;
        shared->last_served = worker;
        return worker;
    }
    return -1;
}

void admission_worker_ended(struct admission *admission, int worker) {
    if (!admission)
        return;
    __atomic_store_n(&admission->shared->share[worker].ended, 1, __ATOMIC_RELEASE);
    wake_all(admission);
}

/* With the lock: places of workers that have ended go to those who wait. */
static void take_back(const struct admission_queue *queue) {
    const struct admission *admission = queue->admission;
    struct shared_admission *shared = admission->shared;
    int served;

    for (int i = 0; i < admission->workers; i++) {
        struct share *share = &shared->share[i];
        if (!__atomic_load_n(&share->ended, __ATOMIC_ACQUIRE))
            continue;
        shared->in_use -= share->held;
        shared->waiting -= share->waiting;
        share->held = share->granted = share->waiting = 0;
        IN_ORDER(); /* cut short before this, it is done again after all has been counted anew */
        share->ended = 0;
    }
    while (shared->in_use < admission->limit && (served = grant(admission)) >= 0)
        if (served != queue->worker)
            wake(admission, served);
}

static void add_to_queue(struct admission_queue *queue, struct waiter *waiter) {
    struct epoll_event event = {.events = EPOLLRDHUP, .data.ptr = waiter};

    waiter->previous = queue->last;
    waiter->next = NULL;
    *(queue->last ? &queue->last->next : &queue->first) = waiter;
    queue->last = waiter;
    /* If it cannot be watched, the time in the queue is its only limit. */
    epoll_ctl(queue->hang_up_watcher.fd, EPOLL_CTL_ADD, waiter->fd, &event);
}

static void remove_from_queue(struct admission_queue *queue, struct waiter *waiter) {
    *(waiter->previous ? &waiter->previous->next : &queue->first) = waiter->next;
    *(waiter->next ? &waiter->next->previous : &queue->last) = waiter->previous;
    epoll_ctl(queue->hang_up_watcher.fd, EPOLL_CTL_DEL, waiter->fd, NULL);
}

static void granted(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop;
    struct admission_queue *queue = watcher->data;
    struct admission *admission = queue->admission;
    struct share *share = &admission->shared->share[queue->worker];
    uint64_t ignored;
    uint32_t places;

    /* EV_CUSTOM: this worker served itself, without a descriptor. */
    if (events & EV_READ && read(watcher->fd, &ignored, sizeof ignored) < 0 && errno != EAGAIN)
        log_error("--maxconn: eventfd: %s", strerror(errno));
    lock(admission);
    if (__atomic_exchange_n(&admission->shared->any_ended, 0, __ATOMIC_ACQ_REL))
        take_back(queue);
    places = share->granted;
    share->granted = 0;
    unlock(admission);
    for (; places; places--) {
        struct waiter *waiter = queue->first;
        if (!waiter) { /* those that it was meant for have left */
            admission_give_back(queue);
            continue;
        }
        remove_from_queue(queue, waiter);
        queue->admitted(waiter->owner);
    }
}

static void hung_up(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop, (void)events;
    struct admission_queue *queue = watcher->data;
    struct epoll_event gone[HANG_UPS_A_TURN];
    int count = epoll_wait(watcher->fd, gone, HANG_UPS_A_TURN, 0);

    for (int i = 0; i < count; i++)
        queue->left(((const struct waiter *)gone[i].data.ptr)->owner);
}

bool admission_queue_start(struct admission_queue *queue, struct ev_loop *loop) {
    int hang_ups;

    queue->loop = loop;
    if (!queue->admission)
        return true;
    hang_ups = epoll_create1(EPOLL_CLOEXEC);
    if (hang_ups < 0)
        return false;
    ev_io_init(&queue->wake_watcher, granted, queue->admission->wake[queue->worker], EV_READ);
    ev_io_init(&queue->hang_up_watcher, hung_up, hang_ups, EV_READ);
    queue->wake_watcher.data = queue->hang_up_watcher.data = queue;
    ev_io_start(loop, &queue->wake_watcher);
    ev_io_start(loop, &queue->hang_up_watcher);
    /* What the last worker of this slot held must be gone before this one holds anything. */
    lock(queue->admission);
    take_back(queue);
    unlock(queue->admission);
    return true;
}

bool admission_ask(struct admission_queue *queue, struct waiter *waiter) {
    struct admission *admission = queue->admission;
    struct shared_admission *shared;
    bool admitted;

    if (!admission)
        return true;
    shared = admission->shared;
    lock(admission);
    admitted = shared->in_use < admission->limit;
    if (admitted) {
        shared->share[queue->worker].held++;
        shared->in_use++;
    } else {
        shared->share[queue->worker].waiting++;
        shared->waiting++;
    }
    unlock(admission);
    if (!admitted)
        add_to_queue(queue, waiter);
    return admitted;
}

void admission_leave(struct admission_queue *queue, struct waiter *waiter) {
    struct admission *admission = queue->admission;
    struct share *share = &admission->shared->share[queue->worker];

    remove_from_queue(queue, waiter);
    lock(admission);
    if (share->waiting) { /* else a place is on its way already, and is given back when it comes */
        share->waiting--;
        admission->shared->waiting--;
    }
    unlock(admission);
}

void admission_give_back(struct admission_queue *queue) {
    struct admission *admission = queue->admission;
    int served;

    if (!admission)
        return;
    lock(admission);
    admission->shared->in_use--;
    IN_ORDER();
    admission->shared->share[queue->worker].held--;
    served = grant(admission);
    unlock(admission);
    if (served == queue->worker)
        ev_feed_event(queue->loop, &queue->wake_watcher, EV_CUSTOM);
    else if (served >= 0)
        wake(admission, served);
}
