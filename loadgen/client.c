/* SPDX-License-Identifier: MIT */
#include "client.h"

#include "client_steps.h"
#include "log.h"

#include <stdlib.h>
#include <unistd.h>

#define BACKOFF_MIN_NS (10 * NS_PER_MS)
#define BACKOFF_MAX_NS NS_PER_S

/* ---- Watchers, lists and the end of a connection ---- */

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
    case CLIENT_READY:
    case CLIENT_RECEIVING:
    case CLIENT_LINGERING:
        return client->read_wants;
    case CLIENT_UNBORN:
    case CLIENT_IDLE:
    case CLIENT_WAITING:
    case CLIENT_BACKING_OFF:
    case CLIENT_DONE:
        break;
    }
    return 0;
}

static struct client_list *wanted_list(const struct client *client) {
    switch (client->state) {
    case CLIENT_UNBORN:
    case CLIENT_DONE:
        return NULL;
    case CLIENT_WAITING:
    case CLIENT_READY:
        return &client->worker->waiting;
    default:
        return &client->worker->busy;
    }
}

/* The only place that says what events to wait for, and that moves the slot between its worker's lists. */
static void watch(struct client *client) {
    if (client->list != wanted_list(client))
        worker_list(client, wanted_list(client));
    if (client->fd >= 0)
        poller_watch(&client->worker->poller, client->fd, &client->watched, wanted_events(client), client);
    else if (client->spare_fd >= 0)
        poller_watch(&client->worker->poller, client->spare_fd, &client->spare_watched, 0, NULL);
}

static void end_arrival(struct client *client, bool done) {
    struct worker *worker = client->worker;
    struct arrival_counts *arrivals = &worker->tally->arrivals;

    if (!client->has_arrival)
        return;
    client->has_arrival = false;
    if (!client->arrival_measured)
        return;
    if (done)
        arrivals->done++;
    else
        arrivals->failed++;
    if (worker->phase == PHASE_MEASURED)
        arrivals->ended_in_time++;
}

bool client_finish(struct client *client, enum load_error error, uint64_t now_ns) {
    struct worker *worker = client->worker;

    if (client->engine_open)
        worker->engine->close(client->connection);
    else if (client->fd >= 0)
        close(client->fd);
    if (client->established)
        worker->tally->open_now--;
    client->established = false;
    client->engine_open = false;
    client->fd = -1;
    client->watched = 0;
    client->state = CLIENT_IDLE;
    if (error == LOAD_NO_ERROR)
        return true;
    if (error == LOAD_CONNECT_REFUSED || error == LOAD_CONNECT_TIMEOUT)
        worker->start->lost[client->target] = true;
    end_arrival(client, false);
    session_slot_failed(&client->sessions, error == LOAD_RESET || error == LOAD_UNEXPECTED_EOF);
    worker->counters->errors[error]++;
    worker->last_done_ns = now_ns;
    client->state = CLIENT_BACKING_OFF;
    client->deadline_ns = now_ns + (BACKOFF_MIN_NS << client->failures);
    if (BACKOFF_MIN_NS << (client->failures + 1) <= BACKOFF_MAX_NS)
        client->failures++;
    return true;
}

bool client_finish_for(struct client *client, enum stream_result result, uint64_t now_ns) {
    if (result == STREAM_EOF)
        return client_finish(client, LOAD_UNEXPECTED_EOF, now_ns);
    return client_finish(client, client->worker->engine->why(client->connection), now_ns);
}

void client_set_deadline(struct client *client, uint64_t now_ns) {
    client->deadline_ns = now_ns + client->worker->plan->timeout_ns;
}

/* ---- What there is to do ---- */

enum pacing_answer client_take(struct client *client, uint64_t now_ns) {
    struct worker *worker = client->worker;
    struct arrival arrival;
    enum pacing_answer answer;

    /* Who waits longest comes first, so that connections are used in turn. */
    if (!worker->waking && !TAILQ_EMPTY(&worker->waiting) &&
        !pacing_is_exhausted(&worker->pacing, worker->phase, now_ns))
        return PACING_LATER;
    answer = pacing_take(&worker->pacing, worker->phase, now_ns, &arrival);
    if (answer != PACING_NOW || worker->plan->pacing.arrivals == ARRIVALS_NONE)
        return answer;
    client->has_arrival = true;
    client->arrival_measured = arrival.measured;
    client->due_ns = arrival.due_ns;
    client->taken_ns = now_ns;
    client_count_latency(client, LATENCY_START_DELAY, client->due_ns, now_ns);
    return PACING_NOW;
}

void client_count_latency(struct client *client, enum latency latency, uint64_t from_ns, uint64_t now_ns) {
    struct worker *worker = client->worker;

    if (client->has_arrival ? client->arrival_measured : worker->phase == PHASE_MEASURED)
        latency_histogram_record(&worker->tally->latency[latency], now_ns - from_ns);
}

void client_count_done(struct client *client, enum latency whole, uint64_t now_ns) {
    worker_count_op(client->worker, now_ns);
    if (client->worker->plan->pacing.arrivals != ARRIVALS_NONE)
        client_count_latency(client, LATENCY_SERVICE, client->taken_ns, now_ns);
    if (whole == LATENCY_TRANSACTION || client->has_arrival)
        client_count_latency(client, whole, client->due_ns, now_ns);
    end_arrival(client, true);
}

static bool step_idle(struct client *client) {
    struct worker *worker = client->worker;
    uint64_t now_ns = worker_now(worker);
    enum pacing_answer answer;

    if (worker->plan->opens_ahead)
        answer = pacing_is_exhausted(&worker->pacing, worker->phase, now_ns) ? PACING_NEVER : PACING_NOW;
    else
        answer = client_take(client, now_ns);
    switch (answer) {
    case PACING_NOW:
        return client_open(client, now_ns);
    case PACING_LATER:
        client->state = CLIENT_WAITING;
        return false;
    case PACING_NEVER:
        break;
    }
    client->state = CLIENT_DONE;
    worker_client_done(worker);
    return false;
}

bool client_go_on(struct client *client, uint64_t now_ns) {
    switch (client_take(client, now_ns)) {
    case PACING_NOW:
        return client_begin_request(client, now_ns);
    case PACING_LATER:
        client->state = CLIENT_READY;
        return true; /* what came along with the response, such as its end, may be in the engine already */
    case PACING_NEVER:
        break;
    }
    return client_begin_end(client, now_ns);
}

/*
 * Something came while there was nothing to do: TLS 1.3 tickets, or the end of the connection. A target may end one
 * that has served its turn and rests, unless it is to be held.
 */
static bool step_ready(struct client *client) {
    struct worker *worker = client->worker;
    size_t got;
    enum stream_result result = worker->engine->read(client->connection, worker->bytes, sizeof worker->bytes, &got);

    switch (result) {
    case STREAM_RETRY:
        client->read_wants = worker->engine->wants(client->connection);
        return false;
    case STREAM_OK:
        return client_finish(client, LOAD_PAYLOAD_MISMATCH, worker_now(worker)); /* nobody asked */
    case STREAM_EOF:
        if (client->requests > 0 && !worker->plan->hold)
            return client_finish(client, LOAD_NO_ERROR, worker_now(worker));
        break;
    case STREAM_ERROR:
        break;
    }
    return client_finish_for(client, result, worker_now(worker));
}

static bool step(struct client *client) {
    switch (client->state) {
    case CLIENT_IDLE:
    case CLIENT_WAITING:
        return step_idle(client);
    case CLIENT_CONNECTING:
        return client_step_connecting(client);
    case CLIENT_HANDSHAKING:
        return client_step_handshaking(client);
    case CLIENT_READY:
        return step_ready(client);
    case CLIENT_SENDING:
        return client_step_sending(client);
    case CLIENT_RECEIVING:
        return client_step_receiving(client);
    case CLIENT_ENDING:
        return client_step_ending(client);
    case CLIENT_LINGERING:
        return client_step_lingering(client);
    case CLIENT_BACKING_OFF:
        /* A slot whose next connection would not be allowed anyway has nothing to wait for. */
        if (pacing_is_exhausted(&client->worker->pacing, client->worker->phase, worker_now(client->worker))) {
            client->state = CLIENT_IDLE;
            return true;
        }
        return false;
    case CLIENT_UNBORN:
    case CLIENT_DONE:
        break;
    }
    return false;
}

static void run(struct client *client) {
    while (step(client))
        ;
    watch(client);
}

void client_ready(struct client *client) {
    run(client);
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
    client_finish(client, error, now_ns);
    run(client);
}

/* ---- Life ---- */

void client_init(struct client *client, struct worker *worker, int index) {
    const struct plan *plan = worker->plan;

    client->worker = worker;
    client->index = index;
    client->fd = client->spare_fd = -1;
    client->connection = calloc(1, worker->engine->connection_bytes);
    if (!client->connection)
        fail(EXIT_FAILED, "worker %d: out of memory for connection %d", worker->index, index);
    session_slot_init(&client->sessions, &plan->sessions, worker->engine, (uint64_t)index, plan->connections);
}

void client_begin(struct client *client) {
    client->state = CLIENT_IDLE;
    run(client);
}

void client_wake(struct client *client) {
    if (client->state == CLIENT_READY)
        client_go_on(client, worker_now(client->worker));
    run(client);
}

void client_end(struct client *client) {
    if (client->engine_open)
        client->worker->engine->close(client->connection);
    else if (client->fd >= 0)
        close(client->fd);
    if (client->spare_fd >= 0)
        close(client->spare_fd);
    session_slot_end(&client->sessions);
    free(client->connection);
}

void client_session_arrived(void *owner, void *session) {
    struct client *client = owner;

    session_slot_keep(&client->sessions, session);
}
