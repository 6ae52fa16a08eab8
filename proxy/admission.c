/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "admission.h"

#include "log.h"
#include "shared_memory.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HANG_UPS_A_TURN 64

struct share {
    uint32_t held;    /* places of this worker, in use or granted */
    uint32_t granted; /* of these, those that it does not know of yet */
    uint32_t waiting; /* in its queue, without a place granted */
    int wake;         /* eventfd */
} __attribute__((aligned(64)));

struct admission {
    pthread_mutex_t lock; /* robust: a worker may die with it */
    uint64_t limit;
    uint64_t in_use;  /* the sum of all held */
    uint64_t waiting; /* the sum of all waiting */
    int workers;
    int last_served;
    struct share share[];
};

/* A process may be killed between any two of its stores: where their order matters, the compiler must keep it. */
#define IN_ORDER() __atomic_signal_fence(__ATOMIC_SEQ_CST)

struct admission *admission_new(uint64_t limit, int workers) {
    struct admission *admission;
    pthread_mutexattr_t attributes;

    if (!limit)
        return NULL;
    admission = shared_memory_new(sizeof *admission + (size_t)workers * sizeof *admission->share);
    admission->limit = limit;
    admission->workers = workers;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&admission->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    for (int i = 0; i < workers; i++) {
        admission->share[i].wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (admission->share[i].wake < 0)
            fail(EXIT_FAILED, "--maxconn: eventfd: %s", strerror(errno));
    }
    return admission;
}

static void wake(const struct admission *admission, int worker) {
    const uint64_t one = 1;

    /* It cannot fail for want of room: each worker empties its own before it looks for grants. */
    if (write(admission->share[worker].wake, &one, sizeof one) != sizeof one)
        log_error("--maxconn: cannot wake worker %d: %s", worker, strerror(errno));
}

static void lock(struct admission *admission) {
    if (pthread_mutex_lock(&admission->lock) != EOWNERDEAD)
        return;
    /* Its last owner died halfway: what it held is counted anew, and nobody misses a grant. */
    pthread_mutex_consistent(&admission->lock);
    admission->in_use = admission->waiting = 0;
    for (int i = 0; i < admission->workers; i++) {
        admission->in_use += admission->share[i].held;
        admission->waiting += admission->share[i].waiting;
        if (admission->share[i].granted)
            wake(admission, i);
    }
}

static void unlock(struct admission *admission) {
    pthread_mutex_unlock(&admission->lock);
}

/* A free place, not counted in in_use any more, goes to whom it is due. Returns that worker, -1 if nobody waits. */
static int grant(struct admission *admission) {
    for (int i = 1; admission->waiting && i <= admission->workers; i++) {
        int worker = (admission->last_served + i) % admission->workers;
        struct share *share = &admission->share[worker];
        if (!share->waiting)
            continue;
        /* Cut short, this leaves one grant too many, which comes back, rather than one that waits for ever. */
        share->held++;
        IN_ORDER();
        share->granted++;
        IN_ORDER();
        share->waiting--;
        admission->waiting--;
        admission->in_use++;
        admission->last_served = worker;
        return worker;
    }
    return -1;
}

void admission_worker_ended(struct admission *admission, int worker) {
    struct share *share;
    int served;

    if (!admission)
        return;
    lock(admission);
    share = &admission->share[worker];
    admission->in_use -= share->held;
    admission->waiting -= share->waiting;
    share->held = share->granted = share->waiting = 0;
    while (admission->in_use < admission->limit && (served = grant(admission)) >= 0)
        wake(admission, served);
    unlock(admission);
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
    struct share *share = &admission->share[queue->worker];
    uint64_t ignored;
    uint32_t places;

    /* EV_CUSTOM: this worker served itself, without a descriptor. */
    if (events & EV_READ && read(watcher->fd, &ignored, sizeof ignored) < 0 && errno != EAGAIN)
        log_error("--maxconn: eventfd: %s", strerror(errno));
    lock(admission);
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
    ev_io_init(&queue->wake_watcher, granted, queue->admission->share[queue->worker].wake, EV_READ);
    ev_io_init(&queue->hang_up_watcher, hung_up, hang_ups, EV_READ);
    queue->wake_watcher.data = queue->hang_up_watcher.data = queue;
    ev_io_start(loop, &queue->wake_watcher);
    ev_io_start(loop, &queue->hang_up_watcher);
    return true;
}

bool admission_ask(struct admission_queue *queue, struct waiter *waiter) {
    struct admission *admission = queue->admission;
    struct share *share;
    bool admitted;

    if (!admission)
        return true;
    lock(admission);
    share = &admission->share[queue->worker];
    admitted = admission->in_use < admission->limit;
    if (admitted) {
        share->held++;
        admission->in_use++;
    } else {
        share->waiting++;
        admission->waiting++;
    }
    unlock(admission);
    if (!admitted)
        add_to_queue(queue, waiter);
    return admitted;
}

void admission_leave(struct admission_queue *queue, struct waiter *waiter) {
    struct admission *admission = queue->admission;
    struct share *share = &admission->share[queue->worker];

    remove_from_queue(queue, waiter);
    lock(admission);
    if (share->waiting) { /* else a place is on its way already, and is given back when it comes */
        share->waiting--;
        admission->waiting--;
    }
    unlock(admission);
}

void admission_give_back(struct admission_queue *queue) {
    struct admission *admission = queue->admission;
    int served;

    if (!admission)
        return;
    lock(admission);
    admission->in_use--;
    IN_ORDER();
    admission->share[queue->worker].held--;
    served = grant(admission);
    unlock(admission);
    if (served == queue->worker)
        ev_feed_event(queue->loop, &queue->wake_watcher, EV_CUSTOM);
    else if (served >= 0)
        wake(admission, served);
}
