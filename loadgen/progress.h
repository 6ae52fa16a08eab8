/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_PROGRESS_H
#define TLSDYNO_PROGRESS_H
/* What the master tells while the workers work, once a second: the live line and the series. */
#include "plan.h"
#include "tally.h"

#include <stdbool.h>
#include <stdio.h>

struct progress {
    const struct load *load;
    FILE *series;         /* or NULL */
    struct counters last; /* as of the last telling */
    uint64_t last_ns;
    bool line_is_open; /* a terminal's line that is to be written over */
};

/* Exits with EXIT_USAGE if the series' file cannot be written. */
void progress_init(struct progress *progress, const struct load *load);

/* phase: the one that the second since the last telling belongs to. */
void progress_tell(struct progress *progress, const char *phase, uint64_t now_ns);

/* False, with a line on standard error, if not all of the series was written. */
bool progress_end(struct progress *progress);

#endif
