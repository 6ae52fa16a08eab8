/* SPDX-License-Identifier: MIT */
#include "connection.h"

#include "known_requests.h"
#include "log.h"
#include "output.h"
#include "request.h"
#include "respond.h"
#include "ring.h"
#include "stream.h"
#include "watcher.h"

#include <stddef.h>
#include <stdlib.h>

#define TARGET_BYTES 2048

/* The structure that a part belongs to. */
#define container_of(part, type, member) ((type *)(void *)((char *)(part)-offsetof(type, member)))

/* How long a client may go on sending after it was told that its connection ends. */
#define LINGER_S 2.0

/* So many reads or writes in a row, then it is the turn of the other connections. */
#define TURNS 16

/* So many known requests in a row, each by itself, and the connection takes a seat on the ring: more than it costs. */
#define KNOWN_BEFORE_RING 16

struct connection {
    /* What every request touches, together in few cache lines. */
    struct stream stream;
    struct worker *worker;
    struct activity activity;
    struct watcher watcher;
    int read_wants; /* what the stream last wanted to read and to write; TLS may want the other one */
    int write_wants;
    /* State; what is watched follows from it (see wanted_events). */
    bool awaited;      /* what a proxy says first is not all there */
    bool shaking;      /* the TLS handshake goes on */
    bool delayed;      /* the answer is not due yet: the request is in service, or the timer runs */
    bool yielding;     /* others have their turn */
    bool answer_due;   /* the request is complete, its answer was not made yet */
    bool echo_begun;   /* the head of an echo was made */
    bool in_request;   /* a request's head was read, its end was not */
    bool between;      /* the next byte begins a request */
    bool whole;        /* input has the request that is being read from its beginning on, at request_at */
    bool parser_spent; /* it takes no more requests: it thinks that it saw the last one */
    bool ending;       /* the connection is closed when the output is sent */
    bool rude;         /* the client may be sending still: see LINGER_S */
    bool lingering;    /* all is sent; what still comes is thrown away */
    bool read_ended;   /* the client sends no more */
    size_t request_at;
    int known_in_row;       /* requests that were known and came by themselves */
    uint64_t requests;      /* so far */
    uint64_t ring_requests; /* of them, on the ring */
    struct buffer *input;   /* NULL: all that was read is used up */
    struct output output;
    struct seat seat; /* while it is taken, only the ring and what it calls touch the connection */

    /* What a known request does not touch. */
    struct connection *next_spare;
    ev_timer timer; /* of delayed, yielding and lingering */
    struct prologue prologue;
    struct service_job job;
    struct request request;
    struct http_framing framing;
    char target[TARGET_BYTES];
};

enum step {
    STEP_ON,     /* done, or nothing to do */
    STEP_WAIT,   /* not before the socket or the timer says so */
    STEP_CLOSED, /* the connection is no more */
};

static int wanted_events(const struct connection *connection) {
    if (connection->seat.taken)
        return 0;
    if (connection->awaited)
        return EV_READ;
    if (connection->shaking)
        return connection->stream.wants;
    if (connection->yielding)
        return connection->watcher.events; /* for less than a loop's round: not worth two system calls */
    if (connection->delayed)
        return 0;
    if (!output_is_empty(&connection->output))
        return connection->write_wants;
    return connection->read_wants;
}

static void drop_input(struct connection *connection) {
    if (connection->input)
        buffer_give(connection->input);
    connection->input = NULL;
    connection->whole = false;
}

static void close_connection(struct connection *connection) {
    struct worker *worker = connection->worker;

    watcher_set(worker->loop, &connection->watcher, 0);
    ev_timer_stop(worker->loop, &connection->timer);
    if (worker->service)
        service_queue_leave(worker->service, &connection->job);
    prologue_drop(&connection->prologue);
    stream_close(&connection->stream);
    drop_input(connection);
    ring_forget_received(&connection->seat);
    output_drop(&connection->output);
    activity_end(&worker->activities, &connection->activity);
    connection->next_spare = worker->spare;
    worker->spare = connection;
}

static void start_timer(struct connection *connection, ev_tstamp after_s) {
    ev_timer_stop(connection->worker->loop, &connection->timer);
    ev_timer_set(&connection->timer, after_s, 0.);
    ev_timer_start(connection->worker->loop, &connection->timer);
}

static enum step yield_turn(struct connection *connection) {
    connection->yielding = true;
    start_timer(connection, 0.);
    return STEP_WAIT;
}

/*
 * The one place where an answer is made to take its time: first the request is in service, as long as the model says,
 * then the answer waits for what the request's own key asks. Who asks about the server is no part of its load.
 */
static void delay_answer(struct connection *connection, bool was_served) {
    const struct request *request = &connection->request;
    bool is_load = request->kind == REQUEST_OBJECT || request->kind == REQUEST_ECHO;

    if (connection->worker->service && is_load && !was_served) {
        connection->delayed = true;
        service_queue_join(connection->worker->service, &connection->job);
    } else if (request->delay_ns > 0) {
        connection->delayed = true;
        start_timer(connection, (ev_tstamp)request->delay_ns * 1e-9);
    }
}

static void request_ended(struct connection *connection, bool keep_alive) {
    connection->in_request = false;
    connection->echo_begun = false;
    if (!keep_alive)
        connection->ending = true;
    else if (connection->parser_spent) /* kept by key K */
        http_framing_init_request(&connection->framing, connection->target, sizeof connection->target);
    connection->parser_spent = false;
}

/* What came is not HTTP, or is cut short. An echo that has begun can only be broken off. */
static void refuse(struct connection *connection, const char *reason) {
    if (!connection->echo_begun)
        respond_bad(&connection->output, reason);
    connection->ending = true;
    connection->rude = true;
}

static void begin_echo(struct connection *connection) {
    if (!connection->echo_begun)
        respond_echo_head(&connection->output, &connection->request);
    connection->echo_begun = true;
}

static void answer(struct connection *connection, const struct request *request) {
    const struct worker *worker = connection->worker;
    const struct whoami_facts facts = {
        .stream = &connection->stream,
        .prologue_kind = worker->prologue,
        .prologue = &connection->prologue,
        .service = worker->service,
        .connections = worker->connections,
        .requests = connection->requests,
        .ring_requests = connection->ring_requests,
    };

    connection->output.more_comes = connection->input && connection->input->begin < connection->input->end;
    respond(&connection->output, request, &facts);
    connection->answer_due = false;
    request_ended(connection, request->keep_alive);
}

/* All of a request is there that is not an echo. */
static void end_request(struct connection *connection) {
    connection->answer_due = true;
    delay_answer(connection, false);
}

/* There is room for an answer, so it is made at once, from where the request lies, if it is not to take its time. */
static void take_known(struct connection *connection, const struct request *known) {
    if (!connection->worker->service && known->delay_ns == 0) {
        answer(connection, known);
        return;
    }
    connection->request = *known;
    end_request(connection);
}

static void keep_request(const struct connection *connection) {
    const struct buffer *input = connection->input;
    const struct http_framing *framing = &connection->framing;
    const struct request *request = &connection->request;
    bool has_body = framing->content_length > 0 || framing->parser.flags & F_CHUNKED;
    struct known_request known = {.length = input->begin - connection->request_at, .request = *request};

    if (!connection->whole || has_body || framing->expects_continue)
        return;
    if (request->keep_alive && request->delay_ns == 0 && !connection->worker->service)
        known.answer = respond_ready(request, &known.answer_bytes);
    known_requests_keep(input->bytes + connection->request_at, &known);
}

static void take_event(struct connection *connection) {
    struct http_framing *framing = &connection->framing;
    struct request *request = &connection->request;

    switch (framing->event) {
    case HTTP_MORE:
        break;
    case HTTP_HEADERS:
        request_read(request, framing);
        connection->in_request = true;
        connection->parser_spent = !framing->keep_alive;
        connection->requests++;
        if (framing->expects_continue && !request->http_1_0)
            respond_continue(&connection->output);
        if (request->kind == REQUEST_ECHO)
            delay_answer(connection, false);
        break;
    case HTTP_BODY:
        if (request->kind != REQUEST_ECHO)
            break;
        begin_echo(connection);
        respond_echo_piece(&connection->output, request, framing->body, framing->body_bytes);
        break;
    case HTTP_DONE:
        connection->between = true;
        if (request->kind == REQUEST_ECHO) {
            begin_echo(connection);
            respond_echo_end(&connection->output, request);
            request_ended(connection, request->keep_alive);
        } else {
            keep_request(connection);
            end_request(connection);
        }
        break;
    case HTTP_BAD:
        refuse(connection, framing->error);
        break;
    }
}

/* Uses up some of the input, limit bytes at most: a known request, or what the parser takes up to its next event. */
static void take_input(struct connection *connection, size_t limit) {
    struct buffer *input = connection->input;
    const char *bytes = input->bytes + input->begin;
    const struct known_request *known;

    if (connection->between) {
        known = known_requests_find(bytes, limit);
        if (known) {
            input->begin += known->length;
            connection->requests++;
            take_known(connection, &known->request);
            return;
        }
        connection->whole = true;
        connection->request_at = input->begin;
    }
    connection->between = false;
    input->begin += http_framing_feed(&connection->framing, bytes, limit);
    take_event(connection);
}

/* Turns input into output, as long as there is the one and room for the other. */
static void digest(struct connection *connection) {
    struct buffer *input = connection->input;

    while (!connection->ending && !connection->delayed) {
        size_t room = output_room(&connection->output), length;

        if (room <= OUTPUT_RESERVE)
            return;
        if (connection->answer_due) {
            answer(connection, &connection->request);
            continue;
        }
        length = input ? input->end - input->begin : 0;
        if (length == 0)
            break;
        if (length > room - OUTPUT_RESERVE)
            length = room - OUTPUT_RESERVE;
        take_input(connection, length);
    }
    if (input && input->begin == input->end)
        drop_input(connection);
}

static enum step receive_prologue(struct connection *connection) {
    enum prologue_kind kind = connection->worker->prologue;

    switch (prologue_receive(&connection->prologue, kind, connection->stream.fd)) {
    case PROLOGUE_OK:
        connection->awaited = false;
        return STEP_ON;
    case PROLOGUE_RETRY:
        return STEP_WAIT;
    case PROLOGUE_BAD:
        break;
    }
    if (connection->stream.ssl) { /* no answer would be understood */
        close_connection(connection);
        return STEP_CLOSED;
    }
    connection->awaited = false;
    refuse(connection, prologue_complaint(kind));
    return STEP_ON;
}

static enum step handshake(struct connection *connection) {
    switch (stream_handshake(&connection->stream)) {
    case STREAM_OK:
        connection->shaking = false;
        return STEP_ON;
    case STREAM_RETRY:
        return STEP_WAIT;
    default:
        close_connection(connection);
        return STEP_CLOSED;
    }
}

static enum step flush(struct connection *connection) {
    const char *bytes;
    size_t length, put;

    for (int turn = 0; (bytes = output_next(&connection->output, &length)); turn++) {
        if (turn >= TURNS && !connection->delayed) /* the timer has one use at a time */
            return yield_turn(connection);
        switch (stream_write(&connection->stream, bytes, length, &put)) {
        case STREAM_OK:
            output_sent(&connection->output, put);
            if (put < length && !connection->stream.ssl) { /* the socket is full: no need to be told again */
                connection->write_wants = EV_WRITE;
                return STEP_WAIT;
            }
            break;
        case STREAM_RETRY:
            connection->write_wants = connection->stream.wants;
            return STEP_WAIT;
        default:
            close_connection(connection);
            return STEP_CLOSED;
        }
    }
    return STEP_ON;
}

static enum stream_result receive(struct connection *connection, struct buffer *input, size_t *got) {
    if (!ring_has_received(&connection->seat))
        return stream_read(&connection->stream, input->bytes, BUFFER_BYTES, got);
    *got = ring_read(&connection->seat, input->bytes, BUFFER_BYTES);
    return STREAM_OK;
}

static enum step fill(struct connection *connection) {
    struct buffer *input = buffer_take();
    size_t got;

    switch (receive(connection, input, &got)) {
    case STREAM_OK:
        input->end = got;
        connection->input = input;
        return STEP_ON;
    case STREAM_RETRY:
        connection->read_wants = connection->stream.wants;
        buffer_give(input);
        return STEP_WAIT;
    case STREAM_EOF:
        buffer_give(input);
        connection->read_ended = true;
        if (connection->lingering)
            return STEP_ON;
        http_framing_feed(&connection->framing, "", 0);
        if (connection->framing.event == HTTP_BAD || connection->in_request)
            refuse(connection, "the request is cut short");
        connection->ending = true;
        return STEP_ON;
    default:
        buffer_give(input);
        close_connection(connection);
        return STEP_CLOSED;
    }
}

/* The usual load: all that was read is one known request, its answer lies ready, and nothing waits to be sent. */
static enum step answer_known(struct connection *connection) {
    const struct buffer *input = connection->input;
    const struct known_request *known;
    enum stream_result result;
    size_t put = 0;

    known = connection->between && !connection->ending ? known_requests_find(input->bytes, input->end) : NULL;
    if (!known || !known->answer || known->length != input->end) {
        connection->known_in_row = 0;
        return STEP_ON;
    }
    connection->known_in_row++;
    connection->requests++;
    drop_input(connection);
    result = stream_write(&connection->stream, known->answer, known->answer_bytes, &put);
    if (result != STREAM_OK && result != STREAM_RETRY) {
        close_connection(connection);
        return STEP_CLOSED;
    }
    if (put < known->answer_bytes)
        output_refer(&connection->output, known->answer + put, known->answer_bytes - put);
    return STEP_ON;
}

/*
 * All is sent. A socket that is closed with unread bytes in it resets the connection, and the answer may be lost to the
 * client: so, if it may still be sending, it is heard out (RFC 9112 9.6).
 */
static enum step finish(struct connection *connection) {
    if (connection->input)
        connection->rude = true;
    drop_input(connection);
    if (!connection->lingering && (connection->rude || connection->stream.ssl))
        stream_end(&connection->stream);
    if (connection->read_ended || !connection->rude) {
        close_connection(connection);
        return STEP_CLOSED;
    }
    if (!connection->lingering)
        start_timer(connection, LINGER_S);
    connection->lingering = true;
    return STEP_ON;
}

/* Nothing is under way, and it will probably go on as it did. */
static bool suits_ring(const struct connection *connection) {
    return connection->known_in_row >= KNOWN_BEFORE_RING && connection->between && !connection->stream.ssl &&
           !connection->ending && !connection->yielding && !connection->input && output_is_empty(&connection->output);
}

/* Goes on as far as it can without waiting. The connection may be closed when this returns. */
static void advance(struct connection *connection) {
    enum step step = STEP_ON;
    int reads = 0;

    activity_mark(&connection->worker->activities, &connection->activity);
    if (connection->yielding)
        ev_timer_stop(connection->worker->loop, &connection->timer);
    connection->yielding = false;
    if (connection->awaited)
        step = receive_prologue(connection);
    if (step == STEP_ON && connection->shaking)
        step = handshake(connection);
    while (step == STEP_ON) {
        if (!output_is_empty(&connection->output))
            step = flush(connection);
        if (step == STEP_ON && connection->ending)
            step = finish(connection);
        if (step != STEP_ON)
            break;
        if (connection->delayed)
            break;
        if (connection->input || connection->answer_due) {
            digest(connection);
            continue;
        }
        /* What lies in the socket will be told by the next poll, but not what lies in the TLS library. */
        if (reads > 0 && !ring_has_received(&connection->seat) &&
            (connection->lingering || !stream_has_pending(&connection->stream))) {
            connection->read_wants = EV_READ;
            break;
        }
        step = reads++ < TURNS ? fill(connection) : yield_turn(connection);
        if (step == STEP_ON && connection->input)
            step = answer_known(connection);
    }
    if (step == STEP_CLOSED)
        return;
    if (suits_ring(connection))
        ring_sit_down(&connection->seat, &connection->activity, connection->stream.fd);
    watcher_set(connection->worker->loop, &connection->watcher, wanted_events(connection));
}

static void on_io(struct ev_loop *loop, ev_io *io, int events) {
    (void)loop, (void)events;
    advance(io->data);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct connection *connection = timer->data;

    if (connection->lingering && !connection->yielding) {
        close_connection(connection);
        return;
    }
    connection->delayed = false;
    advance(connection);
}

void connection_served(struct service_job *job) {
    struct connection *connection = container_of(job, struct connection, job);

    connection->delayed = false;
    delay_answer(connection, true);
    advance(connection);
}

void connection_left_ring(struct seat *seat) {
    struct connection *connection = container_of(seat, struct connection, seat);

    connection->requests += seat->requests;
    connection->ring_requests += seat->requests;
    connection->known_in_row = 0;
    if (seat->unsent_bytes)
        output_refer(&connection->output, seat->unsent, seat->unsent_bytes);
    advance(connection);
}

static struct connection *new_connection(struct worker *worker) {
    struct connection *connection = worker->spare;

    if (connection) {
        worker->spare = connection->next_spare;
        return connection;
    }
    connection = malloc(sizeof *connection);
    if (!connection)
        fail(EXIT_FAILED, "out of memory");
    return connection;
}

void connection_open(struct worker *worker, int fd) {
    struct connection *connection = new_connection(worker);
    struct stream stream;

    worker->connections++;
    if (!worker->tls)
        stream_open_plain(&stream, fd);
    else if (!stream_open_tls(&stream, fd, worker->tls, true)) {
        connection->next_spare = worker->spare;
        worker->spare = connection;
        return;
    }
    /* Field by field: the target's 2 KiB need not be cleared. */
    connection->stream = stream;
    connection->worker = worker;
    connection->awaited = worker->prologue != PROLOGUE_NONE;
    connection->shaking = stream.ssl != NULL;
    connection->read_wants = EV_READ;
    connection->write_wants = EV_WRITE;
    connection->delayed = connection->yielding = connection->answer_due = connection->echo_begun = false;
    connection->in_request = connection->ending = connection->rude = connection->lingering = false;
    connection->read_ended = connection->whole = connection->parser_spent = false;
    connection->between = true;
    connection->known_in_row = 0;
    connection->requests = connection->ring_requests = 0;
    connection->seat = (struct seat){0};
    connection->input = NULL;
    connection->prologue = (struct prologue){0};
    connection->job.in_service = false;
    connection->output = (struct output){0};
    http_framing_init_request(&connection->framing, connection->target, sizeof connection->target);
    watcher_init(&connection->watcher, on_io, fd, connection);
    ev_timer_init(&connection->timer, on_timer, 0., 0.);
    connection->timer.data = connection;
    activity_begin(&worker->activities, &connection->activity);
    advance(connection); /* the first request is often there already */
}

ev_tstamp connection_close_idle(struct worker *worker) {
    struct activity *idle;
    ev_tstamp left_s;

    while ((idle = activity_find_idle(&worker->activities, &left_s))) {
        struct connection *connection = container_of(idle, struct connection, activity);

        if (connection->seat.taken) {
            connection->ending = true;
            ring_leave(&connection->seat);
        } else if (!connection->delayed) {
            close_connection(connection);
            continue;
        }
        activity_renew(&worker->activities, idle); /* who is delayed is not kept waiting by the client */
    }
    return left_s;
}
