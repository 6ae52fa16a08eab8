/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "server.h"

#include "address.h"
#include "connection.h"
#include "log.h"
#include "respond.h"
#include "ring.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* How long accepting pauses when there are no descriptors left: one more try at once would fail too. */
#define PAUSE_S 0.1

#define ACCEPTS_PER_EVENT 64

struct acceptor {
    struct worker worker;
    ev_io listener;
    ev_timer pause;
    ev_timer idle;
    int accepts_per_event;
    bool local;
    bool complained;
};

/* Errors of the connection that was to be accepted, not of the listener (accept(2)). */
static bool is_passing(int error) {
    switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
        return true;
    default:
        return false;
    }
}

static void on_listener(struct ev_loop *loop, ev_io *io, int events) {
    (void)events;
    struct acceptor *acceptor = io->data;

    for (int i = 0; i < acceptor->accepts_per_event; i++) {
        int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0 && is_passing(errno))
            continue;
        if (fd < 0) {
            if (errno == EAGAIN)
                return;
            if (!acceptor->complained)
                log_error("accept: %s: trying again every %.0f ms", strerror(errno), PAUSE_S * 1000);
            acceptor->complained = true;
            ev_io_stop(loop, io);
            ev_timer_set(&acceptor->pause, PAUSE_S, 0.);
            ev_timer_start(loop, &acceptor->pause);
            return;
        }
        if (!acceptor->local)
            address_set_nodelay(fd);
        connection_open(&acceptor->worker, fd);
    }
}

static void on_pause_end(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)events;
    struct acceptor *acceptor = timer->data;

    ev_io_start(loop, &acceptor->listener);
}

static void on_idle_timer(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)events;
    struct acceptor *acceptor = timer->data;

    ev_timer_set(timer, connection_close_idle(&acceptor->worker), 0.);
    ev_timer_start(loop, timer);
}

int server_run(int index, struct ev_loop *loop, void *context) {
    const struct server *server = context;
    ev_tstamp idle_timeout_s = (ev_tstamp)server->idle_timeout_ns * 1e-9;
    struct service_queue queue = {.done = connection_served};
    struct acceptor acceptor = {
        .worker = {.loop = loop,
                   .tls = server->tls,
                   .prologue = server->prologue,
                   .activities = {.loop = loop, .timeout_s = idle_timeout_s}},
        .local = server->local,
        /* From a queue of its own a worker takes what is there; from a common one it leaves some to the others. */
        .accepts_per_event = server->local && server->workers > 1 ? 1 : ACCEPTS_PER_EVENT,
    };

    if (!server->local)
        for (int i = 0; i < server->workers; i++)
            if (i != index)
                close(server->listeners[i]);
    respond_init();
    if (server->service) {
        service_queue_open(&queue, server->service, index, loop);
        acceptor.worker.service = &queue;
    }
    if (server->io_uring && !server->tls && !server->service)
        ring_open(&acceptor.worker.activities, connection_left_ring);
    ev_io_init(&acceptor.listener, on_listener, server->listeners[index], EV_READ);
    acceptor.listener.data = &acceptor;
    ev_io_start(loop, &acceptor.listener);
    ev_timer_init(&acceptor.pause, on_pause_end, PAUSE_S, 0.);
    acceptor.pause.data = &acceptor;
    ev_timer_init(&acceptor.idle, on_idle_timer, idle_timeout_s, 0.);
    acceptor.idle.data = &acceptor;
    ev_timer_start(loop, &acceptor.idle);
    ev_run(loop, 0);
    return EXIT_FAILED;
}
