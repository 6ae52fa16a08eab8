/* SPDX-License-Identifier: MIT */
/* How a connection comes about: source address, connect, PROXY header, handshake. */
#include "client_steps.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static bool refused(struct client *client, int error_number, uint64_t now_ns) {
    enum load_error error = load_error_of_connect(error_number);
    struct worker *worker = client->worker;

    /* A UNIX socket whose queue is full says EAGAIN: somebody listens there. */
    if (error == LOAD_CONNECT_REFUSED && error_number != EAGAIN && !worker->start->reached[client->target])
        worker_no_target(worker, client->target, error_number);
    return client_finish(client, error, now_ns);
}

/*
 * On loopback a connection is there, or refused, when connect() returns, though it says EINPROGRESS: asking again saves
 * an event. 0: connected, EALREADY: not yet, else why not.
 */
static int ask_again(const struct client *client) {
    const struct address *address = &client->worker->plan->target[client->target].address;

    return connect(client->fd, &address->sockaddr.any, address->length) == 0 || errno == EISCONN ? 0 : errno;
}

/* A socket to connect with, the slot's own first. -1: there is none. */
static int take_spare(struct client *client) {
    int spare = client->spare_fd;

    if (spare < 0)
        return spare_sockets_take(&client->worker->spare_sockets);
    client->watched = client->spare_watched;
    client->spare_fd = -1;
    return spare;
}

/* Each target has a turn of its own, so that every pair of source and target comes up. */
static int connect_from_source(struct client *client) {
    struct worker *worker = client->worker;
    const struct plan *plan = worker->plan;
    const struct address *target = &plan->target[client->target].address;
    uint64_t turn = worker->source_turn[client->target]++ * plan->workers + (uint64_t)worker->index;
    int spare = take_spare(client);
    int fd = source_connect(&plan->source, turn, target, spare);

    /* In a handshake alone nothing is sent that is not an answer, so there is nothing that could be held back. */
    if (fd >= 0 && spare < 0 && plan->requests_per_connection > 0 && !address_is_local(target))
        address_set_nodelay(fd);
    return fd;
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
    client_set_deadline(client, now_ns);
    if (plan->proxy_protocol != PROXY_PROTOCOL_NONE && !proxy_protocol_send(fd, plan->proxy_protocol))
        return client_finish(client, LOAD_RESET, now_ns);
    if (!worker->engine->open(worker->engine, client->connection, fd, server_name, target->host,
                              session_slot_offer(&client->sessions), client)) {
        client->fd = -1;
        return client_finish(client, LOAD_FD_UNAVAILABLE, now_ns);
    }
    client->engine_open = true;
    session_slot_used(&client->sessions);
    return true;
}

/*
 * In turn; with --sticky the slot's own, as long as that is not lost. The slots of one that is are spread over the
 * others, always in the same way, so that each stays again with one.
 */
static int choose_target(struct client *client) {
    const struct plan *plan = client->worker->plan;
    const bool *lost = client->worker->start->lost;
    int own = client->index % plan->targets, left = 0, chosen;

    if (!plan->sticky)
        return (int)(((uint64_t)client->index + client->attempts++) % (uint64_t)plan->targets);
    for (int i = 0; i < plan->targets; i++)
        left += !lost[i];
    if (!lost[own] || left == 0)
        return own;
    chosen = client->index / plan->targets % left;
    for (int i = 0; i < plan->targets; i++)
        if (!lost[i] && chosen-- == 0)
            return i;
    return own;
}

bool client_open(struct client *client, uint64_t now_ns) {
    struct worker *worker = client->worker;
    int error;

    client->target = choose_target(client);
    client->connect_ns = now_ns;
    client->state = CLIENT_CONNECTING;
    client_set_deadline(client, now_ns);
    client->fd = connect_from_source(client);
    if (client->fd < 0)
        return refused(client, errno, now_ns);
    error = ask_again(client);
    if (error == EALREADY)
        return false;
    now_ns = worker_now(worker);
    return error ? refused(client, error, now_ns) : connected(client, now_ns);
}

bool client_step_connecting(struct client *client) {
    uint64_t now_ns = worker_now(client->worker);
    int error = 0;
    socklen_t length = sizeof error;

    if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
        error = errno;
    return error ? refused(client, error, now_ns) : connected(client, now_ns);
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

bool client_step_handshaking(struct client *client) {
    struct worker *worker = client->worker;
    enum stream_result result = worker->engine->handshake(client->connection);
    uint64_t now_ns;

    if (result == STREAM_RETRY)
        return false;
    now_ns = worker_now(worker);
    if (result != STREAM_OK)
        return client_finish_for(client, result, now_ns);
    if (worker->plan->target[client->target].tls)
        count_handshake(client, now_ns);
    client->established = true;
    worker->tally->open_now++;
    if (worker->plan->requests_per_connection == 0) {
        client->failures = 0;
        client_count_done(client, LATENCY_CONNECTION, now_ns);
        return client_begin_end(client, now_ns);
    }
    http_framing_init_response(&client->framing, &worker->known_head);
    /* One that is to be held shows first that it works. */
    if (worker->plan->opens_ahead && !worker->plan->hold)
        return client_go_on(client, now_ns);
    return client_begin_request(client, now_ns);
}
