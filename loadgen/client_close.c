/* SPDX-License-Identifier: MIT */
/* How a connection whose work is done is ended. */
#include "client_steps.h"

#include <sys/socket.h>

#define LINGER_NS NS_PER_S

enum load_error client_last_words(struct client *client, enum load_error error) {
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

bool client_begin_end(struct client *client, uint64_t now_ns) {
    client->state = CLIENT_ENDING;
    client_set_deadline(client, now_ns);
    return true;
}

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
bool client_step_ending(struct client *client) {
    struct worker *worker = client->worker;

    switch (worker->plan->close_how) {
    case CLOSE_RST: {
        const struct linger linger = {.l_onoff = 1, .l_linger = 0};
        setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        return client_finish(client, LOAD_NO_ERROR, worker_now(worker));
    }
    case CLOSE_FIN:
        if (shutdown(client->fd, SHUT_WR) != 0)
            return client_finish(client, LOAD_NO_ERROR, worker_now(worker));
        break;
    case CLOSE_NOTIFY: {
        enum stream_result result = worker->engine->end(client->connection);
        if (result == STREAM_RETRY)
            return false;
        if (result != STREAM_OK) {
            bool unsure = worker->plan->requests_per_connection == 0; /* as in client_step_lingering */
            enum load_error error = unsure ? client_last_words(client, LOAD_NO_ERROR) : LOAD_NO_ERROR;
            return client_finish(client, error, worker_now(worker));
        }
        break;
    }
    }
    return begin_linger(client);
}

bool client_step_lingering(struct client *client) {
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
        return client_finish(client, error, worker_now(worker));
    }
}
