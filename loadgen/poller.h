/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_POLLER_H
#define TLSDYNO_POLLER_H
/*
 * The sockets of a worker's connections, on epoll itself. libev does not tell the kernel when a descriptor that stays
 * open is watched no more: each thing that then happens to it wakes the process up once, for nothing. A connection that
 * only waits for its peer to close is just that, and a load generator has one for each handshake.
 */
#include <stdbool.h>
#include <stdint.h>

#define POLLER_EVENTS_MAX 64

struct poller {
    int fd; /* -1: none */
};

/* False: errno says why. */
bool poller_open(struct poller *poller);

/*
 * owner is to hear of these events (EV_READ, EV_WRITE) of fd, as long as they last; 0: of none any more. *watched is
 * what it heard of before, 0 for a new descriptor. A descriptor that is closed needs no call.
 */
void poller_watch(struct poller *poller, int fd, int *watched, int events, void *owner);

/*
 * Waits until something is ready, until the moment until_ns (CLOCK_MONOTONIC) or for a signal; owners gets those who
 * have something. Returns how many, 0 too. An owner comes once at most.
 */
int poller_wait(struct poller *poller, uint64_t until_ns, void *owners[POLLER_EVENTS_MAX]);

void poller_close(struct poller *poller);

#endif
