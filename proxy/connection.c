/* SPDX-License-Identifier: MIT */
#include "connection.h"

#include "address.h"
#include "clock.h"
#include "log.h"
#include "stream.h"
#include "units.h"
#include "visit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How many buffers a pump may move before the other connections have their turn. */
#define ROUNDS_A_TURN 8

enum connection_state { HANDSHAKE, CONNECT, RELAY };

/* One direction. */
struct pump {
    struct stream *from, *to;
    struct buffer *buffer; /* NULL while nothing is held */
    int read_wants;        /* what from must be ready for before it can be read: EV_READ, rarely EV_WRITE */
    int write_wants;       /* what to must be ready for; 0: nothing waits to be written */
    bool from_ended;       /* from will send no more */
    bool to_told;          /* and to knows it */
    bool unfinished;       /* there is more to move at once, but the others have their turn first */
    uint64_t moved;        /* bytes delivered to to */
    uint64_t *bytes_in, *bytes_out;
};

struct connection {
    struct worker *worker;
    enum connection_state state;
    struct stream client, backend;
    struct pump up, down; /* client -> backend, backend -> client */
    ev_io client_watcher, backend_watcher;
    ev_timer timer;
    ev_tstamp connect_deadline; /* of CONNECT */
    ev_tstamp last_progress;    /* of RELAY: when something last came or went */
    struct address client_address;
    uint64_t accepted_ns, handshake_done_ns; /* monotonic; 0: not yet */
};

/* Before anything is freed: the TLS library still knows what was agreed. */
static void report_end(const struct connection *connection, enum close_reason reason) {
    struct visit visit = {
        .client = &connection->client_address,
        .ssl = connection->client.ssl,
        .bytes_from_client = connection->up.moved,
        .bytes_to_client = connection->down.moved,
        .accepted_ns = connection->accepted_ns,
        .handshake_done_ns = connection->handshake_done_ns,
        .ended_ns = monotonic_ns(),
        .reason = reason,
        .failure = HANDSHAKE_NO_FAILURE,
    };

    if (reason == CLOSE_handshake_timeout)
        visit.failure = HANDSHAKE_timeout;
    else if (reason == CLOSE_handshake_failed)
        visit.failure = handshake_failure_of(connection->client.tls_error, connection->client.error);
    visit_ended(connection->worker, &visit);
}

static void close_connection(struct connection *connection, enum close_reason reason) {
    struct worker *worker = connection->worker;

    report_end(connection, reason);
    stats_add(&worker->counters->closed[reason], 1);
    ev_io_stop(worker->loop, &connection->client_watcher);
    ev_io_stop(worker->loop, &connection->backend_watcher);
    ev_timer_stop(worker->loop, &connection->timer);
    if (connection->up.buffer)
        buffer_return(&worker->buffers, connection->up.buffer);
    if (connection->down.buffer)
        buffer_return(&worker->buffers, connection->down.buffer);
    stream_close(&connection->client);
    stream_close(&connection->backend);
    free(connection);
    worker_connection_ended(worker);
}

/* The events that a pump waits for on a stream, whichever end of it the stream is. */
static int pump_events(const struct pump *pump, const struct stream *stream) {
    int events = 0;

    if (stream == pump->from && !pump->from_ended && !pump->write_wants)
        events |= pump->read_wants;
    if (stream == pump->to)
        events |= pump->write_wants;
    return events;
}

static void set_watcher(struct ev_loop *loop, ev_io *watcher, int events) {
    if (ev_is_active(watcher) ? watcher->events == events : !events)
        return;
    ev_io_stop(loop, watcher);
    if (!events)
        return;
    ev_io_modify(watcher, events);
    ev_io_start(loop, watcher);
}

/* The one place where it is decided which events matter. */
static void watch(struct connection *connection) {
    struct ev_loop *loop = connection->worker->loop;
    int client = 0, backend = 0;

    if (connection->state == HANDSHAKE) {
        client = connection->client.wants;
    } else if (connection->backend.fd >= 0) { /* else only the clock matters: the connect is tried again */
        client =
            pump_events(&connection->up, &connection->client) | pump_events(&connection->down, &connection->client);
        backend =
            pump_events(&connection->up, &connection->backend) | pump_events(&connection->down, &connection->backend);
        if (connection->state == CONNECT)
            backend = EV_WRITE;
    }
    set_watcher(loop, &connection->client_watcher, client);
    set_watcher(loop, &connection->backend_watcher, backend);
    if (connection->up.unfinished)
        ev_feed_event(loop, &connection->client_watcher, EV_READ);
    if (connection->down.unfinished)
        ev_feed_event(loop, &connection->backend_watcher, EV_READ);
}

enum pump_result { PUMP_OK, PUMP_FROM_BROKE, PUMP_TO_BROKE, PUMP_NO_MEMORY };

/* Fills the buffer with what can be had at once: a full TLS record often has company. *more: there may be yet more. */
static enum pump_result pump_read(struct pump *pump, struct buffer_pool *buffers, bool *more) {
    enum stream_result result;
    struct buffer *buffer = pump->buffer;
    size_t got;

    *more = false;
    if (!buffer) {
        buffer = pump->buffer = buffer_take(buffers);
        if (!buffer)
            return PUMP_NO_MEMORY;
    }
    pump->read_wants = EV_READ;
    do {
        result = stream_read(pump->from, buffer->bytes + buffer->end, BUFFER_BYTES - buffer->end, &got);
        if (result == STREAM_OK) {
            buffer->end += got;
            stats_add(pump->bytes_in, got);
        }
    } while (result == STREAM_OK && buffer->end < BUFFER_BYTES && stream_has_pending(pump->from));
    switch (result) {
    case STREAM_OK:
        /* Bytes in the TLS library's hands cannot be polled for: they must be fetched. */
        *more = buffer->end == BUFFER_BYTES || stream_has_pending(pump->from);
        return PUMP_OK;
    case STREAM_RETRY:
        pump->read_wants = pump->from->wants;
        return PUMP_OK;
    case STREAM_EOF:
        pump->from_ended = true;
        return PUMP_OK;
    default:
        return PUMP_FROM_BROKE;
    }
}

/* Writes what is held; gives the buffer back when it is empty. */
static enum pump_result pump_write(struct pump *pump, struct buffer_pool *buffers) {
    struct buffer *buffer = pump->buffer;
    size_t put;

    pump->write_wants = 0;
    while (buffer->begin < buffer->end) {
        switch (stream_write(pump->to, buffer->bytes + buffer->begin, buffer->end - buffer->begin, &put)) {
        case STREAM_OK:
            buffer->begin += put;
            pump->moved += put;
            stats_add(pump->bytes_out, put);
            break;
        case STREAM_RETRY:
            pump->write_wants = pump->to->wants;
            return PUMP_OK;
        default:
            return PUMP_TO_BROKE;
        }
    }
    buffer_return(buffers, buffer);
    pump->buffer = NULL;
    return PUMP_OK;
}

/* All that from sent is delivered: to learns that no more will come. */
static enum pump_result pump_end(struct pump *pump) {
    pump->write_wants = 0;
    switch (stream_end(pump->to)) {
    case STREAM_RETRY:
        pump->write_wants = pump->to->wants;
        return PUMP_OK;
    case STREAM_ERROR:
        /* It may have closed its own side first: then there is nobody left to tell, and nothing lost. */
        if (pump->to->error != ENOTCONN && pump->to->error != EPIPE)
            return PUMP_TO_BROKE;
        break;
    default:
        break;
    }
    pump->to_told = true;
    return PUMP_OK;
}

/* Moves what can be moved at once. With readable, from is believed to be ready. */
static enum pump_result pump_run(struct pump *pump, struct buffer_pool *buffers, bool readable) {
    enum pump_result result = PUMP_OK;

    pump->unfinished = false;
    for (int round = 0; round < ROUNDS_A_TURN; round++) {
        if (pump->buffer) /* it waited to be written; meanwhile nothing announces what the TLS library holds */
            readable = readable || stream_has_pending(pump->from);
        else if (readable && !pump->from_ended)
            result = pump_read(pump, buffers, &readable);
        else
            return PUMP_OK;
        if (result == PUMP_OK && pump->buffer)
            result = pump_write(pump, buffers);
        if (result != PUMP_OK || pump->write_wants)
            return result;
    }
    pump->unfinished = readable && !pump->from_ended;
    return PUMP_OK;
}

static bool pump_must_end(const struct pump *pump) {
    return pump->from_ended && !pump->buffer && !pump->to_told;
}

static enum close_reason reason_of(const struct connection *connection, const struct pump *pump,
                                   enum pump_result result) {
    const struct stream *broken = result == PUMP_FROM_BROKE ? pump->from : pump->to;

    if (result == PUMP_NO_MEMORY)
        return CLOSE_no_resources;
    if (broken == &connection->client)
        return CLOSE_client_error;
    return connection->state == CONNECT ? CLOSE_connect_failed : CLOSE_backend_error;
}

static void set_timer(struct connection *connection, ev_tstamp after) {
    ev_timer_stop(connection->worker->loop, &connection->timer);
    if (after <= 0)
        return;
    ev_timer_set(&connection->timer, after, 0.);
    ev_timer_start(connection->worker->loop, &connection->timer);
}

static void backend_connected(struct connection *connection) {
    connection->state = RELAY;
    set_timer(connection, (ev_tstamp)connection->worker->settings->idle_timeout_ns / NS_PER_S);
}

/* A backend that is down fails every connection: one line a second tells as much as a thousand. */
static void log_backend(const struct connection *connection, int error) {
    static ev_tstamp last_logged;
    char text[ADDRESS_TEXT_MAX];

    if (ev_now(connection->worker->loop) - last_logged < 1.)
        return;
    last_logged = ev_now(connection->worker->loop);
    log_error("backend %s: %s", address_format(&connection->worker->settings->backend, text), strerror(error));
}

static void connect_failed(struct connection *connection, int error) {
    log_backend(connection, error);
    close_connection(connection, error == EMFILE || error == ENFILE ? CLOSE_no_resources : CLOSE_connect_failed);
}

/* Runs the pumps that these events are for, then waits again. The connection may be gone afterwards. */
static void relay(struct connection *connection, int client_events, int backend_events) {
    struct buffer_pool *buffers = &connection->worker->buffers;
    struct pump *pumps[] = {&connection->up, &connection->down};

    connection->last_progress = ev_now(connection->worker->loop);
    for (int i = 0; i < 2 && connection->backend.fd >= 0; i++) {
        struct pump *pump = pumps[i];
        int from_events = pump->from == &connection->client ? client_events : backend_events;
        int to_events = pump->to == &connection->client ? client_events : backend_events;
        enum pump_result result = PUMP_OK;
        bool readable = !pump->write_wants && from_events & pump->read_wants;

        if (readable || to_events & pump->write_wants)
            result = pump_run(pump, buffers, readable);
        if (connection->state == CONNECT && connection->up.moved)
            backend_connected(connection);
        /* A socket that is not connected yet cannot be told that no more will come. */
        if (result == PUMP_OK && pump_must_end(pump) && connection->state == RELAY)
            result = pump_end(pump);
        if (result != PUMP_OK) {
            enum close_reason reason = reason_of(connection, pump, result);
            if (reason == CLOSE_connect_failed)
                connect_failed(connection, connection->backend.error);
            else
                close_connection(connection, reason);
            return;
        }
    }
    if (connection->up.to_told && connection->down.to_told)
        close_connection(connection, CLOSE_done);
    else
        watch(connection);
}

/* The backlog of a UNIX socket is full (EAGAIN): there is nothing to poll for but the clock. */
#define LOCAL_CONNECT_RETRY_S 0.002

/* False: the connection is gone. */
static bool start_backend(struct connection *connection) {
    int fd = address_connect(&connection->worker->settings->backend);

    connection->state = CONNECT;
    if (fd < 0 && errno == EAGAIN) {
        set_timer(connection, LOCAL_CONNECT_RETRY_S);
        return true;
    }
    if (fd < 0) {
        connect_failed(connection, errno);
        return false;
    }
    stream_open_plain(&connection->backend, fd);
    ev_io_set(&connection->backend_watcher, fd, EV_NONE);
    set_timer(connection, connection->connect_deadline - ev_now(connection->worker->loop));
    return true;
}

/* The backend's socket is ready: connected, or refused. */
static void finish_connecting(struct connection *connection) {
    int error = 0;
    socklen_t length = sizeof error;

    if (getsockopt(connection->backend.fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
        error = errno;
    if (error) {
        connect_failed(connection, error);
        return;
    }
    backend_connected(connection);
    relay(connection, 0, EV_WRITE);
}

static void handshake(struct connection *connection) {
    struct worker_counters *counters = connection->worker->counters;

    switch (stream_handshake(&connection->client)) {
    case STREAM_RETRY:
        watch(connection);
        return;
    case STREAM_OK:
        break;
    default:
        close_connection(connection, CLOSE_handshake_failed);
        return;
    }
    connection->handshake_done_ns = monotonic_ns();
    stats_add(SSL_session_reused(connection->client.ssl) ? &counters->handshakes_resumed : &counters->handshakes_full,
              1);
    connection->connect_deadline =
        ev_now(connection->worker->loop) + (ev_tstamp)connection->worker->settings->connect_timeout_ns / NS_PER_S;
    /* The client's first request often came with its Finished, and a backend on this machine is connected by now. */
    if (start_backend(connection))
        relay(connection, EV_READ, 0);
}

static void client_ready(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop;
    struct connection *connection = watcher->data;

    if (connection->state == HANDSHAKE)
        handshake(connection);
    else
        relay(connection, events, 0);
}

static void backend_ready(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop;
    struct connection *connection = watcher->data;

    if (connection->state == CONNECT)
        finish_connecting(connection);
    else
        relay(connection, 0, events);
}

static void time_out(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)events;
    struct connection *connection = timer->data;
    ev_tstamp left;

    switch (connection->state) {
    case HANDSHAKE:
        close_connection(connection, CLOSE_handshake_timeout);
        return;
    case CONNECT:
        if (ev_now(loop) >= connection->connect_deadline) {
            log_backend(connection, ETIMEDOUT);
            close_connection(connection, CLOSE_connect_timeout);
        } else if (connection->backend.fd >= 0) {
            set_timer(connection, connection->connect_deadline - ev_now(loop));
        } else if (start_backend(connection)) {
            relay(connection, EV_READ, 0);
        }
        return;
    case RELAY:
        left = connection->last_progress + (ev_tstamp)connection->worker->settings->idle_timeout_ns / NS_PER_S -
               ev_now(loop);
        if (left <= 0)
            close_connection(connection, CLOSE_idle_timeout);
        else
            set_timer(connection, left);
    }
}

void connection_new(struct worker *worker, int fd, const struct address *client) {
    struct connection *connection = calloc(1, sizeof *connection);

    worker->connections++;
    if (!connection || !stream_open_tls(&connection->client, fd, worker->tls, true)) {
        if (!connection)
            close(fd);
        free(connection);
        stats_add(&worker->counters->closed[CLOSE_no_resources], 1);
        worker_connection_ended(worker);
        return;
    }
    if (!address_is_local(&worker->settings->frontend))
        address_set_nodelay(fd);
    connection->worker = worker;
    connection->state = HANDSHAKE;
    connection->client_address = *client;
    connection->accepted_ns = monotonic_ns();
    connection->backend.fd = -1;
    connection->up = (struct pump){.from = &connection->client,
                                   .to = &connection->backend,
                                   .read_wants = EV_READ,
                                   .bytes_in = &worker->counters->bytes_from_client,
                                   .bytes_out = &worker->counters->bytes_to_backend};
    connection->down = (struct pump){.from = &connection->backend,
                                     .to = &connection->client,
                                     .read_wants = EV_READ,
                                     .bytes_in = &worker->counters->bytes_from_backend,
                                     .bytes_out = &worker->counters->bytes_to_client};
    ev_io_init(&connection->client_watcher, client_ready, fd, EV_READ);
    connection->client_watcher.data = connection;
    ev_init(&connection->backend_watcher, backend_ready);
    connection->backend_watcher.data = connection;
    ev_init(&connection->timer, time_out);
    connection->timer.data = connection;
    set_timer(connection, (ev_tstamp)worker->settings->handshake_timeout_ns / NS_PER_S);
    /* The ClientHello is usually there already. */
    handshake(connection);
}
