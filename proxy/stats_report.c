/* SPDX-License-Identifier: MIT */
/* The counters as documents: what stats.h says of them. */
#include "clock.h"
#include "listeners.h"
#include "stats.h"
#include "units.h"
#include "version.h"

#include <jansson.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* A master that died in the middle of a move takes everybody with it: this only bounds the wait for one that is slow.
 */
#define READ_TRIES 10000

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

/* Everything of one moment. */
struct snapshot {
    struct stats_master master;
    struct worker_counters *worker; /* [workers], then their sum */
    int *processes;                 /* [workers], then their sum: running, those that drain included */
    struct frontend_counters frontend[LISTENER_PLACES];
    struct client_entry *top;
    size_t top_count;
    uint64_t top_error;
};

static uint64_t value_of(const struct worker_counters *worker, size_t which) {
    return *(const uint64_t *)(const void *)((const char *)worker + counters[which].offset);
}

/*
 * Accepted connections are the first number and are read last: read first, a connection that came and went in between
 * would make the number of open ones negative.
 */
static void add_counters(struct worker_counters *to, const struct worker_counters *from) {
    uint64_t *sum = (uint64_t *)(void *)to;
    const uint64_t *counter = (const uint64_t *)(const void *)from;

    for (size_t i = sizeof *from / sizeof *counter; i-- > 0;)
        sum[i] += __atomic_load_n(&counter[i], __ATOMIC_ACQUIRE);
}

static void read_counters(const struct stats *stats, struct snapshot *snapshot) {
    memset(snapshot->worker, 0, sizeof *snapshot->worker * (size_t)(stats->workers + 1));
    memset(snapshot->processes, 0, sizeof *snapshot->processes * (size_t)(stats->workers + 1));
    snapshot->master = *stats->master;
    frontend_stats_add_up(&stats->frontends, snapshot->frontend);
    for (int worker = 0; worker < stats->workers; worker++)
        add_counters(&snapshot->worker[worker], &stats->ended[worker]);
    for (int slot = 0; slot < stats->slots; slot++) {
        int worker = __atomic_load_n(&stats->process[slot].worker, __ATOMIC_RELAXED);
        if (worker < 0 || worker >= stats->workers)
            continue;
        add_counters(&snapshot->worker[worker], &stats->process[slot].counters);
        snapshot->processes[worker]++;
    }
    for (int worker = 0; worker < stats->workers; worker++) {
        add_counters(&snapshot->worker[stats->workers], &snapshot->worker[worker]);
        snapshot->processes[stats->workers] += snapshot->processes[worker];
    }
}

static void free_snapshot(struct snapshot *snapshot) {
    free(snapshot->worker);
    free(snapshot->processes);
    free(snapshot->top);
}

/* False: out of memory. */
static bool take_snapshot(const struct stats *stats, struct snapshot *snapshot) {
    *snapshot = (struct snapshot){
        .worker = aligned_alloc(_Alignof(struct worker_counters),
                                sizeof(struct worker_counters) * (size_t)(stats->workers + 1)),
        .processes = calloc((size_t)stats->workers + 1, sizeof *snapshot->processes),
        .top = calloc(stats->top_clients + 1, sizeof *snapshot->top),
    };
    if (!snapshot->worker || !snapshot->processes || !snapshot->top) {
        free_snapshot(snapshot);
        return false;
    }
    for (int tries = 0; tries < READ_TRIES; tries++) {
        uint32_t before = __atomic_load_n(&stats->master->sequence, __ATOMIC_ACQUIRE);

        read_counters(stats, snapshot);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(before & 1) && before == __atomic_load_n(&stats->master->sequence, __ATOMIC_RELAXED))
            break;
    }
    /* Nothing moves between these tables. */
    if (stats->clients)
        snapshot->top_count = client_table_top(stats->clients, (size_t)stats->slots, snapshot->top, stats->top_clients,
                                               &snapshot->top_error);
    return true;
}

static uint64_t count_open(const struct worker_counters *worker) {
    uint64_t open = worker->connections_accepted;

    for (int reason = 0; reason < CLOSE_REASON_COUNT; reason++)
        open -= worker->closed[reason];
    return open;
}

static void set_integer(json_t *object, const char *name, uint64_t value) {
    json_object_set_new(object, name, json_integer((json_int_t)value));
}

static json_t *counters_json(const struct worker_counters *worker, int processes) {
    json_t *object = json_object(), *closed = json_object(), *failures = json_object();

    for (size_t i = 0; i < COUNTER_COUNT; i++)
        set_integer(object, counters[i].name, value_of(worker, i));
    for (int reason = 0; reason < CLOSE_REASON_COUNT; reason++)
        set_integer(closed, close_reason_name(reason), worker->closed[reason]);
    for (int failure = 0; failure < HANDSHAKE_FAILURE_COUNT; failure++)
        set_integer(failures, handshake_failure_name(failure), worker->handshake_failures[failure]);
    set_integer(object, "connections_open", count_open(worker));
    set_integer(object, "handshakes_failed",
                worker->closed[CLOSE_handshake_failed] + worker->closed[CLOSE_handshake_timeout]);
    set_integer(object, "processes", (uint64_t)processes);
    json_object_set_new(object, "closed", closed);
    json_object_set_new(object, "handshakes_failed_by", failures);
    return object;
}

static json_t *top_json(const struct snapshot *snapshot) {
    json_t *array = json_array();
    char text[INET6_ADDRSTRLEN];

    for (size_t i = 0; i < snapshot->top_count; i++) {
        json_t *client = json_object();
        json_object_set_new(client, "address", json_string(client_entry_format(&snapshot->top[i], text)));
        set_integer(client, "bytes", snapshot->top[i].bytes);
        set_integer(client, "connections", snapshot->top[i].connections);
        json_array_append_new(array, client);
    }
    return array;
}

void stats_write_json(const struct stats *stats, FILE *out) {
    json_t *workers, *object;
    struct snapshot snapshot;

    if (!take_snapshot(stats, &snapshot))
        return;
    workers = json_array();
    for (int worker = 0; worker < stats->workers; worker++)
        json_array_append_new(workers, counters_json(&snapshot.worker[worker], snapshot.processes[worker]));
    object = counters_json(&snapshot.worker[stats->workers], snapshot.processes[stats->workers]);
    json_object_set_new(object, "version", json_string(TLSDYNO_VERSION));
    set_integer(object, "started_unix_s", snapshot.master.started_unix_ns / NS_PER_S);
    set_integer(object, "uptime_s", (realtime_ns() - snapshot.master.started_unix_ns) / NS_PER_S);
    set_integer(object, "generation", snapshot.master.generation);
    set_integer(object, "reloads", snapshot.master.reloads);
    set_integer(object, "reloads_refused", snapshot.master.reloads_refused);
    json_object_set_new(object, "workers", workers);
    json_object_set_new(object, "frontends", frontend_stats_json(&stats->frontends, snapshot.frontend));
    if (stats->sync)
        json_object_set_new(object, "shared_cache", sync_counters_json(stats->sync));
    if (stats->clients) {
        json_object_set_new(object, "top_clients", top_json(&snapshot));
        set_integer(object, "top_clients_error_bytes", snapshot.top_error);
    }
    json_dumpf(object, out, JSON_INDENT(1));
    fputc('\n', out);
    json_decref(object);
    free_snapshot(&snapshot);
}

static void write_header(FILE *out, const char *name, const char *text, const char *type) {
    fprintf(out, "# HELP tlsdyno_%s %s\n# TYPE tlsdyno_%s %s\n", name, text, name, type);
}

static void write_number(FILE *out, const char *name, const char *text, const char *type, uint64_t value) {
    write_header(out, name, text, type);
    fprintf(out, "tlsdyno_%s %llu\n", name, (unsigned long long)value);
}

/* One series a worker and reason: the reasons are an array of numbers at this offset of a worker's counters. */
static void write_reasons(const struct stats *stats, const struct snapshot *snapshot, FILE *out, const char *name,
                          size_t offset, int count, const char *(*name_of)(int reason)) {
    for (int reason = 0; reason < count; reason++)
        for (int worker = 0; worker < stats->workers; worker++) {
            const uint64_t *values = (const uint64_t *)(const void *)((const char *)&snapshot->worker[worker] + offset);
            fprintf(out, "tlsdyno_%s{worker=\"%d\",reason=\"%s\"} %llu\n", name, worker, name_of(reason),
                    (unsigned long long)values[reason]);
        }
}

static const char *close_name(int reason) {
    return close_reason_name((enum close_reason)reason);
}

static const char *failure_name(int reason) {
    return handshake_failure_name((enum handshake_failure)reason);
}

static void write_top(const struct snapshot *snapshot, FILE *out) {
    char text[INET6_ADDRSTRLEN];

    write_header(out, "top_client_bytes", "application bytes both ways of the busiest client addresses, at least",
                 "gauge");
    for (size_t i = 0; i < snapshot->top_count; i++)
        fprintf(out, "tlsdyno_top_client_bytes{client=\"%s\"} %llu\n", client_entry_format(&snapshot->top[i], text),
                (unsigned long long)snapshot->top[i].bytes);
    write_header(out, "top_client_connections", "ended connections of the busiest client addresses, at least", "gauge");
    for (size_t i = 0; i < snapshot->top_count; i++)
        fprintf(out, "tlsdyno_top_client_connections{client=\"%s\"} %llu\n",
                client_entry_format(&snapshot->top[i], text), (unsigned long long)snapshot->top[i].connections);
    write_number(out, "top_client_error_bytes", "at most so many bytes of a client may be missing", "gauge",
                 snapshot->top_error);
}

void stats_write_prometheus(const struct stats *stats, FILE *out) {
    struct snapshot snapshot;
    char name[64];

    if (!take_snapshot(stats, &snapshot))
        return;
    for (size_t i = 0; i < COUNTER_COUNT; i++) {
        snprintf(name, sizeof name, "%s_total", counters[i].name);
        write_header(out, name, counters[i].text, "counter");
        for (int worker = 0; worker < stats->workers; worker++)
            fprintf(out, "tlsdyno_%s{worker=\"%d\"} %llu\n", name, worker,
                    (unsigned long long)value_of(&snapshot.worker[worker], i));
    }
    write_header(out, "connections_closed_total", "client connections closed, by reason", "counter");
    write_reasons(stats, &snapshot, out, "connections_closed_total", offsetof(struct worker_counters, closed),
                  CLOSE_REASON_COUNT, close_name);
    write_header(out, "handshakes_failed_total", "TLS handshakes that did not come to their end, by reason", "counter");
    write_reasons(stats, &snapshot, out, "handshakes_failed_total",
                  offsetof(struct worker_counters, handshake_failures), HANDSHAKE_FAILURE_COUNT, failure_name);
    write_header(out, "connections_open", "client connections that are open", "gauge");
    for (int worker = 0; worker < stats->workers; worker++)
        fprintf(out, "tlsdyno_connections_open{worker=\"%d\"} %llu\n", worker,
                (unsigned long long)count_open(&snapshot.worker[worker]));
    write_header(out, "processes", "processes of a worker: more than one while earlier generations drain", "gauge");
    for (int worker = 0; worker < stats->workers; worker++)
        fprintf(out, "tlsdyno_processes{worker=\"%d\"} %d\n", worker, snapshot.processes[worker]);
    frontend_stats_write_prometheus(&stats->frontends, snapshot.frontend, out);
    write_number(out, "generation", "of the configuration that is in use", "gauge", snapshot.master.generation);
    write_number(out, "reloads_total", "reloads of the configuration", "counter", snapshot.master.reloads);
    write_number(out, "reloads_refused_total", "reloads that were refused: the old configuration stayed", "counter",
                 snapshot.master.reloads_refused);
    write_number(out, "start_time_seconds", "when the proxy was started, in Unix time", "gauge",
                 snapshot.master.started_unix_ns / NS_PER_S);
    write_header(out, "build_info", "1, with the version", "gauge");
    fprintf(out, "tlsdyno_build_info{version=\"%s\"} 1\n", TLSDYNO_VERSION);
    if (stats->sync)
        sync_counters_write_prometheus(stats->sync, "tlsdyno_shared_cache_", out);
    if (stats->clients)
        write_top(&snapshot, out);
    free_snapshot(&snapshot);
}
