/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "stats_server.h"

#include "http_framing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS_MAX      16
#define CLIENT_TIMEOUT_S 10.
/* Without a free descriptor the listener stays readable: polling it would spin. */
#define ACCEPT_PAUSE_S 0.5

/* One request a connection: read it, answer, close. */
struct stats_client {
    struct stats_server *server;
    ev_io watcher;
    ev_timer timer;
    struct http_framing request;
    char target[64];
    char *answer;
    size_t answer_length, sent;
};

static void close_client(struct stats_client *client) {
    ev_io_stop(client->server->loop, &client->watcher);
    ev_timer_stop(client->server->loop, &client->timer);
    close(client->watcher.fd);
    client->server->clients--;
    free(client->answer);
    free(client);
}

static void time_out(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    close_client(timer->data);
}

/* The whole response, made at once: the counters of one moment. */
static bool make_answer(struct stats_client *client) {
    const struct stats *stats = client->server->stats;
    const char *type = "text/plain", *status = "200 OK";
    char *body = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&body, &length);
    int answer_length;

    if (!out)
        return false;
    if (client->request.method != HTTP_GET) {
        status = "405 Method Not Allowed";
        fputs("only GET\n", out);
    } else if (strcmp(client->target, "/stats.json") == 0) {
        type = "application/json";
        stats_write_json(stats, out);
    } else if (strcmp(client->target, "/metrics") == 0) {
        type = "text/plain; version=0.0.4";
        stats_write_prometheus(stats, out);
    } else {
        status = "404 Not Found";
        fputs("/metrics or /stats.json\n", out);
    }
    if (fclose(out) != 0) {
        free(body);
        return false;
    }
    answer_length = asprintf(&client->answer,
                             "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                             status, type, length, body);
    free(body);
    if (answer_length < 0) {
        client->answer = NULL;
        return false;
    }
    client->answer_length = (size_t)answer_length;
    return true;
}

static void send_answer(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop, (void)events;
    struct stats_client *client = watcher->data;
    ssize_t count =
        send(watcher->fd, client->answer + client->sent, client->answer_length - client->sent, MSG_NOSIGNAL);

    if (count > 0)
        client->sent += (size_t)count;
    if (count <= 0 || client->sent == client->answer_length)
        close_client(client);
}

static void read_request(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)events;
    struct stats_client *client = watcher->data;
    char bytes[2048];
    ssize_t count = recv(watcher->fd, bytes, sizeof bytes, 0);
    size_t used = 0;

    if (count <= 0) {
        close_client(client);
        return;
    }
    while (used < (size_t)count) {
        used += http_framing_feed(&client->request, bytes + used, (size_t)count - used);
        if (client->request.event == HTTP_BAD || (client->request.event == HTTP_HEADERS && !make_answer(client))) {
            close_client(client);
            return;
        }
        if (client->answer) {
            ev_io_stop(loop, watcher);
            ev_io_init(watcher, send_answer, watcher->fd, EV_WRITE);
            ev_io_start(loop, watcher);
            return;
        }
    }
}

static void accept_client(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)events;
    struct stats_server *server = watcher->data;
    int fd = accept4(watcher->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct stats_client *client;

    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            ev_io_stop(loop, watcher);
            ev_timer_set(&server->pause, ACCEPT_PAUSE_S, 0.);
            ev_timer_start(loop, &server->pause);
        }
        return;
    }
    client = server->clients < CLIENTS_MAX ? calloc(1, sizeof *client) : NULL;
    if (!client) {
        close(fd);
        return;
    }
    server->clients++;
    client->server = server;
    http_framing_init_request(&client->request, client->target, sizeof client->target);
    ev_io_init(&client->watcher, read_request, fd, EV_READ);
    client->watcher.data = client;
    ev_io_start(loop, &client->watcher);
    ev_timer_init(&client->timer, time_out, CLIENT_TIMEOUT_S, 0.);
    client->timer.data = client;
    ev_timer_start(loop, &client->timer);
}

static void resume_accepting(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)events;
    struct stats_server *server = timer->data;

    ev_io_start(loop, &server->watcher);
}

void stats_server_start(struct stats_server *server, struct ev_loop *loop, int listener, const struct stats *stats) {
    *server = (struct stats_server){.loop = loop, .stats = stats};
    ev_io_init(&server->watcher, accept_client, listener, EV_READ);
    ev_init(&server->pause, resume_accepting);
    server->watcher.data = server->pause.data = server;
    ev_io_start(loop, &server->watcher);
}
