/* SPDX-License-Identifier: MIT */
#include "frontend_stats.h"

#include "listeners.h"
#include "shared_memory.h"

#include <stddef.h>
#include <string.h>

struct frontend_place {
    uint32_t version; /* odd: there is a frontend; it grows with every change */
    struct address address;
};

static const struct {
    const char *name;
    const char *text;
    size_t offset;
} counters[] = {
#define X(name, text) {#name, text, offsetof(struct frontend_counters, name)},
    FRONTEND_COUNTERS(X)
#undef X
};
#define COUNTER_COUNT (sizeof counters / sizeof *counters)

void frontend_stats_init(struct frontend_stats *stats, int slots) {
    stats->slots = slots;
    stats->place = shared_memory_new(LISTENER_PLACES * sizeof *stats->place);
    stats->counters = shared_memory_new((size_t)(slots + 1) * LISTENER_PLACES * sizeof *stats->counters);
}

struct frontend_counters *frontend_stats_of(const struct frontend_stats *stats, int slot, int place) {
    return &stats->counters[(size_t)slot * LISTENER_PLACES + (size_t)place];
}

void frontend_stats_show(struct frontend_stats *stats, int place, const struct address *address) {
    struct frontend_place *shown = &stats->place[place];
    uint32_t none = (shown->version + 1) & ~UINT32_C(1);

    __atomic_store_n(&shown->version, none, __ATOMIC_RELAXED);
    if (!address)
        return;
    __atomic_thread_fence(__ATOMIC_RELEASE); /* who sees any of the new address sees that there was none */
    for (int slot = 0; slot <= stats->slots; slot++)
        memset(frontend_stats_of(stats, slot, place), 0, sizeof *stats->counters);
    shown->address = *address;
    __atomic_store_n(&shown->version, none + 1, __ATOMIC_RELEASE);
}

static uint64_t *number(struct frontend_counters *of, size_t which) {
    return (uint64_t *)(void *)((char *)of + counters[which].offset);
}

static uint64_t value_of(const struct frontend_counters *of, size_t which) {
    return *(const uint64_t *)(const void *)((const char *)of + counters[which].offset);
}

void frontend_stats_end(struct frontend_stats *stats, int slot) {
    for (int place = 0; place < LISTENER_PLACES; place++) {
        struct frontend_counters *from = frontend_stats_of(stats, slot, place);
        struct frontend_counters *to = frontend_stats_of(stats, stats->slots, place);

        from->connections_closed = from->connections_accepted;
        for (size_t i = 0; i < COUNTER_COUNT; i++)
            *number(to, i) += *number(from, i);
        memset(from, 0, sizeof *from);
    }
}

static bool is_shown(const struct frontend_stats *stats, int place) {
    return __atomic_load_n(&stats->place[place].version, __ATOMIC_ACQUIRE) & 1;
}

/* Accepted ones are read last, so that there are never less than none open. */
void frontend_stats_add_up(const struct frontend_stats *stats, struct frontend_counters *sums) {
    memset(sums, 0, LISTENER_PLACES * sizeof *sums);
    for (int place = 0; place < LISTENER_PLACES; place++)
        for (size_t i = COUNTER_COUNT; i-- > 0 && is_shown(stats, place);)
            for (int slot = 0; slot <= stats->slots; slot++)
                *number(&sums[place], i) +=
                    __atomic_load_n(number(frontend_stats_of(stats, slot, place), i), __ATOMIC_ACQUIRE);
}

/*
 * False: there is no frontend, or another since a moment ago. Workers can write there: nothing is believed of a text's
 * end.
 */
static bool name_of(const struct frontend_stats *stats, int place, char *name) {
    const struct frontend_place *shown = &stats->place[place];
    uint32_t version = __atomic_load_n(&shown->version, __ATOMIC_ACQUIRE);
    struct address address = shown->address;

    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (!(version & 1) || __atomic_load_n(&shown->version, __ATOMIC_RELAXED) != version)
        return false;
    if (address_is_local(&address))
        address.sockaddr.local.sun_path[sizeof address.sockaddr.local.sun_path - 1] = '\0';
    address_format(&address, name);
    return true;
}

json_t *frontend_stats_json(const struct frontend_stats *stats, const struct frontend_counters *sums) {
    json_t *array = json_array();
    char name[ADDRESS_TEXT_MAX];

    for (int place = 0; place < LISTENER_PLACES; place++) {
        json_t *frontend;

        if (!name_of(stats, place, name))
            continue;
        frontend = json_object();
        json_object_set_new(frontend, "address", json_string(name));
        json_object_set_new(
            frontend, "connections_open",
            json_integer((json_int_t)(sums[place].connections_accepted - sums[place].connections_closed)));
        for (size_t i = 0; i < COUNTER_COUNT; i++)
            json_object_set_new(frontend, counters[i].name, json_integer((json_int_t)value_of(&sums[place], i)));
        json_array_append_new(array, frontend);
    }
    return array;
}

/* As a label's value: backslash, quote and line feed are escaped. */
static void write_label(const char *text, FILE *out) {
    for (; *text; text++) {
        if (*text == '\n') {
            fputs("\\n", out);
            continue;
        }
        if (*text == '"' || *text == '\\')
            putc('\\', out);
        putc(*text, out);
    }
}

void frontend_stats_write_prometheus(const struct frontend_stats *stats, const struct frontend_counters *sums,
                                     FILE *out) {
    char name[ADDRESS_TEXT_MAX];

    for (size_t i = 0; i < COUNTER_COUNT; i++) {
        fprintf(out, "# HELP tlsdyno_frontend_%s_total %s\n# TYPE tlsdyno_frontend_%s_total counter\n",
                counters[i].name, counters[i].text, counters[i].name);
        for (int place = 0; place < LISTENER_PLACES; place++) {
            if (!name_of(stats, place, name))
                continue;
            fprintf(out, "tlsdyno_frontend_%s_total{frontend=\"", counters[i].name);
            write_label(name, out);
            fprintf(out, "\"} %llu\n", (unsigned long long)value_of(&sums[place], i));
        }
    }
}
