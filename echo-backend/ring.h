/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_RING_H
#define TLSDYNO_ECHO_RING_H
/*
 * Connections in the clear that ask over and over for what lies ready, served through io_uring: one system call sends
 * many answers and hears of many requests. A connection has a seat here for as long as all that comes at a time is one
 * such request, and its answer finds room in the socket. Whatever else happens has it leave, and its owner goes on with
 * what came and with what was not sent, as if there were no ring.
 *
 * A process has one ring. It completes nothing until it is waited in, since that costs least; but no epoll can wait for
 * such a ring, so it is the ring that waits for libev's epoll, for as long as somebody is seated.
 */
#include "activity.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct epoll_event;
struct ring_buffer;

/* A part of its connection. All zero: it was never taken. */
struct seat {
    bool taken; /* until it is left: the socket is the ring's, and this structure stays where it is */
    /* For who has left: */
    uint64_t requests;  /* that were answered in this seat */
    const char *unsent; /* the rest of the last answer; kept for ever */
    size_t unsent_bytes;

    /* Private. */
    struct activity *activity;
    const char *answer; /* the last one */
    size_t answer_bytes;
    struct ring_buffer *first, *last; /* with bytes that nobody has read */
    struct seat *next_leaving;
    uint64_t round; /* of the last answer */
    int fd;
    int pending;    /* completions that will come, not counting those of answers */
    bool leaving;   /* nothing is answered any more */
    bool receiving; /* the request to receive goes on */
};

/*
 * left is called when a seat is free again. Where the system has no io_uring, forbids it, or is older than Linux 6.1,
 * nothing happens, and no seat is ever taken.
 */
void ring_open(struct activities *activities, void (*left)(struct seat *seat));
bool ring_is_there(void);

/* Takes a seat for the stream socket fd, whose requests are signs of activity; false if there is none. */
bool ring_sit_down(struct seat *seat, struct activity *activity, int fd);

/* Ends the stay; left comes later. */
void ring_leave(struct seat *seat);

/*
 * What epoll_wait does, for libev, whose only wait this must be: without it no seat is ever taken. What came is dealt
 * with later, in a watcher of libev's, when it knows what time it is.
 */
int ring_wait(int epoll_fd, struct epoll_event *events, int events_max, int timeout_ms);

/* After left: what was received and not answered. It comes before what is in the socket. */
static inline bool ring_has_received(const struct seat *seat) {
    return seat->first;
}
size_t ring_read(struct seat *seat, char *bytes, size_t size);
void ring_forget_received(struct seat *seat);

#endif
