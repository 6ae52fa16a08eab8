/* SPDX-License-Identifier: MIT */
/* A request and its response, on a connection that is through its handshake. */
#include "client_steps.h"

/* At a time: a target that sends faster than its answer can be read must not keep all others waiting. */
#define READS_MAX 16

bool client_begin_request(struct client *client, uint64_t now_ns) {
    if (!client->has_arrival)
        client->due_ns = client->taken_ns = now_ns;
    client->sent_bytes = 0;
    client->body_bytes = 0;
    client->answered = false;
    if (client->worker->plan->method == METHOD_HEAD)
        http_framing_expect_no_body(&client->framing);
    client->state = CLIENT_SENDING;
    client_set_deadline(client, now_ns);
    return true;
}

/* The response is complete. at_end: and nothing can follow it, the target has closed its side. */
static bool response_done(struct client *client, bool at_end, uint64_t now_ns) {
    struct worker *worker = client->worker;
    const struct plan *plan = worker->plan;

    if (client->framing.status >= 400)
        return client_finish(client, LOAD_HTTP_STATUS, now_ns);
    if (client->state == CLIENT_SENDING)
        return client_finish(client, LOAD_PAYLOAD_MISMATCH,
                             now_ns); /* it cannot be the answer to what is not yet asked */
    if (plan->check_body && client->body_bytes != plan->request[client->target].body_bytes)
        return client_finish(client, LOAD_PAYLOAD_MISMATCH, now_ns);
    worker->counters->transactions++;
    client_count_done(client, LATENCY_TRANSACTION, now_ns);
    if (worker->phase == PHASE_MEASURED)
        tally_body(worker->tally, client->body_bytes);
    client->requests++;
    if (plan->hold && !(client->framing.keep_alive && !at_end))
        return client_finish(client, LOAD_UNEXPECTED_EOF, now_ns); /* it is not to be ended */
    if (at_end)
        return client_finish(client, LOAD_NO_ERROR, now_ns);
    if (!client->framing.keep_alive || client->requests >= plan->requests_per_connection)
        return client_begin_end(client, now_ns);
    return client_go_on(client, now_ns);
}

/* length bytes of the response lie in the worker's buffer. True if they changed the state. */
static bool take_bytes(struct client *client, size_t length, uint64_t now_ns) {
    struct worker *worker = client->worker;
    struct http_framing *framing = &client->framing;
    const char *bytes = worker->bytes;

    worker->counters->bytes_received += length;
    if (!client->answered) {
        client->answered = true;
        client->failures = 0;
        client_count_latency(client, LATENCY_TTFB, client->due_ns, now_ns);
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
                return client_finish(client, LOAD_PAYLOAD_MISMATCH, now_ns);
            client->body_bytes += framing->body_bytes;
            break;
        case HTTP_DONE:
            if (framing->status < 200)
                break; /* 100 Continue and its like: the response is still to come */
            if (length > 0)
                return client_finish(client, LOAD_PAYLOAD_MISMATCH, now_ns); /* an answer that nobody asked for */
            return response_done(client, false, now_ns);
        case HTTP_BAD:
            return client_finish(client, LOAD_PAYLOAD_MISMATCH, now_ns);
        }
    }
    return false;
}

/*
 * Reads until the response is complete, there is no more for now, or others must have their turn. As the last read of a
 * response completes it, none is wasted on finding out that there is nothing more.
 *
 * The end of the stream before the response is complete is unexpected_eof, also on a kept-alive connection before the
 * first byte: a target that wants to close says so in the response before ("Connection: close", which is no error). A
 * request that was sent and not answered is lost, whatever the target's reason.
 */
bool client_step_receiving(struct client *client) {
    struct worker *worker = client->worker;

    for (int reads = 0; reads < READS_MAX; reads++) {
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
            return client_finish_for(client, result, now_ns);
        client_set_deadline(client, now_ns);
        if (take_bytes(client, got, now_ns))
            return true;
    }
    /* What the engine holds already is no event any more, but that there is room to send is one. */
    client->read_wants = EV_READ | EV_WRITE;
    return false;
}

bool client_step_sending(struct client *client) {
    struct worker *worker = client->worker;
    const struct request *request = &worker->plan->request[client->target];

    while (client->sent_bytes < request->total_bytes) {
        size_t put, length;
        const char *bytes = request_piece(request, client->sent_bytes, &length);
        enum stream_result result = worker->engine->write(client->connection, bytes, length, &put);
        if (result == STREAM_RETRY)
            return client_step_receiving(
                client); /* an echo must be taken while the rest goes out, or both sides wait for ever */
        if (result != STREAM_OK) {
            enum load_error error = worker->engine->why(client->connection);
            return client_finish(client, client_last_words(client, error), worker_now(worker));
        }
        client->sent_bytes += put;
        worker->counters->bytes_sent += put;
        if (client->sent_bytes < request->total_bytes)
            client_set_deadline(client, worker_now(worker));
    }
    client->state = CLIENT_RECEIVING;
    client->read_wants = EV_READ;
    return false; /* nobody answers that fast: reading now would be in vain */
}
