/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_WINDOW_H
#define TLSDYNO_WINDOW_H
#include <stdint.h>

/* When the phases begin and end: fixed by the master before the workers exist, the same for all. Monotonic ns. */
struct window {
    uint64_t start_ns;          /* the ramp begins */
    uint64_t ramped_ns;         /* the full load is reached, the warm-up begins; the same if there is no ramp */
    uint64_t measured_from_ns;  /* the same as ramped_ns if there is no warm-up */
    uint64_t middle_ns;         /* UINT64_MAX if the end is not known in advance */
    uint64_t measured_until_ns; /* UINT64_MAX if the end is not known in advance */
    uint64_t started_unix_ns;   /* measured_from_ns as a date */
};

#endif
