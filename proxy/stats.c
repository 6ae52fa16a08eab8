/* SPDX-License-Identifier: MIT */
#include "stats.h"

#include "shared_memory.h"
#include "version.h"

#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>

static const struct {
    const char *name;
    const char *text;
    size_t offset;
} counters[] = {
#define X(name, text) {#name, text, offsetof(struct worker_counters, name)},
    COUNTERS(X)
#undef X
};
#define COUNTER_COUNT (sizeof counters / sizeof *counters)
#define ACCEPTED      (offsetof(struct worker_counters, connections_accepted) / sizeof(uint64_t))

static const struct {
    const char *name;
    const char *text;
} reasons[] = {
#define X(name, text) {#name, text},
    CLOSE_REASONS(X)
#undef X
};

void stats_init(struct stats *stats, int workers) {
    stats->workers = workers;
    stats->worker = shared_memory_new((size_t)workers * sizeof *stats->worker);
}

static uint64_t read_counter(const struct worker_counters *worker, size_t which) {
    const uint64_t *counter = (const uint64_t *)(const void *)((const char *)worker + counters[which].offset);

    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static uint64_t read_closed(const struct worker_counters *worker, int reason) {
    return __atomic_load_n(&worker->closed[reason], __ATOMIC_RELAXED);
}

static uint64_t count_open(uint64_t accepted, const uint64_t *closed) {
    for (int reason = 0; reason < CLOSE_REASON_COUNT; reason++)
        accepted -= closed[reason];
    return accepted;
}

void stats_close_all(struct stats *stats, int worker) {
    struct worker_counters *counted = &stats->worker[worker];

    stats_add(&counted->closed[CLOSE_worker_died], count_open(counted->connections_accepted, counted->closed));
}

/* Handshakes that did not come to their end, whatever the reason. */
static uint64_t failed_handshakes(const uint64_t *closed) {
    return closed[CLOSE_handshake_failed] + closed[CLOSE_handshake_timeout];
}

static json_t *counters_json(const uint64_t *values, const uint64_t *closed) {
    json_t *object = json_object(), *by_reason = json_object();

    for (size_t i = 0; i < COUNTER_COUNT; i++)
        json_object_set_new(object, counters[i].name, json_integer((json_int_t)values[i]));
    for (int reason = 0; reason < CLOSE_REASON_COUNT; reason++)
        json_object_set_new(by_reason, reasons[reason].name, json_integer((json_int_t)closed[reason]));
    json_object_set_new(object, "connections_open", json_integer((json_int_t)count_open(values[ACCEPTED], closed)));
    json_object_set_new(object, "handshakes_failed", json_integer((json_int_t)failed_handshakes(closed)));
    json_object_set_new(object, "closed", by_reason);
    return object;
}

/*
 * Reads one worker's counters and adds them to the totals. Accepted connections are read last: read first, a connection
 * that came and went in between would make the number of open ones negative.
 */
static void read_worker(const struct worker_counters *worker, uint64_t *values, uint64_t *closed,
                        uint64_t *total_values, uint64_t *total_closed) {
    for (int reason = 0; reason < CLOSE_REASON_COUNT; reason++)
        total_closed[reason] += closed[reason] = read_closed(worker, reason);
    for (size_t i = COUNTER_COUNT; i-- > 0;)
        total_values[i] += values[i] = read_counter(worker, i);
}

void stats_write_json(const struct stats *stats, FILE *out) {
    uint64_t values[COUNTER_COUNT], closed[CLOSE_REASON_COUNT];
    uint64_t total_values[COUNTER_COUNT] = {0}, total_closed[CLOSE_REASON_COUNT] = {0};
    json_t *workers = json_array(), *object;

    for (int i = 0; i < stats->workers; i++) {
        read_worker(&stats->worker[i], values, closed, total_values, total_closed);
        json_array_append_new(workers, counters_json(values, closed));
    }
    object = counters_json(total_values, total_closed);
    json_object_set_new(object, "version", json_string(TLSDYNO_VERSION));
    json_object_set_new(object, "workers", workers);
    json_dumpf(object, out, JSON_INDENT(1));
    fputc('\n', out);
    json_decref(object);
}

void stats_write_prometheus(const struct stats *stats, FILE *out) {
    for (size_t i = 0; i < COUNTER_COUNT; i++) {
        fprintf(out, "# HELP tlsdyno_%s_total %s\n# TYPE tlsdyno_%s_total counter\n", counters[i].name,
                counters[i].text, counters[i].name);
        for (int worker = 0; worker < stats->workers; worker++)
            fprintf(out, "tlsdyno_%s_total{worker=\"%d\"} %llu\n", counters[i].name, worker,
                    (unsigned long long)read_counter(&stats->worker[worker], i));
    }
    fprintf(out, "# HELP tlsdyno_connections_closed_total client connections closed, by reason\n"
                 "# TYPE tlsdyno_connections_closed_total counter\n");
    for (int reason = 0; reason < CLOSE_REASON_COUNT; reason++)
        for (int worker = 0; worker < stats->workers; worker++)
            fprintf(out, "tlsdyno_connections_closed_total{worker=\"%d\",reason=\"%s\"} %llu\n", worker,
                    reasons[reason].name, (unsigned long long)read_closed(&stats->worker[worker], reason));
}
