/* SPDX-License-Identifier: MIT */
#include "master.h"

#include "clock.h"
#include "log.h"
#include "prefork.h"
#include "progress.h"
#include "report.h"
#include "shared_memory.h"
#include "worker.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* Time for the workers to be there before the load begins: they all begin at once. */
#define LEAD_NS        (30 * NS_PER_MS)
#define LEAD_WORKER_NS (3 * NS_PER_MS)
/* A worker that has not ended so long after its drain does not react any more. */
#define LATE_NS (2 * NS_PER_S)

struct master {
    struct load load;
    struct prefork pool;
    struct progress progress;
    struct ev_loop *loop;
    ev_timer second, late;
    uint64_t second_ns; /* when the second that goes on ends */
    bool interrupted;
    char lost[96]; /* what befell a worker; empty: nothing */
};

static void set_window(struct load *load) {
    const struct plan *plan = load->plan;
    struct window *window = &load->window;
    uint64_t now_ns = monotonic_ns(), date_ns = realtime_ns();

    window->start_ns = now_ns + LEAD_NS + plan->workers * LEAD_WORKER_NS;
    window->ramped_ns = window->start_ns + plan->pacing.ramp_ns;
    window->measured_from_ns = window->ramped_ns + plan->warmup_ns;
    window->measured_until_ns = plan->duration_ns ? window->measured_from_ns + plan->duration_ns : UINT64_MAX;
    window->middle_ns = plan->duration_ns ? window->measured_from_ns + plan->duration_ns / 2 : UINT64_MAX;
    window->started_unix_ns = date_ns + (window->measured_from_ns - now_ns);
}

/* ---- The live second ---- */

static const char *phase_before(const struct window *window, uint64_t now_ns) {
    if (now_ns <= window->ramped_ns)
        return "ramp";
    if (now_ns <= window->measured_from_ns)
        return phase_name(PHASE_WARMUP);
    return phase_name(now_ns <= window->measured_until_ns ? PHASE_MEASURED : PHASE_DRAIN);
}

/* Seconds are counted from the beginning of the measured phase, which also ends one, as its own end does. */
static uint64_t next_telling(const struct window *window, uint64_t now_ns) {
    int64_t since = (int64_t)(now_ns - window->measured_from_ns);
    int64_t second = (int64_t)NS_PER_S;
    int64_t next = (since >= 0 ? since / second + 1 : -((-since - 1) / second)) * second;
    uint64_t next_ns = window->measured_from_ns + (uint64_t)next;

    if (next_ns <= window->start_ns)
        next_ns += NS_PER_S; /* nothing has happened before */
    if (now_ns < window->measured_until_ns && next_ns > window->measured_until_ns)
        next_ns = window->measured_until_ns;
    return next_ns;
}

static void set_second(struct master *master) {
    uint64_t now_ns = monotonic_ns(), next_ns = next_telling(&master->load.window, now_ns);

    master->second_ns = next_ns;
    ev_now_update(master->loop);
    /* A hair late rather than early: an early one would belong to the second before and be told twice. */
    ev_timer_set(&master->second, (double)(next_ns - now_ns) / 1e9 + 1e-5, 0.);
    ev_timer_start(master->loop, &master->second);
}

static void every_second(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct master *master = timer->data;
    uint64_t now_ns = monotonic_ns();

    /* However late this is told, it is of the phase that was to end, or went on, at the end of the second. */
    progress_tell(&master->progress, phase_before(&master->load.window, master->second_ns), now_ns);
    set_second(master);
}

/* ---- Endings ---- */

static void late(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct master *master = timer->data;

    log_error("a worker does not end: killed");
    prefork_end(&master->pool, SIGKILL);
}

static void set_late(struct master *master, uint64_t end_ns) {
    uint64_t now_ns = monotonic_ns();
    uint64_t wait_ns = (end_ns > now_ns ? end_ns - now_ns : 0) + DRAIN_NS + LATE_NS;

    ev_timer_stop(master->loop, &master->late);
    ev_now_update(master->loop);
    ev_timer_set(&master->late, (double)wait_ns / 1e9, 0.);
    ev_timer_start(master->loop, &master->late);
}

static void stop(struct master *master) {
    prefork_end(&master->pool, SIGTERM);
    set_late(master, monotonic_ns());
}

static void signalled(int signal_number, void *context) {
    struct master *master = context;

    if (signal_number == SIGHUP)
        return;
    if (master->interrupted) { /* asked twice: at once */
        prefork_end(&master->pool, SIGKILL);
        return;
    }
    master->interrupted = true;
    stop(master);
}

static void worker_ended(const struct prefork_worker *ended, int wait_status, void *context) {
    struct master *master = context;
    int index = ended->index;
    bool start_failed = master->load.start->refused_target != 0;

    if (!master->load.tallies[index].ended || wait_status != 0) {
        if (!*master->lost && WIFSIGNALED(wait_status))
            snprintf(master->lost, sizeof master->lost, "worker %d was killed by signal %d: its part is incomplete",
                     index, WTERMSIG(wait_status));
        else if (!*master->lost)
            snprintf(master->lost, sizeof master->lost, "worker %d ended with status %d: its part is incomplete", index,
                     WEXITSTATUS(wait_status));
    }
    if ((*master->lost || start_failed) && !master->pool.ending)
        stop(master); /* what the others would measure is not what was asked for */
}

static int report(struct master *master) {
    static struct report report; /* too large for the stack */
    const struct plan *plan = master->load.plan;
    struct counters totals;

    report = (struct report){
        .load = &master->load,
        .interrupted = master->interrupted,
        .lost = *master->lost ? master->lost : NULL,
        .json_file = plan->json_file,
    };
    for (uint64_t i = 0; i < plan->workers; i++)
        tally_merge(&report.tally, &master->load.tallies[i]);
    /* A worker that died in its measured phase leaves no end of it. */
    if (report.tally.measured_from_ns && !report.tally.measured_until_ns)
        report.tally.measured_until_ns = monotonic_ns();
    if (!report_write(&report))
        return EXIT_FAILED;
    if (report.lost)
        log_error("%s", report.lost);
    totals = tally_totals(&report.tally);
    return report.lost || report.interrupted || counters_errors(&totals) ? EXIT_FAILED : EXIT_MEASURED;
}

static int run_worker(const struct prefork_worker *self, struct ev_loop *loop, void *context) {
    return worker_run(self->index, loop, &((struct master *)context)->load);
}

int master_run(const struct plan *plan) {
    static struct master master;
    const struct start *start;
    bool series_is_whole;
    int status;

    master.load.plan = plan;
    master.load.tallies = shared_memory_new(plan->workers * sizeof *master.load.tallies);
    master.load.start = shared_memory_new(sizeof *master.load.start);
    start = master.load.start;
    master.loop = ev_default_loop(EVFLAG_AUTO);
    if (!master.loop)
        fail(EXIT_FAILED, "no event loop");
    set_window(&master.load);
    progress_init(&master.progress, &master.load);
    master.pool = (struct prefork){
        .workers = (int)plan->workers,
        .cpus = &plan->cpus,
        .run = run_worker,
        .signalled = signalled,
        .ended = worker_ended,
        .context = &master,
    };
    prefork_start(&master.pool, master.loop);
    ev_init(&master.second, every_second);
    master.second.data = &master;
    if (plan->progress || plan->series_file)
        set_second(&master);
    ev_init(&master.late, late);
    master.late.data = &master;
    if (plan->duration_ns)
        set_late(&master, master.load.window.measured_until_ns);
    ev_run(master.loop, 0);
    series_is_whole = progress_end(&master.progress);
    if (start->refused_target)
        fail(EXIT_NO_TARGET, "%s: cannot connect to %s: %s", plan->target[start->refused_target - 1].url,
             plan->target[start->refused_target - 1].address_text, strerror(start->refused_errno));
    status = report(&master);
    return series_is_whole ? status : EXIT_FAILED;
}
