/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_CONNECTION_H
#define TLSDYNO_ECHO_CONNECTION_H
/* A client's connection: requests in, answers out, until one of the two wants no more. */
#include "activity.h"
#include "prologue.h"
#include "ring.h"
#include "service_queue.h"

#include <ev.h>
#include <openssl/ssl.h>
#include <stdint.h>

struct connection;

/* What the connections of one worker have in common. */
struct worker {
    struct ev_loop *loop;
    SSL_CTX *tls; /* NULL: in the clear */
    enum prologue_kind prologue;
    struct service_queue *service; /* NULL: requests take no time */
    uint64_t connections;          /* taken so far */
    struct activities activities;  /* of the connections */
    struct connection *spare;      /* closed ones, to be used again */
};

/* Serves the client on fd (non-blocking), which belongs to the connection from here on. */
void connection_open(struct worker *worker, int fd);

/* For the worker's service queue: a request of one of its connections is done. */
void connection_served(struct service_job *job);

/* For the worker's ring: a seat that one of its connections had is free. */
void connection_left_ring(struct seat *seat);

/* Closes those that were idle for too long; returns in how many seconds to look again. */
ev_tstamp connection_close_idle(struct worker *worker);

#endif
