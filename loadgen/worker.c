/* SPDX-License-Identifier: MIT */
#include "worker.h"

#include "client.h"
#include "clock.h"
#include "log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define SWEEP_NS (20 * NS_PER_MS)

static uint64_t timeval_ns(struct timeval time) {
    return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_usec * NS_PER_US;
}

static void read_cpu(uint64_t *user_ns, uint64_t *system_ns) {
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    *user_ns = timeval_ns(usage.ru_utime);
    *system_ns = timeval_ns(usage.ru_stime);
}

/* ---- Phases ---- */

static void enter_phase(struct worker *worker, enum phase phase, uint64_t ends_ns) {
    worker->phase = phase;
    worker->counters = &worker->tally->phase[phase];
    worker->phase_ends_ns = ends_ns;
}

static void begin_measuring(struct worker *worker) {
    read_cpu(&worker->user_ns, &worker->system_ns);
    worker->tally->measured_from_ns = worker->window->measured_from_ns;
    enter_phase(worker, PHASE_MEASURED, worker->window->measured_until_ns);
}

static void end_measuring(struct worker *worker, uint64_t now_ns) {
    uint64_t user_ns, system_ns;

    read_cpu(&user_ns, &system_ns);
    worker->tally->user_ns = user_ns - worker->user_ns;
    worker->tally->system_ns = system_ns - worker->system_ns;
    worker->tally->measured_until_ns = now_ns;
    worker->tally->open_at_end = worker->tally->open_now;
    enter_phase(worker, PHASE_DRAIN, now_ns + DRAIN_NS);
}

uint64_t worker_now(struct worker *worker) {
    uint64_t now_ns = monotonic_ns();

    if (now_ns < worker->phase_ends_ns)
        return now_ns;
    if (worker->phase == PHASE_WARMUP)
        begin_measuring(worker);
    if (worker->phase == PHASE_MEASURED && now_ns >= worker->phase_ends_ns)
        end_measuring(worker, worker->phase_ends_ns);
    return now_ns;
}

/* ---- Slots ---- */

void worker_list(struct client *client, struct client_list *list) {
    if (client->list)
        TAILQ_REMOVE(client->list, client, others);
    client->list = list;
    if (list)
        TAILQ_INSERT_TAIL(list, client, others);
}

/* The slots begin one after the other while the ramp lasts, over all workers. */
static uint64_t begin_ns(const struct worker *worker, int client) {
    const struct plan *plan = worker->plan;
    double share = (double)worker->clients[client].index / (double)plan->connections;

    return worker->window->start_ns + (uint64_t)(share * (double)plan->pacing.ramp_ns);
}

/* Those that are due; all when there is nothing more to come, so that they too may end. */
static void begin_clients(struct worker *worker) {
    uint64_t now_ns = worker_now(worker);
    bool all = worker->phase == PHASE_DRAIN;

    while (worker->clients_begun < worker->client_count && (all || begin_ns(worker, worker->clients_begun) <= now_ns))
        client_begin(&worker->clients[worker->clients_begun++]);
}

/* Those that wait go on, the first to take the next arrival first, while one is due or none is to come. */
static void wake_waiting(struct worker *worker, bool all) {
    uint64_t now_ns = worker_now(worker);
    struct client *last = TAILQ_LAST(&worker->waiting, client_list), *client;

    worker->waking = true;
    while ((client = TAILQ_FIRST(&worker->waiting)) && (all || pacing_next_ns(&worker->pacing) <= now_ns)) {
        worker_list(client, &worker->busy); /* so that it goes to the end if it waits again */
        client_wake(client);
        if (client == last)
            break;
    }
    worker->waking = false;
}

/* Deadlines: one timer for all slots is cheaper than one each, and none needs to be met to the millisecond. */
static void sweep(struct worker *worker, uint64_t now_ns) {
    bool give_up = worker->phase == PHASE_DRAIN && now_ns >= worker->phase_ends_ns;
    struct client *next;

    if (pacing_is_exhausted(&worker->pacing, worker->phase, now_ns))
        wake_waiting(worker, true);
    for (struct client *client = TAILQ_FIRST(&worker->busy); client; client = next) {
        next = TAILQ_NEXT(client, others); /* a slot moves itself at most */
        client_check_deadline(client, now_ns, give_up);
    }
    linger_sweep(worker, now_ns, give_up);
    worker->sweep_ns = now_ns + SWEEP_NS;
    ev_run(worker->loop, EVRUN_NOWAIT);
}

/* ---- Endings ---- */

/* SIGTERM comes from the master: the measured phase ends now. */
static void stop_early(struct ev_loop *loop, ev_signal *signal, int events) {
    (void)loop, (void)events;
    struct worker *worker = signal->data;
    uint64_t now_ns = worker_now(worker);

    if (worker->phase == PHASE_WARMUP)
        enter_phase(worker, PHASE_DRAIN, now_ns + DRAIN_NS);
    else if (worker->phase == PHASE_MEASURED)
        end_measuring(worker, now_ns);
    pacing_stop(&worker->pacing, now_ns);
    if (worker->clients_begun == 0)
        worker->ended = true;
}

void worker_client_done(struct worker *worker) {
    if (--worker->clients_left > 0)
        return;
    /* With a limit, the measured phase is over when the last transaction is. */
    if (worker->phase == PHASE_MEASURED)
        end_measuring(worker, worker->last_done_ns ? worker->last_done_ns : worker->window->measured_from_ns);
}

void worker_no_target(struct worker *worker, int target, int error_number) {
    worker->start->refused_errno = error_number;
    worker->start->refused_target = target + 1;
    worker->ended = true;
}

/* ---- Counting ---- */

void worker_count_op(struct worker *worker, uint64_t now_ns) {
    worker->last_done_ns = now_ns;
    if (worker->phase == PHASE_MEASURED)
        worker->tally->half_ops[now_ns >= worker->window->middle_ns]++;
}

void worker_count_latency(struct worker *worker, enum latency latency, uint64_t duration_ns) {
    if (worker->phase == PHASE_MEASURED)
        latency_histogram_record(&worker->tally->latency[latency], duration_ns);
}

/* ---- Life ---- */

static void make_clients(struct worker *worker) {
    int workers = (int)worker->plan->workers, all = (int)worker->plan->connections;
    /* Slots are dealt out in turn, so that each worker's are spread over the whole range. */
    int count = all / workers + (worker->index < all % workers);

    worker->clients = calloc((size_t)count, sizeof *worker->clients);
    if (!worker->clients)
        fail(EXIT_FAILED, "worker %d: out of memory for %d connections", worker->index, count);
    worker->client_count = worker->clients_left = count;
    for (int i = 0; i < count; i++)
        client_init(&worker->clients[i], worker, worker->index + i * workers);
}

static void init(struct worker *worker, int index, struct ev_loop *loop, const struct load *load) {
    worker->plan = load->plan;
    worker->window = &load->window;
    worker->start = load->start;
    worker->tally = &load->tallies[index];
    worker->engine = load->plan->engine;
    worker->loop = loop;
    worker->index = index;
    pacing_init(&worker->pacing, &load->plan->pacing, &load->window, index, (int)load->plan->workers);
    enter_phase(worker, PHASE_WARMUP, worker->window->measured_from_ns);
    TAILQ_INIT(&worker->busy);
    TAILQ_INIT(&worker->waiting);
    make_clients(worker);
    linger_init(worker, worker->plan->lingerers);
    worker->keeps_sockets = spare_sockets_serve(worker->plan);
    if (!poller_open(&worker->poller))
        fail(EXIT_FAILED, "worker %d: no epoll: %s", worker->index, strerror(errno));
    ev_signal_init(&worker->terminate, stop_early, SIGTERM);
    worker->terminate.data = worker;
    ev_signal_start(loop, &worker->terminate);
}

static uint64_t earlier(uint64_t one, uint64_t other) {
    return one < other ? one : other;
}

/* When there is something to do even if nothing happens. */
static uint64_t next_moment(const struct worker *worker) {
    uint64_t next_ns = worker->sweep_ns;

    if (worker->clients_begun < worker->client_count)
        next_ns = earlier(next_ns, begin_ns(worker, worker->clients_begun));
    if (!TAILQ_EMPTY(&worker->waiting))
        next_ns = earlier(next_ns, pacing_next_ns(&worker->pacing));
    return worker->phase == PHASE_DRAIN ? next_ns : earlier(next_ns, worker->phase_ends_ns);
}

/*
 * What is ready now, or will be. With --coalesce that is taken in batches: as long as each brings something, the next
 * is a while later, and nothing that happens meanwhile wakes anybody up.
 */
static int wait_for_events(struct worker *worker, void *ready[POLLER_EVENTS_MAX]) {
    uint64_t coalesce_ns = worker->plan->coalesce_ns;
    int count;

    if (!worker->batching) {
        count = poller_wait(&worker->poller, next_moment(worker), ready);
        if (count == 0 || coalesce_ns == 0)
            return count;
    }
    if (!worker->batch_was_full) {
        const struct timespec pause = {.tv_sec = 0, .tv_nsec = (long)coalesce_ns}; /* --coalesce is below a second */
        nanosleep(&pause, NULL);
    }
    count = poller_wait(&worker->poller, 0, ready);
    worker->batch_was_full = count == POLLER_EVENTS_MAX;
    worker->batching = count > 0;
    return count;
}

static void run(struct worker *worker) {
    void *ready[POLLER_EVENTS_MAX];

    while (!worker->ended && (worker->clients_left > 0 || !linger_is_empty(worker))) {
        int count = wait_for_events(worker, ready);
        uint64_t now_ns;
        for (int i = 0; i < count; i++)
            client_ready(ready[i]);
        now_ns = worker_now(worker);
        if (worker->clients_begun < worker->client_count)
            begin_clients(worker);
        /* A slot that becomes free asks for the next arrival itself: these are for those that have nothing to do. */
        if (!TAILQ_EMPTY(&worker->waiting) && pacing_next_ns(&worker->pacing) <= now_ns)
            wake_waiting(worker, false);
        if (now_ns >= worker->sweep_ns)
            sweep(worker, now_ns);
    }
}

int worker_run(int index, struct ev_loop *loop, const struct load *load) {
    static struct worker worker;

    signal(SIGINT, SIG_IGN); /* Ctrl-C reaches all processes of a terminal: the master says when to stop */
    init(&worker, index, loop, load);
    run(&worker);
    for (int i = 0; i < worker.client_count; i++)
        client_end(&worker.clients[i]);
    linger_end(&worker);
    spare_sockets_end(&worker.spare_sockets);
    poller_close(&worker.poller);
    worker.tally->arrivals.never_begun = pacing_never_taken(&worker.pacing);
    worker.tally->ended = true;
    free(worker.clients);
    return 0;
}
