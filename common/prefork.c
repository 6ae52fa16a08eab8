/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "prefork.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A worker that does not live this long is not replaced at once: it would only die again, as fast as we can fork. */
#define SHORT_LIFE_S 1.0

static void lost_master(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop, (void)watcher, (void)events;
    _exit(EXIT_FAILED);
}

static void signalled(struct ev_loop *loop, ev_signal *watcher, int events) {
    (void)loop, (void)events;
    struct prefork *pool = watcher->data;

    if (pool->signalled)
        pool->signalled(watcher->signum, pool->context);
    else if (watcher->signum != SIGHUP)
        prefork_end(pool, watcher->signum);
}

static void watch_signals(struct prefork *pool) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        ev_signal_init(&pool->signals[i], signalled, signals[i]);
        pool->signals[i].data = pool;
        ev_signal_start(pool->loop, &pool->signals[i]);
    }
    signal(SIGPIPE, SIG_IGN);
}

/* libev lets a signal belong to one loop only: the worker's own must be able to take it. */
static void forget_signals(struct prefork *pool) {
    for (size_t i = 0; i < sizeof pool->signals / sizeof *pool->signals; i++)
        ev_signal_stop(pool->loop, &pool->signals[i]);
}

_Noreturn static void become_worker(struct prefork_worker *worker, const sigset_t *before) {
    struct prefork *pool = worker->pool;
    struct ev_loop *loop;
    ev_io lifeline;

    forget_signals(pool);
    sigprocmask(SIG_SETMASK, before, NULL);
    close(pool->lifeline[1]);
    if (pool->cpus && pool->cpus->count && !cpu_list_pin(pool->cpus, worker->index))
        fail(EXIT_FAILED, "worker %d: cannot run on CPU %d: %s", worker->index,
             pool->cpus->cpu[worker->index % pool->cpus->count], strerror(errno));
    loop = ev_loop_new(EVFLAG_AUTO);
    if (!loop)
        fail(EXIT_FAILED, "worker %d: no event loop", worker->index);
    ev_io_init(&lifeline, lost_master, pool->lifeline[0], EV_READ);
    ev_io_start(loop, &lifeline);
    ev_unref(loop); /* alone, it does not keep the loop running */
    _exit(pool->run(worker->index, loop, pool->context));
}

static void start_worker(struct prefork_worker *worker);

static void respawn_now(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct prefork_worker *worker = timer->data;

    if (!worker->pool->ending)
        start_worker(worker);
}

static void worker_ended(struct ev_loop *loop, ev_child *watcher, int events) {
    (void)events;
    struct prefork_worker *worker = watcher->data;
    struct prefork *pool = worker->pool;
    ev_tstamp age = ev_now(loop) - worker->started;

    ev_child_stop(loop, watcher);
    worker->pid = 0;
    pool->running--;
    if (WIFSIGNALED(watcher->rstatus) && !pool->ending)
        log_error("worker %d killed by signal %d", worker->index, WTERMSIG(watcher->rstatus));
    else if (WEXITSTATUS(watcher->rstatus) && !pool->ending)
        log_error("worker %d ended with status %d", worker->index, WEXITSTATUS(watcher->rstatus));
    if (pool->ended)
        pool->ended(worker->index, watcher->rstatus, pool->context);
    if (pool->running == 0 && (pool->ending || !pool->respawn))
        ev_break(loop, EVBREAK_ALL);
    if (pool->respawn && !pool->ending) {
        ev_timer_init(&worker->respawn, respawn_now, age < SHORT_LIFE_S ? SHORT_LIFE_S : 0., 0.);
        worker->respawn.data = worker;
        ev_timer_start(loop, &worker->respawn);
    }
}

static void start_worker(struct prefork_worker *worker) {
    struct prefork *pool = worker->pool;
    sigset_t all, before;
    pid_t pid;

    /* A signal that comes before the child has forgotten the master's handlers would be swallowed by them. */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid = fork();
    if (pid == 0)
        become_worker(worker, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        fail(EXIT_FAILED, "worker %d: fork: %s", worker->index, strerror(errno));
    worker->pid = pid;
    worker->started = ev_now(pool->loop);
    pool->running++;
    ev_child_init(&worker->watcher, worker_ended, pid, 0);
    worker->watcher.data = worker;
    ev_child_start(pool->loop, &worker->watcher);
}

void prefork_start(struct prefork *pool, struct ev_loop *loop) {
    pool->loop = loop;
    if (pipe2(pool->lifeline, O_CLOEXEC) != 0)
        fail(EXIT_FAILED, "pipe: %s", strerror(errno));
    watch_signals(pool);
    for (int i = 0; i < pool->workers; i++) {
        pool->worker[i].pool = pool;
        pool->worker[i].index = i;
        start_worker(&pool->worker[i]);
    }
}

void prefork_end(struct prefork *pool, int signal_number) {
    pool->ending = true;
    for (int i = 0; i < pool->workers; i++)
        if (pool->worker[i].pid)
            kill(pool->worker[i].pid, signal_number);
    if (pool->running == 0)
        ev_break(pool->loop, EVBREAK_ALL);
}
