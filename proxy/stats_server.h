/* SPDX-License-Identifier: MIT */
#ifndef PROXY_STATS_SERVER_H
#define PROXY_STATS_SERVER_H
/*
 * Shows the counters over HTTP: /metrics for Prometheus, /stats.json for everybody else. Runs in a
 * process of its own, so that no process with rights reads from the network.
 */
#include "stats.h"

#include <ev.h>

struct stats_server {
    struct ev_loop *loop;
    const struct stats *stats;
    int clients;
    ev_io watcher;
    ev_timer pause; /* of accepting, for want of descriptors */
};

/* Answers on the listening socket from here on. */
void stats_server_start(struct stats_server *server, struct ev_loop *loop, int listener, const struct stats *stats);

#endif
