/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_MASTER_H
#define TLSDYNO_MASTER_H
#include "plan.h"

/* Runs the load from start to report; returns the program's exit status. */
int master_run(const struct plan *plan);

#endif
