/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_WINDOW_H
#define TLSDYNO_WINDOW_H
#include <stdint.h>

/* When the phases begin and end: fixed by the master before the workers exist, the same for all. Monotonic ns. */
struct window {
    uint64_t start_ns;          /* the warm-up begins */
    uint64_t measured_from_ns;  /* the same if there is no warm-up */
    uint64_t middle_ns;         /* UINT64_MAX if the end is not known in advance */
    uint64_t measured_until_ns; /* UINT64_MAX if the end is not known in advance */
    uint64_t started_unix_ns;   /* measured_from_ns as a date */
};

#endif
