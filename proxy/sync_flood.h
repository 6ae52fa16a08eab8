/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_FLOOD_H
#define PROXY_SYNC_FLOOD_H
/*
 * Anybody may send datagrams to the socket, as many as the network carries, and to receive one costs what a handshake's
 * hundredth does. Where many come that do not even begin as ours do, the system is told to drop these unseen: a filter
 * of the socket, which says yes or no before a datagram is queued. When they become few it is taken away again, so that
 * each that is refused has its own reason.
 */
#include "session_sync.h"

struct sync_flood {
    const struct session_sync *sync;
    uint64_t refused; /* until the last look: what the filter would have dropped */
    uint32_t dropped; /* by the system, whatever for, until then; it wraps */
    int calm_looks;
    bool filtered;
};

/* In the process that reads the socket. */
void sync_flood_begin(struct sync_flood *flood, const struct session_sync *sync);

/* Ten times a second: counts what was dropped, and sets or removes the filter. */
void sync_flood_look(struct sync_flood *flood);

#endif
