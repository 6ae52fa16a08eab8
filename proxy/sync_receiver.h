/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_RECEIVER_H
#define PROXY_SYNC_RECEIVER_H
/*
 * When datagrams are taken. To be woken costs more than ten sessions do: where datagrams come one after the other they
 * lie in the socket for some time, and are taken together, sooner where the socket is not to overflow. A worker that
 * misses a session has them taken at once (session_wait.h), so who asks for one that lies there finds it, unless there
 * are thousands before it. What waits for this time is withdrawals, and figures. There is none where clients wait for
 * answers, or hosts for each other's.
 */
#include "sync_inbox.h"

#include <ev.h>

struct sync_receiver {
    struct ev_loop *loop;
    const struct session_sync *sync;
    struct sync_inbox *inbox;
    int room;  /* datagrams that the socket can hold */
    int taken; /* in this rest, and those that it began with */
    ev_tstamp longest_rest_s;
    ev_tstamp came;        /* the last one */
    ev_tstamp awake_until; /* there is no rest before: somebody waits for answers */
    ev_io datagrams, hurry;
    ev_timer rest;
};

/* In the process that alone reads the socket; the inbox has been initialised. */
void sync_receiver_begin(struct sync_receiver *receiver, struct ev_loop *loop, const struct session_sync *sync,
                         struct sync_inbox *inbox);

/* The process is awake for another reason: what lies there is taken with it. */
void sync_receiver_awake(struct sync_receiver *receiver);

#endif
