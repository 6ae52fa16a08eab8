/* SPDX-License-Identifier: MIT */
#include "linger.h"

#include "log.h"
#include "worker.h"

#include <stdlib.h>

/* At a time: a target that never stops sending must not keep all others waiting. */
#define READS_MAX 8

void linger_init(struct worker *worker, int count) {
    struct lingerers *lingerers = &worker->lingerers;

    TAILQ_INIT(&lingerers->waiting);
    TAILQ_INIT(&lingerers->spare);
    lingerers->count = count;
    lingerers->all = calloc((size_t)count + 1, sizeof *lingerers->all);
    for (int i = 0; lingerers->all && i < count; i++) {
        lingerers->all[i].connection = calloc(1, worker->engine->connection_bytes);
        if (!lingerers->all[i].connection)
            fail(EXIT_FAILED, "worker %d: out of memory for connections that end", worker->index);
        TAILQ_INSERT_TAIL(&lingerers->spare, &lingerers->all[i], others);
    }
    if (!lingerers->all)
        fail(EXIT_FAILED, "worker %d: out of memory for connections that end", worker->index);
}

void *linger_take(struct worker *worker, void *connection, uint64_t now_ns) {
    struct lingerers *lingerers = &worker->lingerers;
    struct lingerer *lingerer = TAILQ_FIRST(&lingerers->spare);
    void *other;

    if (!lingerer)
        return NULL;
    other = lingerer->connection;
    lingerer->connection = connection;
    lingerer->deadline_ns = now_ns + LINGER_NS;
    TAILQ_REMOVE(&lingerers->spare, lingerer, others);
    TAILQ_INSERT_TAIL(&lingerers->waiting, lingerer, others);
    return other;
}

enum stream_result linger_read(struct worker *worker, void *connection, enum load_error *error) {
    enum stream_result result = STREAM_OK;
    size_t got;

    *error = LOAD_NO_ERROR;
    for (int i = 0; i < READS_MAX && result == STREAM_OK; i++)
        result = worker->engine->read(connection, worker->bytes, sizeof worker->bytes, &got);
    if (result == STREAM_OK)
        return STREAM_RETRY;
    if (result == STREAM_ERROR && worker->plan->requests_per_connection == 0) {
        enum load_error why = worker->engine->why(connection);
        if (why == LOAD_TLS_ALERT || why == LOAD_TLS_PROTOCOL)
            *error = why;
    }
    return result;
}

/* ended: the target has, too. */
static void close_one(struct worker *worker, struct lingerer *lingerer, bool ended) {
    if (ended && worker->keeps_sockets)
        spare_sockets_keep(&worker->spare_sockets, worker->engine->release(lingerer->connection));
    else
        worker->engine->close(lingerer->connection);
    TAILQ_REMOVE(&worker->lingerers.waiting, lingerer, others);
    TAILQ_INSERT_HEAD(&worker->lingerers.spare, lingerer, others); /* the warmest memory first */
}

void linger_sweep(struct worker *worker, uint64_t now_ns, bool give_up) {
    struct lingerers *lingerers = &worker->lingerers;
    struct lingerer *next;

    for (struct lingerer *lingerer = TAILQ_FIRST(&lingerers->waiting); lingerer; lingerer = next) {
        enum load_error error;
        next = TAILQ_NEXT(lingerer, others);
        enum stream_result result = linger_read(worker, lingerer->connection, &error);
        if (result == STREAM_RETRY) {
            if (!give_up && now_ns < lingerer->deadline_ns)
                continue;
            worker->counters->closes_unanswered++;
        }
        if (error != LOAD_NO_ERROR)
            worker->counters->errors[error]++;
        close_one(worker, lingerer, result == STREAM_EOF);
    }
}

bool linger_is_empty(const struct worker *worker) {
    return TAILQ_EMPTY(&worker->lingerers.waiting);
}

void linger_end(struct worker *worker) {
    struct lingerers *lingerers = &worker->lingerers;

    for (struct lingerer *open = TAILQ_FIRST(&lingerers->waiting); open; open = TAILQ_NEXT(open, others))
        worker->engine->close(open->connection);
    for (int i = 0; i < lingerers->count; i++)
        free(lingerers->all[i].connection);
    free(lingerers->all);
}
