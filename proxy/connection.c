/* SPDX-License-Identifier: MIT */
#include "connection.h"

#include "clock.h"
#include "log.h"
#include "slowdown.h"
#include "tls_context.h"
#include "units.h"
#include "visit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Before anything is freed: the TLS library still knows what was agreed. */
static void report_end(const struct connection *connection, enum close_reason reason) {
    const struct stream *tls = connection->worker->settings->client_role ? &connection->backend : &connection->client;
    struct visit visit = {
        .client = &connection->client_address,
        .frontend = connection->door->name,
        .ssl = tls->ssl,
        .bytes_from_client =
            connection->up.moved > connection->header_bytes ? connection->up.moved - connection->header_bytes : 0,
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
        visit.failure = handshake_failure_of(tls->tls_error, tls->error);
    if (visit.failure != HANDSHAKE_NO_FAILURE)
        stats_add(&connection->door->counters->handshakes_failed, 1);
    visit_ended(connection->worker, &visit);
}

/* Whatever way it goes, it ends here, once, with all that is known of it still at hand. */
static void close_connection(struct connection *connection, enum close_reason reason) {
    struct worker *worker = connection->worker;

    report_end(connection, reason);
    stats_add(&worker->counters->closed[reason], 1);
    stats_add(&connection->door->counters->connections_closed, 1);
    ev_io_stop(worker->loop, &connection->client_watcher);
    ev_io_stop(worker->loop, &connection->backend_watcher);
    ev_timer_stop(worker->loop, &connection->timer);
    if (connection->state == QUEUED)
        admission_leave(&worker->admission, &connection->waiter);
    pump_close(&connection->up, &worker->buffers);
    pump_close(&connection->down, &worker->buffers);
    stream_close(&connection->client);
    stream_close(&connection->backend);
    if (connection->has_place)
        admission_give_back(&worker->admission);
    free(connection->header);
    free(connection);
    worker_connection_ended(worker);
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
    const struct pump *up = &connection->up, *down = &connection->down;
    int client = 0, backend = 0;

    switch (connection->state) {
    case PROXY_HEADER:
        client = EV_READ;
        break;
    case CLIENT_HANDSHAKE:
        client = connection->client.wants;
        break;
    case QUEUED:
        break;
    case BACKEND_HANDSHAKE:
        backend = up->buffer ? up->write_wants : connection->backend.wants;
        break;
    case CONNECT:
        if (connection->backend.fd < 0) /* only the clock matters: the connect is tried again */
            break;
        backend = EV_WRITE;
        if (!connection->worker->settings->client_role)
            client = pump_events(up, &connection->client);
        break;
    case RELAY:
        client = pump_events(up, &connection->client) | pump_events(down, &connection->client);
        backend = pump_events(up, &connection->backend) | pump_events(down, &connection->backend);
    }
    set_watcher(loop, &connection->client_watcher, client);
    set_watcher(loop, &connection->backend_watcher, backend);
    if (up->unfinished)
        ev_feed_event(loop, &connection->client_watcher, EV_READ);
    if (down->unfinished)
        ev_feed_event(loop, &connection->backend_watcher, EV_READ);
}

static void set_timer(struct connection *connection, ev_tstamp after) {
    ev_timer_stop(connection->worker->loop, &connection->timer);
    if (after <= 0)
        return;
    ev_timer_set(&connection->timer, after, 0.);
    ev_timer_start(connection->worker->loop, &connection->timer);
}

static ev_tstamp seconds(uint64_t ns) {
    return (ev_tstamp)ns / NS_PER_S;
}

/* How long RELAY may be without a byte; 0: for ever. */
static ev_tstamp silence_limit(const struct connection *connection) {
    const struct proxy_settings *settings = connection->worker->settings;
    uint64_t idle = settings->idle_timeout_ns, half_closed = settings->half_closed_timeout_ns;

    if ((connection->up.to_told || connection->down.to_told) && half_closed && (!idle || half_closed < idle))
        return seconds(half_closed);
    return seconds(idle);
}

/* A backend that is down fails every connection: one line a second tells as much as a thousand. */
static void log_backend(const struct connection *connection, int error) {
    static ev_tstamp last_logged;
    char text[ADDRESS_TEXT_MAX];

    if (worker_now(connection->worker) - last_logged < 1.)
        return;
    last_logged = worker_now(connection->worker);
    log_error("backend %s: %s", address_format(&connection->backend_address, text), strerror(error));
}

static enum close_reason reason_of(const struct connection *connection, const struct pump *pump,
                                   enum pump_result result) {
    const struct stream *broken = result == PUMP_FROM_BROKE ? pump->from : pump->to;

    if (result == PUMP_NO_MEMORY)
        return CLOSE_no_resources;
    return broken == &connection->client ? CLOSE_client_error : CLOSE_backend_error;
}

static void connect_failed(struct connection *connection, int error, enum close_reason reason);

static void backend_connected(struct connection *connection) {
    if (connection->worker->settings->client_role) {
        connection->state = BACKEND_HANDSHAKE;
        set_timer(connection, seconds(connection->worker->settings->handshake_timeout_ns));
    } else {
        connection->state = RELAY;
        set_timer(connection, silence_limit(connection));
    }
}

/* Lets the other side of a pump know that this one has ended. */
static enum pump_result pass_end_on(struct connection *connection, struct pump *pump) {
    const struct pump *other = pump == &connection->up ? &connection->down : &connection->up;
    enum pump_result result = pump_end(pump, other->to_told);

    if (pump->to_told && !other->to_told)
        set_timer(connection, silence_limit(connection));
    return result;
}

/*
 * Before TLS 1.3 who says close_notify wants no more either (RFC 5246, 7.2.1). Yet one that still waits for its answer,
 * or was never told anything, gets it, as with 1.3.
 */
static bool wants_all_closed(const struct connection *connection, const struct pump *pump) {
    return pump->from_ended && pump->from->wants_close && !pump->to_told && connection->spoke_last &&
           connection->spoke_last != pump && !connection->up.buffer && !connection->down.buffer;
}

/* Runs the pumps that these events are for, then waits again. The connection may be gone afterwards. */
static void relay(struct connection *connection, int client_events, int backend_events) {
    struct buffer_pool *buffers = &connection->worker->buffers;
    struct pump *pumps[] = {&connection->up, &connection->down};

    connection->last_progress = worker_now(connection->worker);
    for (int i = 0; i < 2; i++) {
        struct pump *pump = pumps[i];
        int from_events = pump->from == &connection->client ? client_events : backend_events;
        int to_events = pump->to == &connection->client ? client_events : backend_events;
        enum pump_result result = PUMP_OK;
        bool readable = !pump->write_wants && from_events & pump->read_wants;
        uint64_t moved = pump->moved;

        if (readable || to_events & pump->write_wants)
            result = pump_run(pump, buffers, readable);
        if (pump->moved != moved)
            connection->spoke_last = pump;
        if (connection->state == CONNECT && connection->up.moved)
            backend_connected(connection);
        if (connection->state == CONNECT && result == PUMP_TO_BROKE) {
            connect_failed(connection, connection->backend.error, CLOSE_connect_failed);
            return;
        }
        if (result == PUMP_OK && pump->from->hung_up && !pump->buffer) {
            close_connection(connection, CLOSE_hung_up);
            return;
        }
        if (result == PUMP_OK && wants_all_closed(connection, pump)) {
            stream_say_end(pump->from);
            close_connection(connection, CLOSE_done);
            return;
        }
        /* A socket that is not connected yet cannot be told that no more will come. */
        if (result == PUMP_OK && pump_must_end(pump) && connection->state == RELAY)
            result = pass_end_on(connection, pump);
        if (result != PUMP_OK) {
            close_connection(connection, reason_of(connection, pump, result));
            return;
        }
    }
    if (connection->up.to_told && connection->down.to_told)
        close_connection(connection, CLOSE_done);
    else
        watch(connection);
}

static void count_handshake(struct connection *connection, const SSL *ssl) {
    struct worker_counters *counters = connection->worker->counters;
    struct frontend_counters *here = connection->door->counters;

    connection->handshake_done_ns = monotonic_ns();
    stats_add(SSL_session_reused(ssl) ? &counters->handshakes_resumed : &counters->handshakes_full, 1);
    stats_add(SSL_session_reused(ssl) ? &here->handshakes_resumed : &here->handshakes_full, 1);
    slowdown_after_handshake();
}

/*
 * --client: what the backend is to hear in the clear, then TLS. In CONNECT it is tried before the backend is known to
 * be connected, as it mostly is.
 */
static void shake_hands_with_backend(struct connection *connection) {
    struct worker *worker = connection->worker;
    struct stream *backend = &connection->backend;
    bool failed = false;

    if (connection->up.buffer) {
        failed = pump_write(&connection->up, &worker->buffers) != PUMP_OK;
        if (connection->state == CONNECT && connection->up.moved)
            backend_connected(connection);
        if (!failed && connection->up.buffer) {
            watch(connection);
            return;
        }
    }
    if (!failed && !backend->ssl &&
        (!stream_open_tls(backend, backend->fd, connection->door->tls, false) ||
         !tls_context_prepare_client(backend->ssl))) {
        close_connection(connection, CLOSE_no_resources);
        return;
    }
    switch (failed ? STREAM_ERROR : stream_handshake(backend)) {
    case STREAM_OK:
        count_handshake(connection, backend->ssl);
        connection->state = RELAY;
        set_timer(connection, silence_limit(connection));
        relay(connection, EV_READ, EV_READ);
        return;
    case STREAM_RETRY:
        if (connection->state == CONNECT && backend->wants == EV_READ) /* its hello is out */
            backend_connected(connection);
        watch(connection);
        return;
    default:
        if (connection->state == CONNECT && (failed || !BIO_number_written(SSL_get_wbio(backend->ssl))))
            connect_failed(connection, backend->error, CLOSE_connect_failed);
        else
            close_connection(connection, CLOSE_handshake_failed);
    }
}

/* The backlog of a UNIX socket is full (EAGAIN): there is nothing to poll for but the clock. */
#define LOCAL_CONNECT_RETRY_S 0.002

/* A socket is on its way to the address: what there is to say is tried on it at once. */
static void begin_talking(struct connection *connection) {
    if (connection->worker->settings->client_role)
        shake_hands_with_backend(connection);
    else
        /* The client's first request often came with its Finished, and a backend on this machine is connected by now.
         */
        relay(connection, EV_READ, 0);
}

static void connect_to(struct connection *connection, const struct address *address) {
    int fd = address_connect(address);

    if (fd < 0 && errno == EAGAIN) {
        set_timer(connection, LOCAL_CONNECT_RETRY_S);
        watch(connection);
        return;
    }
    if (fd < 0) {
        connect_failed(connection, errno, CLOSE_connect_failed);
        return;
    }
    stream_open_plain(&connection->backend, fd);
    ev_io_set(&connection->backend_watcher, fd, EV_NONE);
    set_timer(connection, connection->connect_deadline - worker_now(connection->worker));
    begin_talking(connection);
}

/* False: all addresses have been tried. */
static bool connect_to_next(struct connection *connection) {
    struct worker *worker = connection->worker;
    ev_tstamp now = worker_now(worker);
    const struct address *address = backend_choose(&worker->backends, &connection->tried, now);

    if (!address)
        return false;
    connection->backend_address = *address;
    connection->connect_deadline = now + seconds(worker->settings->connect_timeout_ns);
    connect_to(connection, &connection->backend_address);
    return true;
}

/* The address that was tried is of no use now: another one, or the end. Nothing has been sent yet. */
static void connect_failed(struct connection *connection, int error, enum close_reason reason) {
    struct worker *worker = connection->worker;

    log_backend(connection, error);
    if (error == EMFILE || error == ENFILE) {
        close_connection(connection, CLOSE_no_resources);
        return;
    }
    backend_is_down(&worker->backends, &connection->backend_address, worker_now(worker));
    set_watcher(worker->loop, &connection->backend_watcher, 0);
    stream_close(&connection->backend);
    connection->up.write_wants = 0;
    if (!connect_to_next(connection))
        close_connection(connection, reason);
}

/* What the backend is to hear first waits in the buffer, so that it leaves with what the client says, if it does. */
static bool prepare_header(struct connection *connection) {
    enum proxy_header_kind kind = connection->worker->settings->header;
    struct buffer *buffer;

    if (kind == HEADER_NONE)
        return true;
    buffer = connection->up.buffer = buffer_take(&connection->worker->buffers);
    if (!buffer)
        return false;
    if (kind == HEADER_PASSED_ON) {
        memcpy(buffer->bytes, connection->header->bytes, connection->header->length);
        buffer->end = connection->header->length;
        free(connection->header);
        connection->header = NULL;
    } else {
        buffer->end = proxy_header_make(buffer->bytes, kind, connection->worker->settings->proxy_authority != 0,
                                        &connection->client_address, connection->client.fd, connection->client.ssl);
    }
    connection->header_bytes = buffer->end;
    return true;
}

static void begin_connecting(struct connection *connection) {
    connection->has_place = true;
    connection->state = CONNECT;
    if (!prepare_header(connection))
        close_connection(connection, CLOSE_no_resources);
    else if (!connect_to_next(connection))
        close_connection(connection, CLOSE_connect_failed);
}

void connection_admitted(void *owner) {
    begin_connecting(owner);
}

void connection_left_queue(void *owner) {
    close_connection(owner, CLOSE_left_queue);
}

/* All is known of the client that must be known before the backend hears of it. */
static void ask_for_backend(struct connection *connection) {
    struct worker *worker = connection->worker;

    connection->waiter.owner = connection;
    connection->waiter.fd = connection->client.fd;
    if (admission_ask(&worker->admission, &connection->waiter)) {
        begin_connecting(connection);
        return;
    }
    stats_add(&worker->counters->queued, 1);
    connection->state = QUEUED;
    set_timer(connection, seconds(worker->settings->queue_timeout_ns));
    watch(connection);
}

/* The backend's socket is ready: connected, or refused. */
static void finish_connecting(struct connection *connection) {
    int error = 0;
    socklen_t length = sizeof error;

    if (getsockopt(connection->backend.fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
        error = errno;
    if (error) {
        connect_failed(connection, error, CLOSE_connect_failed);
        return;
    }
    backend_connected(connection);
    if (connection->state == BACKEND_HANDSHAKE)
        shake_hands_with_backend(connection);
    else
        relay(connection, 0, EV_WRITE);
}

static void shake_hands_with_client(struct connection *connection) {
    enum stream_result result = stream_handshake(&connection->client);

    tls_context_step_done();
    switch (result) {
    case STREAM_RETRY:
        watch(connection);
        return;
    case STREAM_OK:
        count_handshake(connection, connection->client.ssl);
        ask_for_backend(connection);
        return;
    default:
        close_connection(connection, CLOSE_handshake_failed);
    }
}

/* The client's first byte after any PROXY header. */
static void begin_client(struct connection *connection) {
    struct worker *worker = connection->worker;

    if (worker->settings->client_role) {
        ask_for_backend(connection);
        return;
    }
    if (!stream_open_tls(&connection->client, connection->client.fd, connection->door->tls, true)) {
        close_connection(connection, CLOSE_no_resources);
        return;
    }
    tls_context_prepare_server(connection->client.ssl, &connection->client_watcher);
    connection->state = CLIENT_HANDSHAKE;
    shake_hands_with_client(connection);
}

static void receive_header(struct connection *connection) {
    switch (proxy_header_receive(&connection->header, connection->client.fd, &connection->client_address)) {
    case HEADER_OK:
        begin_client(connection);
        return;
    case HEADER_RETRY:
        watch(connection);
        return;
    case HEADER_BAD:
        close_connection(connection, CLOSE_bad_proxy_header);
        return;
    case HEADER_NO_MEMORY:
        close_connection(connection, CLOSE_no_resources);
    }
}

static void client_ready(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop;
    struct connection *connection = watcher->data;

    if (connection->state == CLIENT_HANDSHAKE)
        shake_hands_with_client(connection);
    else if (connection->state == PROXY_HEADER)
        receive_header(connection);
    else
        relay(connection, events, 0);
}

static void backend_ready(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop;
    struct connection *connection = watcher->data;

    if (connection->state == CONNECT)
        finish_connecting(connection);
    else if (connection->state == BACKEND_HANDSHAKE)
        shake_hands_with_backend(connection);
    else
        relay(connection, 0, events);
}

static void time_out(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct connection *connection = timer->data;
    ev_tstamp left;

    switch (connection->state) {
    case PROXY_HEADER:
    case CLIENT_HANDSHAKE:
    case BACKEND_HANDSHAKE:
        close_connection(connection, CLOSE_handshake_timeout);
        return;
    case QUEUED:
        close_connection(connection, CLOSE_queue_timeout);
        return;
    case CONNECT:
        if (worker_now(connection->worker) >= connection->connect_deadline)
            connect_failed(connection, ETIMEDOUT, CLOSE_connect_timeout);
        else if (connection->backend.fd >= 0)
            set_timer(connection, connection->connect_deadline - worker_now(connection->worker));
        else
            connect_to(connection, &connection->backend_address);
        return;
    case RELAY:
        left = connection->last_progress + silence_limit(connection) - worker_now(connection->worker);
        if (left > 0)
            set_timer(connection, left);
        else
            close_connection(connection, connection->up.to_told || connection->down.to_told ? CLOSE_half_closed_timeout
                                                                                            : CLOSE_idle_timeout);
    }
}

void connection_new(const struct door *door, int fd, const struct address *client) {
    struct connection *connection = calloc(1, sizeof *connection);
    struct worker *worker = door->worker;

    worker->connections++;
    if (!connection) {
        close(fd);
        stats_add(&worker->counters->closed[CLOSE_no_resources], 1);
        stats_add(&door->counters->connections_closed, 1);
        worker_connection_ended(worker);
        return;
    }
    connection->worker = worker;
    connection->door = door;
    connection->client_address = *client;
    address_unmap(&connection->client_address);
    connection->accepted_ns = monotonic_ns();
    stream_open_plain(&connection->client, fd);
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
    set_timer(connection, seconds(worker->settings->handshake_timeout_ns));
    /* What the client says first is usually there already. */
    if (worker->settings->header == HEADER_PASSED_ON) {
        connection->state = PROXY_HEADER;
        receive_header(connection);
    } else {
        begin_client(connection);
    }
}
