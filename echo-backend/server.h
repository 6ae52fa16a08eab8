/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_SERVER_H
#define TLSDYNO_ECHO_SERVER_H
/* A worker's life: it accepts, serves and closes what is idle. */
#include "prologue.h"
#include "service_queue.h"

#include <ev.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

/* The same for all workers; made before they are forked. */
struct server {
    SSL_CTX *tls;   /* NULL: in the clear. Its ticket keys are the workers' common ones. */
    int *listeners; /* one for each worker */
    int workers;
    bool local; /* a UNIX socket: all listeners are the same */
    enum prologue_kind prologue;
    struct service *service; /* NULL: requests take no time */
    uint64_t idle_timeout_ns;
    bool io_uring; /* where it is to be had */
};

/* For prefork: context is a struct server. Does not return but with the end of its loop. */
int server_run(int index, struct ev_loop *loop, void *context);

#endif
