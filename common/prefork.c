/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "prefork.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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

/* In the new process: what both kinds begin with. */
static struct ev_loop *begin_process(struct prefork *pool) {
    static ev_io lifeline;
    struct ev_loop *loop;

    close(pool->lifeline[1]);
    close(pool->heard[0]);
    ev_loop_destroy(pool->loop); /* its epoll is the master's: what is done to it here would be done there */
    loop = ev_loop_new(EVFLAG_AUTO);
    if (!loop)
        fail(EXIT_FAILED, "no event loop");
    ev_io_init(&lifeline, lost_master, pool->lifeline[0], EV_READ);
    ev_io_start(loop, &lifeline);
    ev_unref(loop); /* alone, it does not keep the loop running */
    return loop;
}

/* NULL: it is a worker. */
static const struct prefork_service *service_of(const struct prefork_worker *worker) {
    const struct prefork *pool = worker->pool;

    for (int i = 0; i < pool->services; i++)
        if (worker == &pool->service_process[i])
            return &pool->service[i];
    return NULL;
}

_Noreturn static void become_worker(struct prefork_worker *worker) {
    struct prefork *pool = worker->pool;
    const struct prefork_service *service = service_of(worker);
    struct ev_loop *loop = begin_process(pool);

    if (service)
        _exit(service->run(loop, pool->context));
    if (pool->cpus && pool->cpus->count && !cpu_list_pin(pool->cpus, worker->index))
        fail(EXIT_FAILED, "worker %d: cannot run on CPU %d: %s", worker->index,
             pool->cpus->cpu[worker->index % pool->cpus->count], strerror(errno));
    _exit(pool->run(worker, loop, pool->context));
}

static void start_worker_or_retry(struct prefork_worker *worker);

static void respawn_now(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct prefork_worker *worker = timer->data;

    worker->waiting = false;
    if (!worker->pool->ending)
        start_worker_or_retry(worker);
}

static void respawn_after(struct prefork_worker *worker, ev_tstamp delay_s) {
    worker->waiting = true;
    ev_timer_init(&worker->respawn, respawn_now, delay_s, 0.);
    worker->respawn.data = worker;
    ev_timer_start(worker->pool->loop, &worker->respawn);
}

bool prefork_is_settled(const struct prefork *pool) {
    for (int slot = 0; slot < pool->workers * pool->generations; slot++)
        if (pool->worker[slot].told)
            return false;
    return true;
}

static void has_stepped_back(struct prefork_worker *worker) {
    struct prefork *pool = worker->pool;

    if (!worker->told)
        return;
    worker->told = false;
    if (pool->settled && !pool->ending && prefork_is_settled(pool))
        pool->settled(pool->context);
}

static void hear(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop, (void)events;
    struct prefork *pool = watcher->data;
    pid_t pid;

    while (read(pool->heard[0], &pid, sizeof pid) == sizeof pid)
        for (int slot = 0; slot < pool->workers * pool->generations; slot++)
            if (pool->worker[slot].pid == pid)
                has_stepped_back(&pool->worker[slot]);
}

void prefork_step_back(const struct prefork_worker *self) {
    pid_t pid = getpid();

    /* The master reads it, or has ended, and so will this worker. */
    if (write(self->pool->heard[1], &pid, sizeof pid) != sizeof pid)
        log_error("worker %d: the master does not hear: %s", self->index, strerror(errno));
}

static void describe(const struct prefork_worker *worker, char *text, size_t size) {
    const struct prefork_service *service = service_of(worker);

    if (service)
        snprintf(text, size, "%s", service->name);
    else
        snprintf(text, size, "worker %d", worker->index);
}

static void worker_ended(struct ev_loop *loop, ev_child *watcher, int events) {
    (void)events;
    struct prefork_worker *worker = watcher->data;
    struct prefork *pool = worker->pool;
    bool is_service = service_of(worker) != NULL;
    ev_tstamp age = ev_now(loop) - worker->started;
    char name[32];

    describe(worker, name, sizeof name);
    ev_child_stop(loop, watcher);
    ev_timer_stop(loop, &worker->deadline);
    worker->pid = 0;
    has_stepped_back(worker);
    if (WIFSIGNALED(watcher->rstatus) && !pool->ending)
        log_error("%s killed by signal %d", name, WTERMSIG(watcher->rstatus));
    else if (WEXITSTATUS(watcher->rstatus) && !pool->ending)
        log_error("%s ended with status %d", name, WEXITSTATUS(watcher->rstatus));
    if (!is_service) {
        pool->running--;
        if (pool->ended)
            pool->ended(worker, watcher->rstatus, pool->context);
        if (pool->running == 0 && (pool->ending || !pool->respawn))
            ev_break(loop, EVBREAK_ALL);
    }
    if (pool->respawn && !pool->ending && !worker->retired)
        respawn_after(worker, age < SHORT_LIFE_S ? SHORT_LIFE_S : 0.);
}

/* In a new worker: libev's signals are forgotten; the mask is as it was, but for what the worker has to unblock. */
static void restore_signals(struct prefork_worker *worker, sigset_t *mask) {
    forget_signals(worker->pool);
    if (worker->pool->workers_take_signals && !service_of(worker)) {
        sigaddset(mask, SIGTERM);
        sigaddset(mask, SIGHUP);
    }
    sigprocmask(SIG_SETMASK, mask, NULL);
}

/* The name is there before the process is, so that nobody ever takes it for a worker. NULL: that of its parent. */
static pid_t fork_as(const char *name) {
    char own[16]; /* prctl(2) */
    pid_t pid;

    if (!name)
        return fork();
    prctl(PR_GET_NAME, own);
    prctl(PR_SET_NAME, name);
    pid = fork();
    if (pid != 0)
        prctl(PR_SET_NAME, own);
    return pid;
}

/* False with errno set: there is no new process. */
static bool start_worker(struct prefork_worker *worker) {
    struct prefork *pool = worker->pool;
    const struct prefork_service *service = service_of(worker);
    sigset_t all, before;
    pid_t pid;

    if (!service && pool->starting)
        pool->starting(worker, pool->context);
    /* A signal that comes before the child has forgotten the master's handlers would be swallowed by them. */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid = fork_as(service ? service->name : NULL);
    if (pid == 0) {
        restore_signals(worker, &before);
        become_worker(worker);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid < 0) {
        int error = errno;
        if (!service && pool->ended)
            pool->ended(worker, 0, pool->context);
        errno = error;
        return false;
    }
    worker->pid = pid;
    worker->started = ev_now(pool->loop);
    if (!service)
        pool->running++;
    ev_child_init(&worker->watcher, worker_ended, pid, 0);
    worker->watcher.data = worker;
    ev_child_start(pool->loop, &worker->watcher);
    return true;
}

static void start_worker_or_retry(struct prefork_worker *worker) {
    char name[32];

    if (start_worker(worker))
        return;
    describe(worker, name, sizeof name);
    log_error("%s: fork: %s", name, strerror(errno));
    respawn_after(worker, SHORT_LIFE_S);
}

static struct prefork_worker *find_free_slot(const struct prefork *pool) {
    for (int slot = 0; slot < pool->workers * pool->generations; slot++)
        if (!pool->worker[slot].pid && !pool->worker[slot].waiting)
            return &pool->worker[slot];
    return NULL;
}

/* Forks a worker for each index. False with errno set: some may be there already, with the generation's number. */
static bool start_generation(struct prefork *pool) {
    pool->generation++;
    for (int index = 0; index < pool->workers; index++) {
        struct prefork_worker *worker = find_free_slot(pool);
        if (!worker) {
            errno = EAGAIN;
            return false;
        }
        worker->index = index;
        worker->generation = pool->generation;
        worker->retired = false;
        if (!start_worker(worker))
            return false;
    }
    return true;
}

void prefork_start(struct prefork *pool, struct ev_loop *loop) {
    int slots;

    if (!pool->generations)
        pool->generations = 1;
    slots = pool->workers * pool->generations;
    pool->loop = loop;
    pool->worker = calloc((size_t)slots, sizeof *pool->worker);
    if (!pool->worker)
        fail(EXIT_FAILED, "workers: out of memory");
    if (pipe2(pool->lifeline, O_CLOEXEC) != 0 || pipe2(pool->heard, O_CLOEXEC | O_NONBLOCK) != 0)
        fail(EXIT_FAILED, "pipe: %s", strerror(errno));
    ev_io_init(&pool->hears, hear, pool->heard[0], EV_READ);
    pool->hears.data = pool;
    ev_io_start(loop, &pool->hears);
    watch_signals(pool);
    for (int slot = 0; slot < slots; slot++) {
        pool->worker[slot].pool = pool;
        pool->worker[slot].slot = slot;
    }
    if (!start_generation(pool))
        fail(EXIT_FAILED, "fork: %s", strerror(errno));
    for (int i = 0; i < pool->services; i++) {
        pool->service_process[i].pool = pool;
        if (!start_worker(&pool->service_process[i]))
            fail(EXIT_FAILED, "fork: %s", strerror(errno));
    }
}

static void kill_now(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct prefork_worker *worker = timer->data;

    log_error("worker %d: has not drained in time: killed", worker->index);
    kill(worker->pid, SIGKILL);
}

/* Tells a worker that runs to come to its end. */
static void send_end(struct prefork_worker *worker, int signal_number) {
    struct prefork *pool = worker->pool;

    kill(worker->pid, signal_number);
    if (!pool->drain_limit_s || ev_is_active(&worker->deadline))
        return;
    ev_timer_init(&worker->deadline, kill_now, pool->drain_limit_s, 0.);
    worker->deadline.data = worker;
    ev_timer_start(pool->loop, &worker->deadline);
}

static void retire(struct prefork_worker *worker) {
    if (worker->waiting)
        ev_timer_stop(worker->pool->loop, &worker->respawn);
    worker->waiting = false;
    if (worker->pid && !worker->retired) {
        worker->told = true;
        send_end(worker, SIGHUP);
    }
    worker->retired = true;
}

static void tell_renewed(struct prefork *pool, bool is_there) {
    if (pool->renewed)
        pool->renewed(is_there, pool->context);
}

const char *prefork_renew(struct prefork *pool) {
    static char reason[96];
    int slots = pool->workers * pool->generations, taken = 0;
    bool renewed;
    int error;

    for (int slot = 0; slot < slots; slot++)
        taken += pool->worker[slot].pid || pool->worker[slot].waiting;
    if (taken + pool->workers > slots) {
        tell_renewed(pool, false);
        snprintf(reason, sizeof reason, "%d processes of earlier generations still drain", taken - pool->workers);
        return reason;
    }
    renewed = start_generation(pool);
    error = errno;
    tell_renewed(pool, renewed);
    /* Those who retire are the old ones, or, after a failure, the new: they may have taken connections meanwhile. */
    for (int slot = 0; slot < slots; slot++)
        if ((pool->worker[slot].generation == pool->generation) != renewed)
            retire(&pool->worker[slot]);
    if (renewed)
        return NULL;
    snprintf(reason, sizeof reason, "fork: %s", strerror(error));
    return reason;
}

void prefork_end(struct prefork *pool, int signal_number) {
    pool->ending = true;
    for (int slot = 0; slot < pool->workers * pool->generations; slot++)
        if (pool->worker[slot].pid)
            send_end(&pool->worker[slot], signal_number);
    if (pool->running == 0)
        ev_break(pool->loop, EVBREAK_ALL);
}

void prefork_finish(struct prefork *pool) {
    for (int i = 0; i < pool->services; i++) {
        pid_t pid = pool->service_process[i].pid;
        if (pid && kill(pid, SIGKILL) == 0)
            waitpid(pid, NULL, 0);
    }
}
