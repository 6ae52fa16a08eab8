/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_SERVICE_QUEUE_H
#define TLSDYNO_ECHO_SERVICE_QUEUE_H
/*
 * The requests that a worker has in service, under a service model whose load is that of all workers together.
 *
 * How long a request takes is not settled when it comes: all that are in flight slow each other down for as long as
 * they are. With n in flight, each gets on by 1/t(n) of its work in a unit of time, t being the model; so a request
 * that has n - 1 others beside it all the time takes t(n), the first of a burst as long as the last, and if some leave,
 * the rest go faster from then on. As all get on alike, there is one measure of work for the whole server, which only
 * grows, and a request is done when it is one more than it was at its beginning: first come, first done.
 *
 * A client that goes does not take its request with it, unless the connection is found to be broken.
 */
#include "service_model.h"

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

/* What the workers share. */
struct service;

/* Of a model that is not SERVICE_NONE, in shared memory: before the fork. Keeps model. */
struct service *service_new(const struct service_model *model, int workers);

/* In the master: what the worker had in flight went with it. */
void service_worker_ended(struct service *service, int worker);

/* One request. Its owner keeps it where it is until it is done or has left. */
struct service_job {
    bool in_service;
    /* Private. */
    double done_at_work;
    uint64_t began_ns;
    struct service_job *before, *after;
};

struct service_queue {
    void (*done)(struct service_job *job); /* set by the caller: the job is out of the queue */
    /* Private. */
    struct service *service;
    int worker;
    struct ev_loop *loop;
    ev_io timer; /* a timerfd: libev's own timers have milliseconds */
    bool armed;
    struct service_job *first, *last;
};

/* In a worker. Ends it if there is no timer for it. */
void service_queue_open(struct service_queue *queue, struct service *service, int worker, struct ev_loop *loop);

void service_queue_join(struct service_queue *queue, struct service_job *job);

/* For a job whose connection is closed; nothing if it is not in service. */
void service_queue_leave(struct service_queue *queue, struct service_job *job);

/* What was served by all workers since the start, from a request's beginning to its end. */
struct service_tally {
    unsigned in_flight, most_in_flight;
    uint64_t served, total_ns, longest_ns;
};
struct service_tally service_queue_tally(const struct service_queue *queue);

const struct service_model *service_queue_model(const struct service_queue *queue);

#endif
