/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_REPORT_H
#define TLSDYNO_REPORT_H
/* The result: the JSON of the contract, and a table for people. */
#include "plan.h"
#include "tally.h"

#include <stdio.h>

struct report {
    const struct load *load;
    struct tally tally;    /* of all workers */
    bool interrupted;      /* a signal came before the end */
    const char *lost;      /* what befell a worker that did not come to its own end; NULL: all did */
    const char *json_file; /* or NULL */
};

/* Writes what was asked for. Returns false, with a line on standard error, if the file cannot be written. */
bool report_write(const struct report *report);

#endif
