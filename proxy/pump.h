/* SPDX-License-Identifier: MIT */
#ifndef PROXY_PUMP_H
#define PROXY_PUMP_H
/*
 * One direction of a connection: what one stream sends goes to the other, through at most one buffer. A pump whose
 * buffer waits to be written reads no more, so the sender feels the receiver's pace. Two of them, back to back, make a
 * connection; neither knows whether its streams are in TLS or in the clear.
 */
#include "buffer_pool.h"
#include "stream.h"

#include <stdint.h>

struct pump {
    struct stream *from, *to;
    struct buffer *buffer;          /* NULL while nothing is held; the owner may fill one before the first run */
    int read_wants;                 /* what from must be ready for before it can be read: EV_READ, rarely EV_WRITE */
    int write_wants;                /* what to must be ready for; 0: nothing waits to be written */
    bool from_ended;                /* from will send no more */
    bool to_told;                   /* and to knows it */
    bool unfinished;                /* there is more to move at once, but the others have their turn first */
    uint64_t moved;                 /* bytes delivered to to */
    uint64_t *bytes_in, *bytes_out; /* counters of the worker */
};

enum pump_result { PUMP_OK, PUMP_FROM_BROKE, PUMP_TO_BROKE, PUMP_NO_MEMORY };

/* The events that a pump waits for on a stream, whichever end of it the stream is. */
int pump_events(const struct pump *pump, const struct stream *stream);

/* Moves what can be moved at once. With readable, from is believed to be ready. */
enum pump_result pump_run(struct pump *pump, struct buffer_pool *buffers, bool readable);

/* Writes what is held; gives the buffer back when it is empty. There must be one. */
enum pump_result pump_write(struct pump *pump, struct buffer_pool *buffers);

/* True when all that from sent is delivered, and to is still to learn that no more will come. */
bool pump_must_end(const struct pump *pump);

/* Tells it so. closing: the other direction has ended before, and to will be closed as soon as it is told. */
enum pump_result pump_end(struct pump *pump, bool closing);

/* Gives back what it holds. */
void pump_close(struct pump *pump, struct buffer_pool *buffers);

#endif
