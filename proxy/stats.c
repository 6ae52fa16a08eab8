/* SPDX-License-Identifier: MIT */
#include "stats.h"

#include "clock.h"
#include "log.h"
#include "shared_memory.h"

#include <stdlib.h>
#include <string.h>

static const char *const close_reasons[] = {
#define X(name, text) #name,
    CLOSE_REASONS(X)
#undef X
};

const char *close_reason_name(enum close_reason reason) {
    return close_reasons[reason];
}

void stats_init(struct stats *stats, int workers, int slots, uint64_t top_clients) {
    *stats = (struct stats){.workers = workers, .slots = slots, .top_clients = top_clients};
    stats->master = shared_memory_new(sizeof *stats->master);
    stats->ended = shared_memory_new((size_t)workers * sizeof *stats->ended);
    stats->process = shared_memory_new((size_t)slots * sizeof *stats->process);
    stats->worker_of = calloc((size_t)slots, sizeof *stats->worker_of);
    stats->clients = top_clients ? calloc((size_t)slots, sizeof *stats->clients) : NULL;
    if (!stats->worker_of || (top_clients && !stats->clients))
        fail(EXIT_FAILED, "statistics: out of memory");
    for (int slot = 0; slot < slots; slot++) {
        stats->process[slot].worker = stats->worker_of[slot] = -1;
        if (top_clients)
            client_table_init(&stats->clients[slot], client_table_size(top_clients));
    }
    frontend_stats_init(&stats->frontends, slots);
    stats->master->started_unix_ns = realtime_ns();
}

void stats_begin(struct stats *stats, int slot, int worker) {
    stats->process[slot].worker = stats->worker_of[slot] = worker;
}

/* Counters move: whoever reads meanwhile would see them twice or not at all, and begins again. */
static void begin_move(struct stats_master *master) {
    __atomic_store_n(&master->sequence, master->sequence + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void end_move(struct stats_master *master) {
    __atomic_store_n(&master->sequence, master->sequence + 1, __ATOMIC_RELEASE);
}

void stats_end(struct stats *stats, int slot) {
    struct stats_process *process = &stats->process[slot];
    struct worker_counters *counters = &process->counters;
    uint64_t *from = (uint64_t *)(void *)counters, *to, open = counters->connections_accepted;

    if (stats->worker_of[slot] < 0)
        return;
    to = (uint64_t *)(void *)&stats->ended[stats->worker_of[slot]];
    begin_move(stats->master);
    for (int reason = 0; reason < CLOSE_REASON_COUNT; reason++)
        open -= counters->closed[reason];
    counters->closed[CLOSE_worker_died] += open;
    for (size_t i = 0; i < sizeof *counters / sizeof *from; i++)
        to[i] += from[i];
    memset(counters, 0, sizeof *counters);
    frontend_stats_end(&stats->frontends, slot);
    process->worker = stats->worker_of[slot] = -1;
    end_move(stats->master);
}
