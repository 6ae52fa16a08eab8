/* SPDX-License-Identifier: MIT */
#include "tally.h"

#include <stdio.h>
#include <string.h>

const char *latency_name(enum latency latency) {
    static const char *const names[LATENCIES] = {
        [LATENCY_CONNECT] = "connect",
        [LATENCY_HANDSHAKE_FULL] = "handshake_full",
        [LATENCY_HANDSHAKE_RESUMED] = "handshake_resumed",
        [LATENCY_TTFB] = "ttfb",
        [LATENCY_TRANSACTION] = "transaction",
        [LATENCY_CONNECTION] = "connection",
        [LATENCY_START_DELAY] = "start_delay",
        [LATENCY_SERVICE] = "service",
    };

    return names[latency];
}

const char *phase_name(enum phase phase) {
    static const char *const names[PHASES] = {"warm-up", "measured", "drain"};

    return names[phase];
}

void counters_add(struct counters *into, const struct counters *from) {
    into->connections_opened += from->connections_opened;
    into->handshakes_full += from->handshakes_full;
    into->handshakes_resumed += from->handshakes_resumed;
    into->resume_offered += from->resume_offered;
    into->resume_refused += from->resume_refused;
    into->transactions += from->transactions;
    into->bytes_received += from->bytes_received;
    into->bytes_sent += from->bytes_sent;
    into->closes_unanswered += from->closes_unanswered;
    for (int i = 0; i < LOAD_ERRORS; i++)
        into->errors[i] += from->errors[i];
}

struct counters tally_totals(const struct tally *tally) {
    struct counters totals = {0};

    for (int i = 0; i < PHASES; i++)
        counters_add(&totals, &tally->phase[i]);
    return totals;
}

uint64_t counters_errors(const struct counters *counters) {
    uint64_t sum = 0;

    for (int i = 0; i < LOAD_ERRORS; i++)
        sum += counters->errors[i];
    return sum;
}

static void add_negotiated(struct tally *tally, const char *const names[5], uint64_t count) {
    struct negotiated *row = tally->negotiated;

    for (int i = 0; i < TALLY_NEGOTIATED; i++, row++) {
        if (row->count == 0) {
            bool last = i == TALLY_NEGOTIATED - 1;
            snprintf(row->tls_version, sizeof row->tls_version, "%s", last ? "other" : names[0]);
            snprintf(row->cipher, sizeof row->cipher, "%s", last ? "other" : names[1]);
            snprintf(row->group, sizeof row->group, "%s", last ? "other" : names[2]);
            snprintf(row->sigalg, sizeof row->sigalg, "%s", last ? "other" : names[3]);
            snprintf(row->alpn, sizeof row->alpn, "%s", last ? "other" : names[4]);
            break;
        }
        if (i == TALLY_NEGOTIATED - 1 || (strcmp(row->tls_version, names[0]) == 0 &&
                                          strcmp(row->cipher, names[1]) == 0 && strcmp(row->group, names[2]) == 0 &&
                                          strcmp(row->sigalg, names[3]) == 0 && strcmp(row->alpn, names[4]) == 0))
            break;
    }
    row->count += count;
}

static void add_certificate(struct tally *tally, const char *key, unsigned chain_bytes, uint64_t count) {
    struct certificate *row = tally->certificates;

    for (int i = 0; i < TALLY_CERTIFICATES; i++, row++) {
        bool last = i == TALLY_CERTIFICATES - 1;
        if (row->count == 0) {
            snprintf(row->key, sizeof row->key, "%s", last ? "other" : key);
            row->chain_bytes = last ? 0 : chain_bytes;
            break;
        }
        if (last || (row->chain_bytes == chain_bytes && strcmp(row->key, key) == 0))
            break;
    }
    row->count += count;
}

void tally_negotiated(struct tally *tally, const struct engine_facts *facts) {
    const char *const names[5] = {facts->tls_version, facts->cipher, facts->group, facts->sigalg, facts->alpn};

    add_negotiated(tally, names, 1);
    if (*facts->certificate_key)
        add_certificate(tally, facts->certificate_key, facts->chain_bytes, 1);
}

void tally_body(struct tally *tally, uint64_t bytes) {
    if (tally->phase[PHASE_MEASURED].transactions <= 1 || bytes < tally->body_min_bytes)
        tally->body_min_bytes = bytes;
    if (bytes > tally->body_max_bytes)
        tally->body_max_bytes = bytes;
}

static void merge_bodies(struct tally *into, const struct tally *from) {
    if (from->phase[PHASE_MEASURED].transactions == 0)
        return;
    if (into->phase[PHASE_MEASURED].transactions == 0 || from->body_min_bytes < into->body_min_bytes)
        into->body_min_bytes = from->body_min_bytes;
    if (from->body_max_bytes > into->body_max_bytes)
        into->body_max_bytes = from->body_max_bytes;
}

void tally_merge(struct tally *into, const struct tally *from) {
    merge_bodies(into, from);
    for (int i = 0; i < PHASES; i++)
        counters_add(&into->phase[i], &from->phase[i]);
    for (int i = 0; i < LATENCIES; i++)
        latency_histogram_merge(&into->latency[i], &from->latency[i]);
    into->arrivals.done += from->arrivals.done;
    into->arrivals.failed += from->arrivals.failed;
    into->arrivals.never_begun += from->arrivals.never_begun;
    into->arrivals.ended_in_time += from->arrivals.ended_in_time;
    into->open_now += from->open_now;
    into->open_at_end += from->open_at_end;
    for (int i = 0; i < 2; i++)
        into->half_ops[i] += from->half_ops[i];
    for (int i = 0; i < TALLY_NEGOTIATED && from->negotiated[i].count; i++) {
        const struct negotiated *row = &from->negotiated[i];
        add_negotiated(into, (const char *const[5]){row->tls_version, row->cipher, row->group, row->sigalg, row->alpn},
                       row->count);
    }
    for (int i = 0; i < TALLY_CERTIFICATES && from->certificates[i].count; i++)
        add_certificate(into, from->certificates[i].key, from->certificates[i].chain_bytes,
                        from->certificates[i].count);
    into->user_ns += from->user_ns;
    into->system_ns += from->system_ns;
    if (from->measured_from_ns && (!into->measured_from_ns || from->measured_from_ns < into->measured_from_ns))
        into->measured_from_ns = from->measured_from_ns;
    if (from->measured_until_ns > into->measured_until_ns)
        into->measured_until_ns = from->measured_until_ns;
}
