/* SPDX-License-Identifier: MIT */
#include "pump.h"

#include "stats.h"

#include <errno.h>
#include <ev.h>

/* How many buffers a pump may move before the other connections have their turn. */
#define ROUNDS_A_TURN 8

int pump_events(const struct pump *pump, const struct stream *stream) {
    int events = 0;

    if (stream == pump->from && !pump->from_ended && !pump->write_wants)
        events |= pump->read_wants;
    if (stream == pump->to)
        events |= pump->write_wants;
    return events;
}

/* Fills the buffer with what can be had at once: a full TLS record often has company. *more: there may be yet more. */
static enum pump_result pump_read(struct pump *pump, struct buffer_pool *buffers, bool *more) {
    enum stream_result result;
    struct buffer *buffer = pump->buffer;
    size_t got;

    *more = false;
    if (!buffer) {
        buffer = pump->buffer = buffer_take(buffers);
        if (!buffer)
            return PUMP_NO_MEMORY;
    }
    pump->read_wants = EV_READ;
    do {
        result = stream_read(pump->from, buffer->bytes + buffer->end, BUFFER_BYTES - buffer->end, &got);
        if (result == STREAM_OK) {
            buffer->end += got;
            stats_add(pump->bytes_in, got);
        }
    } while (result == STREAM_OK && buffer->end < BUFFER_BYTES && stream_has_pending(pump->from));
    switch (result) {
    case STREAM_OK:
        /* Bytes in the TLS library's hands cannot be polled for: they must be fetched. */
        *more = buffer->end == BUFFER_BYTES || stream_has_pending(pump->from);
        return PUMP_OK;
    case STREAM_RETRY:
        pump->read_wants = pump->from->wants;
        return PUMP_OK;
    case STREAM_EOF:
        pump->from_ended = true;
        return PUMP_OK;
    default:
        return PUMP_FROM_BROKE;
    }
}

enum pump_result pump_write(struct pump *pump, struct buffer_pool *buffers) {
    struct buffer *buffer = pump->buffer;
    size_t put;

    pump->write_wants = 0;
    while (buffer->begin < buffer->end) {
        switch (stream_write(pump->to, buffer->bytes + buffer->begin, buffer->end - buffer->begin, &put)) {
        case STREAM_OK:
            buffer->begin += put;
            pump->moved += put;
            stats_add(pump->bytes_out, put);
            break;
        case STREAM_RETRY:
            pump->write_wants = pump->to->wants;
            return PUMP_OK;
        default:
            return PUMP_TO_BROKE;
        }
    }
    buffer_return(buffers, buffer);
    pump->buffer = NULL;
    return PUMP_OK;
}

enum pump_result pump_end(struct pump *pump, bool closing) {
    pump->write_wants = 0;
    switch (closing ? stream_say_end(pump->to) : stream_end(pump->to)) {
    case STREAM_RETRY:
        pump->write_wants = pump->to->wants;
        return PUMP_OK;
    case STREAM_ERROR:
        /* It may have closed its own side first: then there is nobody left to tell, and nothing lost. */
        if (!closing && pump->to->error != ENOTCONN && pump->to->error != EPIPE)
            return PUMP_TO_BROKE;
        break;
    default:
        break;
    }
    pump->to_told = true;
    return PUMP_OK;
}

/* Where a try to write is begun anew, the buffer may be as full as the try before has left it. */
static bool has_room(const struct pump *pump) {
    return !pump->buffer || pump->buffer->end < BUFFER_BYTES;
}

enum pump_result pump_run(struct pump *pump, struct buffer_pool *buffers, bool readable) {
    enum pump_result result = PUMP_OK;

    pump->unfinished = false;
    for (int round = 0; round < ROUNDS_A_TURN; round++) {
        if (pump->write_wants) /* meanwhile nothing announces what the TLS library holds */
            readable = readable || stream_has_pending(pump->from);
        else if (readable && !pump->from_ended && has_room(pump))
            result = pump_read(pump, buffers, &readable);
        else if (!pump->buffer)
            return PUMP_OK;
        if (result == PUMP_OK && pump->buffer)
            result = pump_write(pump, buffers);
        if (result != PUMP_OK || pump->write_wants)
            return result;
    }
    pump->unfinished = readable && !pump->from_ended;
    return PUMP_OK;
}

bool pump_must_end(const struct pump *pump) {
    return pump->from_ended && !pump->buffer && !pump->to_told;
}

void pump_close(struct pump *pump, struct buffer_pool *buffers) {
    if (pump->buffer)
        buffer_return(buffers, pump->buffer);
    pump->buffer = NULL;
}
