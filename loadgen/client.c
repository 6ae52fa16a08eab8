/* SPDX-License-Identifier: MIT */
#include "client.h"

#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_NS      NS_PER_S
#define BACKOFF_MIN_NS (10 * NS_PER_MS)
#define BACKOFF_MAX_NS NS_PER_S

/* Each state has a step; it returns true if the next state can be worked on at once, false if an event must come. */
static bool step(struct client *client);

/* ---- Watchers and the end of a connection ---- */

static int wanted_events(const struct client *client) {
    const struct engine *engine = client->worker->engine;

    switch (client->state) {
    case CLIENT_CONNECTING:
        return EV_WRITE;
    case CLIENT_HANDSHAKING:
    case CLIENT_ENDING:
        return engine->wants(client->connection);
    case CLIENT_SENDING:
        return EV_READ | EV_WRITE;
    case CLIENT_RECEIVING:
    case CLIENT_LINGERING:
        return client->read_wants;
    case CLIENT_IDLE:
    case CLIENT_BACKING_OFF:
    case CLIENT_DONE:
        break;
    }
    return 0;
}

/* The only place that starts the watcher. */
static void watch(struct client *client) {
    int events = client->fd >= 0 ? wanted_events(client) : 0;

    if (ev_is_active(&client->io) && client->io.fd == client->fd &&
        (client->io.events & (EV_READ | EV_WRITE)) == events)
        return;
    ev_io_stop(client->worker->loop, &client->io);
    if (!events)
        return;
    ev_io_set(&client->io, client->fd, events);
    ev_io_start(client->worker->loop, &client->io);
}

static void run(struct client *client) {
    while (step(client))
        ;
    watch(client);
}

static void on_event(struct ev_loop *loop, ev_io *io, int events) {
    (void)loop, (void)events;
    run((struct client *)io);
}

/*
 * The one end of every connection, and of every attempt at one: here it is counted, once, if it went wrong. Always
 * true: the slot goes on.
 */
static bool finish(struct client *client, enum load_error error, uint64_t now_ns) {
    struct worker *worker = client->worker;

    ev_io_stop(worker->loop, &client->io);
    if (client->engine_open)
        worker->engine->close(client->connection);
    else if (client->fd >= 0)
        close(client->fd);
    client->engine_open = false;
    client->fd = -1;
    client->state = CLIENT_IDLE;
    if (error == LOAD_NO_ERROR)
        return true;
    worker->counters->errors[error]++;
    worker->last_done_ns = now_ns;
    client->state = CLIENT_BACKING_OFF;
    client->deadline_ns = now_ns + (BACKOFF_MIN_NS << client->failures);
    if (BACKOFF_MIN_NS << (client->failures + 1) <= BACKOFF_MAX_NS)
        client->failures++;
    return true;
}

static bool finish_for(struct client *client, enum stream_result result, uint64_t now_ns) {
    if (result == STREAM_EOF)
        return finish(client, LOAD_UNEXPECTED_EOF, now_ns);
    return finish(client, client->worker->engine->why(client->connection), now_ns);
}

static void set_deadline(struct client *client, uint64_t now_ns) {
    client->deadline_ns = now_ns + client->worker->plan->timeout_ns;
}

/* ---- Connect ---- */

static bool refused(struct client *client, int error_number, uint64_t now_ns) {
    enum load_error error = load_error_of_connect(error_number);
    struct worker *worker = client->worker;

    /* A UNIX socket whose queue is full says EAGAIN: somebody listens there. */
    if (error == LOAD_CONNECT_REFUSED && error_number != EAGAIN && !worker->start->reached[client->target])
        worker_no_target(worker, client->target, error_number);
    return finish(client, error, now_ns);
}

/*
 * On loopback a connection is there, or refused, when connect() returns, though it says EINPROGRESS: asking again saves
 * an event. 0: connected, EALREADY: not yet, else why not.
 */
static int ask_again(const struct client *client) {
    const struct address *address = &client->worker->plan->target[client->target].address;

    return connect(client->fd, &address->sockaddr.any, address->length) == 0 || errno == EISCONN ? 0 : errno;
}

static bool connected(struct client *client, uint64_t now_ns) {
    struct worker *worker = client->worker;
    const struct plan *plan = worker->plan;
    const struct target *target = &plan->target[client->target];
    const char *server_name = plan->server_name ? plan->server_name : target->host_is_name ? target->host : NULL;
    int fd = client->fd;

    worker->start->reached[client->target] = true;
    worker->counters->connections_opened++;
    worker_count_latency(worker, LATENCY_CONNECT, now_ns - client->connect_ns);
    client->connected_ns = now_ns;
    client->requests = 0;
    client->read_wants = EV_READ;
    client->state = CLIENT_HANDSHAKING;
    set_deadline(client, now_ns);
    if (!worker->engine->open(worker->engine, client->connection, fd, server_name,
                              session_slot_offer(&client->sessions), client)) {
        client->fd = -1;
        return finish(client, LOAD_FD_UNAVAILABLE, now_ns);
    }
    client->engine_open = true;
    session_slot_used(&client->sessions);
    return true;
}

static bool step_idle(struct client *client) {
    struct worker *worker = client->worker;
    const struct plan *plan = worker->plan;
    uint64_t now_ns = worker_now(worker);
    int error;

    if (!pacing_begin(&worker->pacing, worker->phase)) {
        client->state = CLIENT_DONE;
        worker_client_done(worker);
        return false;
    }
    client->target = (int)(((uint64_t)client->index + client->attempts++) % (uint64_t)plan->targets);
    client->connect_ns = now_ns;
    client->state = CLIENT_CONNECTING;
    set_deadline(client, now_ns);
    client->fd = address_connect(&plan->target[client->target].address);
    if (client->fd < 0)
        return refused(client, errno, now_ns);
    error = ask_again(client);
    if (error == EALREADY)
        return false;
    now_ns = worker_now(worker);
    return error ? refused(client, error, now_ns) : connected(client, now_ns);
}

static bool step_connecting(struct client *client) {
    uint64_t now_ns = worker_now(client->worker);
    int error = 0;
    socklen_t length = sizeof error;

    if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
        error = errno;
    return error ? refused(client, error, now_ns) : connected(client, now_ns);
}

/* ---- Transactions ---- */

static bool begin_request(struct client *client, uint64_t now_ns) {
    client->request_ns = now_ns;
    client->sent_bytes = 0;
    client->body_bytes = 0;
    client->answered = false;
    if (client->worker->plan->method == METHOD_HEAD)
        http_framing_expect_no_body(&client->framing);
    client->state = CLIENT_SENDING;
    set_deadline(client, now_ns);
    return true;
}

static bool begin_end(struct client *client, uint64_t now_ns) {
    client->state = CLIENT_ENDING;
    set_deadline(client, now_ns);
    return true;
}

static void count_handshake(struct client *client, uint64_t now_ns) {
    struct worker *worker = client->worker;
    struct counters *counters = worker->counters;
    struct engine_facts facts;

    worker->engine->facts(client->connection, &facts);
    if (facts.resumed)
        counters->handshakes_resumed++;
    else
        counters->handshakes_full++;
    if (facts.offered)
        counters->resume_offered++;
    if (facts.offered && !facts.resumed)
        counters->resume_refused++;
    worker_count_latency(worker, facts.resumed ? LATENCY_HANDSHAKE_RESUMED : LATENCY_HANDSHAKE_FULL,
                         now_ns - client->connected_ns);
    tally_negotiated(worker->tally, &facts);
    session_slot_completed(&client->sessions);
}

static bool step_handshaking(struct client *client) {
    struct worker *worker = client->worker;
    enum stream_result result = worker->engine->handshake(client->connection);
    uint64_t now_ns;

    if (result == STREAM_RETRY)
        return false;
    now_ns = worker_now(worker);
    if (result != STREAM_OK)
        return finish_for(client, result, now_ns);
    if (worker->plan->target[client->target].tls)
        count_handshake(client, now_ns);
    client->failures = 0;
    if (worker->plan->requests_per_connection == 0) {
        worker_count_op(worker, now_ns);
        return begin_end(client, now_ns);
    }
    http_framing_init_response(&client->framing);
    return begin_request(client, now_ns);
}

/* The response is complete. at_end: and nothing can follow it, the target has closed its side. */
static bool response_done(struct client *client, bool at_end, uint64_t now_ns) {
    struct worker *worker = client->worker;
    const struct plan *plan = worker->plan;

    if (client->framing.status >= 400)
        return finish(client, LOAD_HTTP_STATUS, now_ns);
    if (client->state == CLIENT_SENDING)
        return finish(client, LOAD_PAYLOAD_MISMATCH, now_ns); /* it cannot be the answer to what is not yet asked */
    if (plan->check_body && client->body_bytes != plan->request[client->target].body_bytes)
        return finish(client, LOAD_PAYLOAD_MISMATCH, now_ns);
    worker->counters->transactions++;
    worker_count_op(worker, now_ns);
    worker_count_latency(worker, LATENCY_TRANSACTION, now_ns - client->request_ns);
    if (worker->phase == PHASE_MEASURED)
        tally_body(worker->tally, client->body_bytes);
    client->requests++;
    if (at_end)
        return finish(client, LOAD_NO_ERROR, now_ns);
    if (!client->framing.keep_alive || client->requests >= plan->requests_per_connection ||
        !pacing_begin(&worker->pacing, worker->phase))
        return begin_end(client, now_ns);
    return begin_request(client, now_ns);
}

/* length bytes of the response lie in the worker's buffer. True if they changed the state. */
static bool take_bytes(struct client *client, size_t length, uint64_t now_ns) {
    struct worker *worker = client->worker;
    struct http_framing *framing = &client->framing;
    const char *bytes = worker->bytes;

    worker->counters->bytes_received += length;
    if (!client->answered) {
        client->answered = true;
        worker_count_latency(worker, LATENCY_TTFB, now_ns - client->request_ns);
    }
    while (length > 0) {
        size_t used = http_framing_feed(framing, bytes, length);
        bytes += used;
        length -= used;
        switch (framing->event) {
        case HTTP_MORE:
        case HTTP_HEADERS:
            break;
        case HTTP_BODY:
            if (worker->plan->check_body && framing->status < 400 &&
                (client->body_bytes + framing->body_bytes > worker->plan->request[client->target].body_bytes ||
                 !request_body_matches(client->body_bytes, framing->body, framing->body_bytes)))
                return finish(client, LOAD_PAYLOAD_MISMATCH, now_ns);
            client->body_bytes += framing->body_bytes;
            break;
        case HTTP_DONE:
            if (framing->status < 200)
                break; /* 100 Continue and its like: the response is still to come */
            if (length > 0)
                return finish(client, LOAD_PAYLOAD_MISMATCH, now_ns); /* an answer that nobody asked for */
            return response_done(client, false, now_ns);
        case HTTP_BAD:
            return finish(client, LOAD_PAYLOAD_MISMATCH, now_ns);
        }
    }
    return false;
}

/*
 * Reads until the response is complete or there is no more for now. As the last read of a response completes it, none
 * is wasted on finding out that there is nothing more.
 *
 * The end of the stream before the response is complete is unexpected_eof, also on a kept-alive connection before the
 * first byte: a target that wants to close says so in the response before ("Connection: close", which is no error). A
 * request that was sent and not answered is lost, whatever the target's reason.
 */
static bool receive(struct client *client) {
    struct worker *worker = client->worker;

    for (;;) {
        size_t got;
        enum stream_result result = worker->engine->read(client->connection, worker->bytes, sizeof worker->bytes, &got);
        if (result == STREAM_RETRY) {
            client->read_wants = worker->engine->wants(client->connection);
            return false;
        }
        uint64_t now_ns = worker_now(worker);
        if (result == STREAM_EOF && client->answered) {
            http_framing_feed(&client->framing, NULL, 0);
            if (client->framing.event == HTTP_DONE)
                return response_done(client, true, now_ns);
        }
        if (result != STREAM_OK)
            return finish_for(client, result, now_ns);
        set_deadline(client, now_ns);
        if (take_bytes(client, got, now_ns))
            return true;
    }
}

/*
 * A write failed with this error. The target may have said why before it closed: an alert that is still to be read
 * tells more.
 */
static enum load_error last_words(struct client *client, enum load_error error) {
    struct worker *worker = client->worker;
    enum stream_result result;
    size_t got;

    do
        result = worker->engine->read(client->connection, worker->bytes, sizeof worker->bytes, &got);
    while (result == STREAM_OK);
    if (result == STREAM_ERROR && worker->engine->why(client->connection) == LOAD_TLS_ALERT)
        return LOAD_TLS_ALERT;
    return error;
}

static bool step_sending(struct client *client) {
    struct worker *worker = client->worker;
    const struct request *request = &worker->plan->request[client->target];

    while (client->sent_bytes < request->total_bytes) {
        size_t put, length;
        const char *bytes = request_piece(request, client->sent_bytes, &length);
        enum stream_result result = worker->engine->write(client->connection, bytes, length, &put);
        if (result == STREAM_RETRY)
            return receive(client); /* an echo must be taken while the rest goes out, or both sides wait for ever */
        if (result != STREAM_OK) {
            enum load_error error = worker->engine->why(client->connection);
            return finish(client, last_words(client, error), worker_now(worker));
        }
        client->sent_bytes += put;
        worker->counters->bytes_sent += put;
        if (client->sent_bytes < request->total_bytes)
            set_deadline(client, worker_now(worker));
    }
    client->state = CLIENT_RECEIVING;
    client->read_wants = EV_READ;
    return false; /* nobody answers that fast: reading now would be in vain */
}

/* ---- The end ---- */

static bool begin_linger(struct client *client) {
    client->state = CLIENT_LINGERING;
    client->read_wants = EV_READ;
    client->deadline_ns = worker_now(client->worker) + LINGER_NS;
    return false;
}

/*
 * The work is done and counted: whatever the target does from here on is no error of it. After close_notify and FIN we
 * wait for the target's: closing at once would answer what it still has to send (TLS 1.3 tickets, its own close_notify)
 * with RST, and a server that meets RST in the middle of sending its tickets counts a failed handshake.
 */
static bool step_ending(struct client *client) {
    struct worker *worker = client->worker;

    switch (worker->plan->close_how) {
    case CLOSE_RST: {
        const struct linger linger = {.l_onoff = 1, .l_linger = 0};
        setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        return finish(client, LOAD_NO_ERROR, worker_now(worker));
    }
    case CLOSE_FIN:
        if (shutdown(client->fd, SHUT_WR) != 0)
            return finish(client, LOAD_NO_ERROR, worker_now(worker));
        break;
    case CLOSE_NOTIFY: {
        enum stream_result result = worker->engine->end(client->connection);
        if (result == STREAM_RETRY)
            return false;
        if (result != STREAM_OK) {
            bool unsure = worker->plan->requests_per_connection == 0; /* as in step_lingering */
            enum load_error error = unsure ? last_words(client, LOAD_NO_ERROR) : LOAD_NO_ERROR;
            return finish(client, error, worker_now(worker));
        }
        break;
    }
    }
    return begin_linger(client);
}

static bool step_lingering(struct client *client) {
    struct worker *worker = client->worker;
    enum load_error error = LOAD_NO_ERROR;

    for (;;) {
        size_t got;
        enum stream_result result = worker->engine->read(client->connection, worker->bytes, sizeof worker->bytes, &got);
        if (result == STREAM_OK)
            continue;
        if (result == STREAM_RETRY) {
            client->read_wants = worker->engine->wants(client->connection);
            return false;
        }
        /* A TLS 1.3 server refuses a handshake (our Finished) only after we hold it for done. */
        if (result == STREAM_ERROR && worker->plan->requests_per_connection == 0) {
            error = worker->engine->why(client->connection);
            if (error != LOAD_TLS_ALERT && error != LOAD_TLS_PROTOCOL)
                error = LOAD_NO_ERROR;
        }
        return finish(client, error, worker_now(worker));
    }
}

static bool step(struct client *client) {
    switch (client->state) {
    case CLIENT_IDLE:
        return step_idle(client);
    case CLIENT_CONNECTING:
        return step_connecting(client);
    case CLIENT_HANDSHAKING:
        return step_handshaking(client);
    case CLIENT_SENDING:
        return step_sending(client);
    case CLIENT_RECEIVING:
        return receive(client);
    case CLIENT_ENDING:
        return step_ending(client);
    case CLIENT_LINGERING:
        return step_lingering(client);
    case CLIENT_BACKING_OFF:
        /* A slot whose next connection would not be allowed anyway has nothing to wait for. */
        if (pacing_is_exhausted(&client->worker->pacing, client->worker->phase)) {
            client->state = CLIENT_IDLE;
            return true;
        }
        return false;
    case CLIENT_DONE:
        return false;
    }
    return false;
}

/* ---- Deadlines ---- */

void client_check_deadline(struct client *client, uint64_t now_ns, bool give_up) {
    enum load_error error;

    if (client->state == CLIENT_DONE || (!give_up && now_ns < client->deadline_ns)) {
        if (client->state == CLIENT_BACKING_OFF)
            run(client); /* the phase may have ended meanwhile */
        return;
    }
    switch (client->state) {
    case CLIENT_CONNECTING:
        error = LOAD_CONNECT_TIMEOUT;
        break;
    case CLIENT_HANDSHAKING:
        error = LOAD_TLS_TIMEOUT;
        break;
    case CLIENT_SENDING:
    case CLIENT_RECEIVING:
    case CLIENT_ENDING:
        error = LOAD_IO_TIMEOUT;
        break;
    case CLIENT_LINGERING:
        client->worker->counters->closes_unanswered++;
        error = LOAD_NO_ERROR;
        break;
    default:
        error = LOAD_NO_ERROR;
    }
    finish(client, error, now_ns);
    run(client);
}

/* ---- Life ---- */

void client_init(struct client *client, struct worker *worker, int index) {
    const struct plan *plan = worker->plan;

    client->worker = worker;
    client->index = index;
    client->fd = -1;
    client->connection = calloc(1, worker->engine->connection_bytes);
    if (!client->connection)
        fail(EXIT_FAILED, "worker %d: out of memory for connection %d", worker->index, index);
    session_slot_init(&client->sessions, &plan->sessions, worker->engine, (uint64_t)index, plan->connections);
    ev_init(&client->io, on_event);
}

void client_begin(struct client *client) {
    run(client);
}

void client_end(struct client *client) {
    ev_io_stop(client->worker->loop, &client->io);
    if (client->engine_open)
        client->worker->engine->close(client->connection);
    else if (client->fd >= 0)
        close(client->fd);
    session_slot_end(&client->sessions);
    free(client->connection);
}

void client_session_arrived(void *owner, void *session) {
    struct client *client = owner;

    session_slot_keep(&client->sessions, session);
}
