/* SPDX-License-Identifier: MIT */
#include "worker.h"

#include "client.h"
#include "clock.h"
#include "log.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#define SWEEP_S 0.02

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

static void set_phase_timer(struct worker *worker) {
    uint64_t now_ns = monotonic_ns();

    ev_timer_stop(worker->loop, &worker->phase_end);
    if (worker->phase == PHASE_DRAIN || worker->phase_ends_ns == UINT64_MAX)
        return;
    ev_now_update(worker->loop);
    ev_timer_set(&worker->phase_end,
                 worker->phase_ends_ns > now_ns ? (double)(worker->phase_ends_ns - now_ns) / 1e9 : 0., 0.);
    ev_timer_start(worker->loop, &worker->phase_end);
}

/* For a worker that nothing else wakes up at the end of its phase. */
static void phase_may_end(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct worker *worker = timer->data;

    worker_now(worker);
    set_phase_timer(worker);
}

/* SIGTERM comes from the master: the measured phase ends now. */
static void stop_early(struct ev_loop *loop, ev_signal *signal, int events) {
    (void)events;
    struct worker *worker = signal->data;
    uint64_t now_ns = worker_now(worker);

    if (worker->phase == PHASE_WARMUP)
        enter_phase(worker, PHASE_DRAIN, now_ns + DRAIN_NS);
    else if (worker->phase == PHASE_MEASURED)
        end_measuring(worker, now_ns);
    if (ev_is_active(&worker->begin))
        ev_break(loop, EVBREAK_ALL);
}

/* ---- Slots ---- */

static void begin(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct worker *worker = timer->data;

    worker_now(worker);
    set_phase_timer(worker);
    ev_timer_start(worker->loop, &worker->sweep);
    for (int i = 0; i < worker->client_count; i++)
        client_begin(&worker->clients[i]);
}

/* Deadlines: one timer for all slots is cheaper than one each, and none needs to be met to the millisecond. */
static void sweep(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct worker *worker = timer->data;
    uint64_t now_ns = worker_now(worker);
    bool give_up = worker->phase == PHASE_DRAIN && now_ns >= worker->phase_ends_ns;

    for (int i = 0; i < worker->client_count; i++)
        client_check_deadline(&worker->clients[i], now_ns, give_up);
}

void worker_client_done(struct worker *worker) {
    if (--worker->clients_left > 0)
        return;
    /* With a limit, the measured phase is over when the last transaction is. */
    if (worker->phase == PHASE_MEASURED)
        end_measuring(worker, worker->last_done_ns ? worker->last_done_ns : worker->window->measured_from_ns);
    ev_break(worker->loop, EVBREAK_ALL);
}

void worker_no_target(struct worker *worker, int target, int error_number) {
    worker->start->refused_errno = error_number;
    worker->start->refused_target = target + 1;
    ev_break(worker->loop, EVBREAK_ALL);
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
    uint64_t now_ns;

    worker->plan = load->plan;
    worker->window = &load->window;
    worker->start = load->start;
    worker->tally = &load->tallies[index];
    worker->engine = load->plan->engine;
    worker->loop = loop;
    worker->index = index;
    pacing_init(&worker->pacing, load->plan->limit, index, (int)load->plan->workers);
    enter_phase(worker, PHASE_WARMUP, worker->window->measured_from_ns);
    make_clients(worker);
    ev_signal_init(&worker->terminate, stop_early, SIGTERM);
    worker->terminate.data = worker;
    ev_signal_start(loop, &worker->terminate);
    now_ns = monotonic_ns();
    ev_now_update(loop);
    ev_timer_init(&worker->begin, begin,
                  worker->window->start_ns > now_ns ? (double)(worker->window->start_ns - now_ns) / 1e9 : 0., 0.);
    worker->begin.data = worker;
    ev_timer_start(loop, &worker->begin);
    ev_timer_init(&worker->sweep, sweep, SWEEP_S, SWEEP_S);
    worker->sweep.data = worker;
    ev_init(&worker->phase_end, phase_may_end);
    worker->phase_end.data = worker;
}

int worker_run(int index, struct ev_loop *loop, const struct load *load) {
    static struct worker worker;

    signal(SIGINT, SIG_IGN); /* Ctrl-C reaches all processes of a terminal: the master says when to stop */
    init(&worker, index, loop, load);
    ev_run(loop, 0);
    for (int i = 0; i < worker.client_count; i++)
        client_end(&worker.clients[i]);
    worker.tally->ended = true;
    free(worker.clients);
    return 0;
}
