/* SPDX-License-Identifier: MIT */
#include "sync_counters.h"

#include "shared_memory.h"

#include <stdbool.h>
#include <stddef.h>

static const struct {
    const char *name;
    const char *text;
    size_t offset;
    bool is_gauge;
} numbers[] = {
#define X(name, text) {#name, text, offsetof(struct sync_counters, name), false},
    SYNC_COUNTERS(X)
#undef X
#define X(name, text) {#name, text, offsetof(struct sync_counters, name), true},
        SYNC_GAUGES(X)
#undef X
};

static const char *const rejections[] = {
#define X(name, text) #name,
    SYNC_REJECTIONS(X)
#undef X
};

struct sync_counters *sync_counters_new(void) {
    return shared_memory_new(sizeof(struct sync_counters));
}

static uint64_t value_at(const struct sync_counters *counters, size_t offset) {
    const uint64_t *number = (const uint64_t *)(const void *)((const char *)counters + offset);

    return __atomic_load_n(number, __ATOMIC_RELAXED);
}

json_t *sync_counters_json(const struct sync_counters *counters) {
    json_t *object = json_object(), *rejected = json_object();

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(object, numbers[i].name, json_integer((json_int_t)value_at(counters, numbers[i].offset)));
    for (int reason = 0; reason < SYNC_REJECTION_COUNT; reason++)
        json_object_set_new(rejected, rejections[reason], json_integer((json_int_t)counters->rejected[reason]));
    json_object_set_new(object, "rejected", rejected);
    return object;
}

void sync_counters_write_prometheus(const struct sync_counters *counters, const char *prefix, FILE *out) {
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const char *end = numbers[i].is_gauge ? "" : "_total";

        fprintf(out, "# HELP %s%s%s %s\n# TYPE %s%s%s %s\n%s%s%s %llu\n", prefix, numbers[i].name, end, numbers[i].text,
                prefix, numbers[i].name, end, numbers[i].is_gauge ? "gauge" : "counter", prefix, numbers[i].name, end,
                (unsigned long long)value_at(counters, numbers[i].offset));
    }
    fprintf(out,
            "# HELP %srejected_total what was not taken of other hosts, by reason\n"
            "# TYPE %srejected_total counter\n",
            prefix, prefix);
    for (int reason = 0; reason < SYNC_REJECTION_COUNT; reason++)
        fprintf(out, "%srejected_total{reason=\"%s\"} %llu\n", prefix, rejections[reason],
                (unsigned long long)counters->rejected[reason]);
}
