/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_SERVICE_MODEL_H
#define TLSDYNO_ECHO_SERVICE_MODEL_H
/* How long a server of the real world takes for a request, given how many it has at a time. */
#include <stdint.h>

enum service_kind {
    SERVICE_NONE,      /* no longer than it takes */
    SERVICE_FIXED,     /* time_ns */
    SERVICE_QUADRATIC, /* the larger of time_ns and n^2 / divisor milliseconds, with n requests in flight */
};

struct service_model {
    enum service_kind kind;
    uint64_t time_ns;
    uint64_t divisor;
    const char *text; /* as it was asked for */
};

/* For an option: reads "none", "fixed:TIME" or "quadratic:MIN,DIVISOR" into the struct service_model that target points
 * to, which keeps text. NULL, or why it is refused. */
const char *service_model_parse(void *target, const char *text);

/* What a request takes, in ns, if there are in_flight (1 or more) from its beginning to its end. */
double service_model_ns(const struct service_model *model, unsigned in_flight);

#endif
