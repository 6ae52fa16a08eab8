/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_PORTS_H
#define TLSDYNO_PORTS_H
/*
 * Whether the local ports suffice, told before the load begins. A connection occupies one port of its source address
 * for its destination, and one that was closed from this side still does while it is in TIME_WAIT.
 */
#include "plan.h"

struct ports {
    uint64_t range;        /* net.ipv4.ip_local_port_range */
    uint64_t sources;      /* local addresses */
    uint64_t destinations; /* distinct addresses and ports of the targets */
    uint64_t time_wait_ns; /* how long a closed connection keeps its port */
};

/* Connections at a time. */
uint64_t ports_capacity(const struct ports *ports);

/* Connections in TIME_WAIT, at most, in a load that opens so many a second for so long. */
uint64_t ports_in_time_wait(const struct ports *ports, double connections_per_s, uint64_t load_ns);

/*
 * Ends the program if the plan asks for more connections at a time than there can be; warns if the connections that an
 * open loop will have closed are likely to leave too few.
 */
void ports_check(const struct plan *plan);

#endif
