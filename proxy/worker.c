/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "worker.h"

#include "clock.h"
#include "connection.h"
#include "log.h"
#include "units.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * Handshakes begun one after the other run from warm caches: with eight a turn a connection cost 5 to 9 % less CPU time
 * than with four, and with one 16 to 20 % more where sessions are resumed (TLS 1.2); more than eight told no
 * difference. But those who are connected already must not wait for long meanwhile.
 */
#define ACCEPTS_A_TURN 16
#define ACCEPT_TURN_NS (2 * NS_PER_MS)
/* Without a free descriptor the listener stays readable: polling it would spin. */
#define ACCEPT_PAUSE_S 0.1

/*
 * At SIGTERM the master lets nobody begin to connect any more (address_refuse_new); who has begun is there a round trip
 * later.
 */
#define LAST_ARRIVALS_S 0.2

/* Thirty years. */
#define NEVER_S 1e9

ev_tstamp worker_now(const struct worker *worker) {
    return 2 * NEVER_S - ev_timer_remaining(worker->loop, (ev_timer *)(uintptr_t)&worker->clock);
}

static void never(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)timer, (void)events;
}

/* The doors that are not closed yet. */
static void watch_doors(struct worker *worker, bool watched) {
    for (int i = 0; i < worker->door_count; i++) {
        struct door *door = &worker->doors[i];

        if (door->listener < 0)
            continue;
        if (watched)
            ev_io_start(worker->loop, &door->watcher);
        else
            ev_io_stop(worker->loop, &door->watcher);
    }
}

static void resume_accepting(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)events;
    struct worker *worker = timer->data;

    worker->is_last_look = worker->is_closing;
    watch_doors(worker, true);
    for (int i = 0; i < worker->door_count; i++)
        if (worker->doors[i].listener >= 0)
            ev_feed_event(loop, &worker->doors[i].watcher, EV_READ);
}

static void pause_for(struct worker *worker, ev_tstamp pause_s) {
    ev_timer_stop(worker->loop, &worker->accept_pause);
    ev_timer_set(&worker->accept_pause, pause_s, 0.);
    ev_timer_start(worker->loop, &worker->accept_pause);
}

static void pause_accepting(struct worker *worker) {
    static ev_tstamp
        last_logged; /* the next pause follows at once, for as long as there is none: a line a second will do */

    if (worker_now(worker) - last_logged >= 1.) {
        last_logged = worker_now(worker);
        log_error("accept: %s: pausing for %.0f ms at a time", strerror(errno), ACCEPT_PAUSE_S * 1e3);
    }
    stats_add(&worker->counters->accept_pauses, 1);
    watch_doors(worker, false);
    pause_for(worker, ACCEPT_PAUSE_S);
}

static void end_if_drained(struct worker *worker) {
    if (worker->draining && worker->connections == 0)
        ev_break(worker->loop, EVBREAK_ALL);
}

static void close_door(struct door *door) {
    struct worker *worker = door->worker;

    ev_io_stop(worker->loop, &door->watcher);
    close(door->listener);
    door->listener = -1;
    for (int i = 0; i < worker->door_count; i++)
        if (worker->doors[i].listener >= 0)
            return;
    worker->draining = true;
    ev_timer_stop(worker->loop, &worker->accept_pause);
    end_if_drained(worker);
}

/* False: nobody is waiting, or accepting has been paused. */
static bool accept_one(struct door *door) {
    struct address client = {.length = sizeof client.sockaddr};
    int fd = accept4(door->listener, &client.sockaddr.any, &client.length, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        stats_add(&door->worker->counters->connections_accepted, 1);
        stats_add(&door->counters->connections_accepted, 1);
        connection_new(door, fd, &client);
        return true;
    }
    switch (errno) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        pause_accepting(door->worker);
        return false;
    case EAGAIN:
        if (door->worker->is_last_look)
            close_door(door);
        return false;
    default:
        return true; /* that client has gone: ECONNABORTED and the like */
    }
}

static void accept_ready(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop, (void)events;
    struct door *door = watcher->data;
    struct worker *worker = door->worker;
    uint64_t until_ns = monotonic_ns() + ACCEPT_TURN_NS;

    for (int i = 0; i < ACCEPTS_A_TURN && accept_one(door) && monotonic_ns() < until_ns; i++)
        ;
    /* Nothing would announce that nobody is left. */
    if (worker->is_last_look && !worker->draining && !ev_is_active(&worker->accept_pause))
        pause_for(worker, 0.);
}

/*
 * Clients that are in a queue already have been promised a connection: they are taken, turn by turn, and so are those
 * that come at the last moment; then the door is closed.
 */
static void close_when_empty(struct worker *worker) {
    if (worker->draining || worker->is_closing)
        return;
    worker->is_closing = true;
    if (!ev_is_active(&worker->accept_pause)) /* else there are no descriptors: it goes on when there are */
        pause_for(worker, LAST_ARRIVALS_S);
}

static void drain(struct ev_loop *loop, ev_signal *watcher, int events) {
    (void)loop, (void)events;

    close_when_empty(watcher->data);
}

/* Each queue is left to the worker that takes our place, where its frontend has one. */
static void retire(struct ev_loop *loop, ev_signal *watcher, int events) {
    (void)loop, (void)events;
    struct worker *worker = watcher->data;

    for (int i = 0; i < worker->door_count; i++)
        if (worker->doors[i].listener >= 0 && !__atomic_load_n(worker->doors[i].leaving, __ATOMIC_ACQUIRE))
            close_door(&worker->doors[i]);
    prefork_step_back(worker->self);
    close_when_empty(worker);
}

static void take_signal(struct worker *worker, ev_signal *watcher, int signal_number,
                        void (*take)(struct ev_loop *, ev_signal *, int)) {
    sigset_t mask;

    ev_signal_init(watcher, take, signal_number);
    watcher->data = worker;
    ev_signal_start(worker->loop, watcher);
    /* The master has blocked it until somebody takes it. */
    sigemptyset(&mask);
    sigaddset(&mask, signal_number);
    sigprocmask(SIG_UNBLOCK, &mask, NULL);
}

void worker_connection_ended(struct worker *worker) {
    worker->connections--;
    end_if_drained(worker);
}

int worker_run(struct worker *worker) {
    worker->admission.admitted = connection_admitted;
    worker->admission.left = connection_left_queue;
    if (!admission_queue_start(&worker->admission, worker->loop))
        fail(EXIT_FAILED, "--maxconn: %s", strerror(errno));
    worker->backends.next = (unsigned)worker->self->index;
    for (int i = 0; i < worker->door_count; i++) {
        worker->doors[i].worker = worker;
        ev_io_init(&worker->doors[i].watcher, accept_ready, worker->doors[i].listener, EV_READ);
        worker->doors[i].watcher.data = &worker->doors[i];
    }
    watch_doors(worker, true);
    ev_init(&worker->accept_pause, resume_accepting);
    worker->accept_pause.data = worker;
    ev_timer_init(&worker->clock, never, NEVER_S, 0.);
    ev_timer_start(worker->loop, &worker->clock);
    take_signal(worker, &worker->drain_watcher, SIGTERM, drain);
    take_signal(worker, &worker->retire_watcher, SIGHUP, retire);
    signal(SIGINT, SIG_IGN);
    ev_run(worker->loop, 0);
    buffer_pool_close(&worker->buffers);
    return 0;
}
