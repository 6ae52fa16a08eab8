/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "affinity.h"

#include <ctype.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

static const char *read_cpu(const char *text, long *cpu) {
    char *end;

    if (!isdigit((unsigned char)*text))
        return NULL;
    *cpu = strtol(text, &end, 10);
    return *cpu < CPU_SETSIZE ? end : NULL;
}

const char *cpu_list_parse(struct cpu_list *list, const char *text) {
    static char reason[64];
    cpu_set_t allowed;

    list->count = 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return "cannot read this process's own CPUs";
    for (;;) {
        long first, last;

        text = read_cpu(text, &first);
        if (!text)
            return "not a list of CPUs such as 0-2,4";
        last = first;
        if (*text == '-') {
            text = read_cpu(text + 1, &last);
            if (!text || last < first)
                return "not a list of CPUs such as 0-2,4";
        }
        for (long cpu = first; cpu <= last; cpu++) {
            if (!CPU_ISSET((size_t)cpu, &allowed)) {
                snprintf(reason, sizeof reason, "CPU %ld does not exist or is not allowed here", cpu);
                return reason;
            }
            if (list->count == CPU_LIST_MAX)
                return "too many CPUs";
            list->cpu[list->count++] = (int)cpu;
        }
        if (!*text)
            return NULL;
        if (*text++ != ',')
            return "not a list of CPUs such as 0-2,4";
    }
}

bool cpu_list_pin(const struct cpu_list *list, int index) {
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)list->cpu[index % list->count], &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}
