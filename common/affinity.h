/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_AFFINITY_H
#define TLSDYNO_AFFINITY_H
/* Which CPU a worker runs on. */
#include <stdbool.h>

#define CPU_LIST_MAX 1024

struct cpu_list {
    int count; /* 0: no pinning was asked for */
    int cpu[CPU_LIST_MAX];
};

/*
 * Reads "0-2,4" (the kernel's list format, order kept). NULL if it is good, else why it is refused. A CPU that this
 * process may not run on is refused here, before anything is started.
 */
const char *cpu_list_parse(struct cpu_list *list, const char *text);

/* Pins the calling process to CPU number index of the list, wrapping round. False with errno set if the kernel refuses.
 */
bool cpu_list_pin(const struct cpu_list *list, int index);

#endif
