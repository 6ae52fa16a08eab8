/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LINGER_H
#define TLSDYNO_LINGER_H
/*
 * Connections whose work is done and whose own side is closed, until the target has closed its side too. Closing at
 * once would answer what the target still has to send (TLS 1.3 tickets, its close_notify) with RST, and a server that
 * meets RST in the middle of sending its tickets counts a failed handshake. Nobody is woken up for them: a worker looks
 * after all of them together, now and then, which costs a fraction of two events each.
 */
#include "load_error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct worker;

/* A worker's most at a time: what more there are keep their slot until they are over. */
#define LINGERERS_MAX 256

/* How long a target is waited for. */
#define LINGER_NS UINT64_C(1000000000)

struct lingerer {
    TAILQ_ENTRY(lingerer) others;
    void *connection; /* of the worker's engine; open while it lingers */
    uint64_t deadline_ns;
};

TAILQ_HEAD(lingerer_list, lingerer);

struct lingerers {
    struct lingerer_list waiting, spare;
    struct lingerer *all;
    int count;
};

/* So many at most. Exits with EXIT_FAILED if there is no memory. */
void linger_init(struct worker *worker, int count);

/*
 * Takes an open connection over, and gives another's memory, closed, in exchange: NULL if there are too many already.
 * The sessions that still come are lost.
 */
void *linger_take(struct worker *worker, void *connection, uint64_t now_ns);

/* Ends those that are over; give_up: all. */
void linger_sweep(struct worker *worker, uint64_t now_ns, bool give_up);

bool linger_is_empty(const struct worker *worker);

/*
 * Reads what the target still sends after our end. STREAM_RETRY: it has not ended yet. Anything else: it is over, and
 * *error says how it went: the work is done and counted, so whatever the target does now is no error of it, but that a
 * TLS 1.3 server refuses a handshake (our Finished) only after we hold it for done.
 */
enum stream_result linger_read(struct worker *worker, void *connection, enum load_error *error);

void linger_end(struct worker *worker);

#endif
