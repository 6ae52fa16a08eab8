/* SPDX-License-Identifier: MIT */
/*
 * The least that a server of kept-alive HTTP on epoll can be: whatever comes is taken for one request and is answered
 * with the same BODY_BYTES, without a look at it. What it costs is the kernel's: no server does better that waits with
 * epoll and makes one recv and one send a request. Prints where it listens and serves until it is killed.
 *
 *   least-server HOST:PORT BODY_BYTES
 */
#define _GNU_SOURCE
#include "address.h"
#include "units.h"

#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY_BYTES_MAX 65536
#define EVENTS_MAX     64
#define BACKLOG        1024

static char request[65536], response[BODY_BYTES_MAX + 128];

static void watch(int poll_fd, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void serve(int poll_fd, int listener, size_t response_bytes) {
    struct epoll_event events[EVENTS_MAX];

    for (;;) {
        int count = epoll_wait(poll_fd, events, EVENTS_MAX, -1);

        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;

            if (fd == listener) {
                fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd >= 0)
                    watch(poll_fd, fd);
            } else if (recv(fd, request, sizeof request, 0) <= 0 ||
                       send(fd, response, response_bytes, MSG_NOSIGNAL) != (ssize_t)response_bytes) {
                close(fd);
            }
        }
    }
}

int main(int argc, char **argv) {
    struct address address;
    char text[ADDRESS_TEXT_MAX];
    uint64_t body_bytes;
    int listener, poll_fd = epoll_create1(EPOLL_CLOEXEC), head_bytes;

    if (argc != 3 || address_parse(&address, argv[1]) || !parse_uint(argv[2], &body_bytes) ||
        body_bytes > BODY_BYTES_MAX) {
        fprintf(stderr, "least-server HOST:PORT BODY_BYTES\n");
        return 2;
    }
    if (poll_fd < 0 || !address_listen(&address, BACKLOG, &listener, 1)) {
        perror(argv[1]);
        return 2;
    }
    address_set_reno(listener);
    head_bytes =
        snprintf(response, sizeof response, "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", (unsigned)body_bytes);
    memset(response + head_bytes, 'x', (size_t)body_bytes);
    printf("listening on %s\n", address_format(&address, text));
    fflush(stdout);
    watch(poll_fd, listener);
    serve(poll_fd, listener, (size_t)head_bytes + (size_t)body_bytes);
}
