/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_WATCHER_H
#define TLSDYNO_ECHO_WATCHER_H
/* A descriptor that is watched for what it is wanted for just now, if anything. */
#include <ev.h>

struct watcher {
    ev_io io;
    int events; /* that io is started for; 0: stopped */
};

typedef void (*watcher_callback)(struct ev_loop *loop, ev_io *io, int events);

static inline void watcher_init(struct watcher *watcher, watcher_callback callback, int fd, void *data) {
    ev_io_init(&watcher->io, callback, fd, EV_READ);
    watcher->io.data = data;
    watcher->events = 0;
}

static inline void watcher_set(struct ev_loop *loop, struct watcher *watcher, int events) {
    if (events == watcher->events)
        return;
    ev_io_stop(loop, &watcher->io);
    if (events) {
        ev_io_set(&watcher->io, watcher->io.fd, events);
        ev_io_start(loop, &watcher->io);
    }
    watcher->events = events;
}

#endif
