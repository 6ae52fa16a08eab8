/* SPDX-License-Identifier: MIT */
/* How a connection whose work is done is ended. */
#include "client_steps.h"

#include <sys/socket.h>

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

/* The slot parts with its connection. The socket, which is returned, is watched as it was. */
static int release(struct client *client) {
    int fd = client->fd;

    client->worker->engine->release(client->connection);
    client->engine_open = false;
    client->fd = -1;
    return fd;
}

/* The slot is free for its next connection, unless it still waits for a session of this one. */
static bool begin_linger(struct client *client) {
    struct worker *worker = client->worker;
    uint64_t now_ns = worker_now(worker);
    void *other = NULL;

    if (worker->plan->sessions.reuse == REUSE_NEVER)
        other = linger_take(worker, client->connection, now_ns);
    if (other) {
        poller_watch(&worker->poller, client->fd, &client->watched, 0, NULL);
        client->connection = other;
        client->engine_open = false;
        client->fd = -1;
        return client_finish(client, LOAD_NO_ERROR, now_ns);
    }
    client->state = CLIENT_LINGERING;
    client->read_wants = EV_READ;
    client->deadline_ns = now_ns + LINGER_NS;
    return false;
}

/* With RST, at once. A socket that is kept stays with its slot and with the poller, which need not hear of it again. */
static void reset(struct client *client) {
    const struct linger linger = {.l_onoff = 1, .l_linger = 0};
    int fd;

    if (!client->worker->keeps_sockets) {
        setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        return;
    }
    fd = release(client);
    if (spare_socket_disconnect(fd)) {
        client->spare_fd = fd;
        client->spare_watched = client->watched;
    }
}

/* After close_notify and FIN the target's are waited for, see linger.h. */
bool client_step_ending(struct client *client) {
    struct worker *worker = client->worker;

    switch (worker->plan->close_how) {
    case CLOSE_RST:
        reset(client);
        return client_finish(client, LOAD_NO_ERROR, worker_now(worker));
    case CLOSE_FIN:
        if (shutdown(client->fd, SHUT_WR) != 0)
            return client_finish(client, LOAD_NO_ERROR, worker_now(worker));
        break;
    case CLOSE_NOTIFY: {
        enum stream_result result = worker->engine->end(client->connection);
        if (result == STREAM_RETRY)
            return false;
        if (result != STREAM_OK) {
            bool unsure = worker->plan->requests_per_connection == 0; /* as in linger_read */
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
    enum load_error error;
    enum stream_result result = linger_read(worker, client->connection, &error);

    if (result == STREAM_RETRY)
        return false;
    if (result == STREAM_EOF && worker->keeps_sockets) {
        poller_watch(&worker->poller, client->fd, &client->watched, 0, NULL);
        spare_sockets_keep(&worker->spare_sockets, release(client));
    }
    return client_finish(client, error, worker_now(worker));
}
