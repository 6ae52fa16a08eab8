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
#include <sys/timerfd.h>

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
    uint64_t now_ns = worker_now(worker), next_ns;
    bool all = worker->phase == PHASE_DRAIN;

    ev_timer_stop(worker->loop, &worker->begin);
    while (worker->clients_begun < worker->client_count && (all || begin_ns(worker, worker->clients_begun) <= now_ns))
        client_begin(&worker->clients[worker->clients_begun++]);
    if (worker->clients_begun == worker->client_count)
        return;
    next_ns = begin_ns(worker, worker->clients_begun);
    now_ns = monotonic_ns();
    ev_now_update(worker->loop);
    ev_timer_set(&worker->begin, next_ns > now_ns ? (double)(next_ns - now_ns) / 1e9 : 0., 0.);
    ev_timer_start(worker->loop, &worker->begin);
}

static void begin(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct worker *worker = timer->data;

    if (!ev_is_active(&worker->sweep)) {
        worker_now(worker);
        set_phase_timer(worker);
        ev_timer_start(worker->loop, &worker->sweep);
    }
    begin_clients(worker);
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
static void sweep(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct worker *worker = timer->data;
    uint64_t now_ns = worker_now(worker);
    bool give_up = worker->phase == PHASE_DRAIN && now_ns >= worker->phase_ends_ns;
    struct client *next;

    if (worker->phase == PHASE_DRAIN && worker->clients_begun < worker->client_count)
        begin_clients(worker);
    if (pacing_is_exhausted(&worker->pacing, worker->phase, now_ns))
        wake_waiting(worker, true);
    for (struct client *client = TAILQ_FIRST(&worker->busy); client; client = next) {
        next = TAILQ_NEXT(client, others); /* a slot moves itself at most */
        client_check_deadline(client, now_ns, give_up);
    }
}

/* ---- Arrivals ---- */

static void set_arrival_timer(struct worker *worker, uint64_t due_ns) {
    const struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(due_ns / NS_PER_S), .tv_nsec = (long)(due_ns % NS_PER_S)}};

    timerfd_settime(worker->arrival_fd, TFD_TIMER_ABSTIME, &when, NULL);
    worker->arrival_set_ns = due_ns;
}

/* Before the loop waits: the timer is for those who have nothing to do. A slot that becomes free asks for itself. */
static void watch_arrivals(struct ev_loop *loop, ev_prepare *prepare, int events) {
    (void)loop, (void)events;
    struct worker *worker = prepare->data;
    uint64_t due_ns = TAILQ_EMPTY(&worker->waiting) ? UINT64_MAX : pacing_next_ns(&worker->pacing);

    if (due_ns == UINT64_MAX)
        due_ns = 0; /* never */
    if (due_ns != worker->arrival_set_ns)
        set_arrival_timer(worker, due_ns);
}

static void arrival_is_due(struct ev_loop *loop, ev_io *io, int events) {
    (void)loop, (void)events;
    struct worker *worker = io->data;

    worker->arrival_set_ns = UINT64_MAX; /* it went off: setting it again makes it wait again */
    wake_waiting(worker, false);
}

static void init_arrivals(struct worker *worker) {
    worker->arrival_fd = -1;
    if (worker->plan->pacing.arrivals == ARRIVALS_NONE)
        return;
    worker->arrival_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (worker->arrival_fd < 0)
        fail(EXIT_FAILED, "worker %d: no timer: %s", worker->index, strerror(errno));
    ev_io_init(&worker->arrival_due, arrival_is_due, worker->arrival_fd, EV_READ);
    worker->arrival_due.data = worker;
    ev_io_start(worker->loop, &worker->arrival_due);
    ev_prepare_init(&worker->arrival_watch, watch_arrivals);
    worker->arrival_watch.data = worker;
    ev_prepare_start(worker->loop, &worker->arrival_watch);
}

/* ---- Endings ---- */

/* SIGTERM comes from the master: the measured phase ends now. */
static void stop_early(struct ev_loop *loop, ev_signal *signal, int events) {
    (void)events;
    struct worker *worker = signal->data;
    uint64_t now_ns = worker_now(worker);

    if (worker->phase == PHASE_WARMUP)
        enter_phase(worker, PHASE_DRAIN, now_ns + DRAIN_NS);
    else if (worker->phase == PHASE_MEASURED)
        end_measuring(worker, now_ns);
    pacing_stop(&worker->pacing, now_ns);
    if (worker->clients_begun == 0)
        ev_break(loop, EVBREAK_ALL);
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
    pacing_init(&worker->pacing, &load->plan->pacing, &load->window, index, (int)load->plan->workers);
    enter_phase(worker, PHASE_WARMUP, worker->window->measured_from_ns);
    TAILQ_INIT(&worker->busy);
    TAILQ_INIT(&worker->waiting);
    make_clients(worker);
    init_arrivals(worker);
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
    worker.tally->arrivals.never_begun = pacing_never_taken(&worker.pacing);
    worker.tally->ended = true;
    free(worker.clients);
    return 0;
}
