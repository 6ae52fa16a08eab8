/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_WIRE_H
#define TLSDYNO_LIGHT_WIRE_H
/*
 * A connection of the light engine without a socket: its recv(), send(), shutdown() and close() are ours, and so are
 * its random numbers and its clock. So the same input has the same result (but where the key shares are fresh), and a
 * flight that a real server once gave is right to the last bit when it is given again.
 */
#include "light/light.h"

#define SETTINGS 64 /* kinds of engine there are */

/* The engine of that kind; made once. */
struct light_engine *wire_engine(unsigned setting);

struct wire {
    struct light_engine *engine;
    struct light_connection *connection;
    struct session *session; /* that came last */
    enum stream_result last;
    /* What the engine is still to receive, and then perhaps FIN. */
    uint8_t *in;
    size_t in_at, in_length;
    bool fin;
    size_t piece; /* recv() gives at most as many bytes; 0: as many as there are */
    size_t reads; /* application data is read in pieces of this size; 0: in large ones */
    /* send() takes as many bytes in all; what is sent is given to the sink, if there is one. */
    size_t room;
    void (*sink)(void *user, const uint8_t *bytes, size_t length);
    void *user;
};

void wire_begin(struct wire *wire, unsigned setting);
/* A connection; offers the session that came last, if there is one. */
void wire_open(struct wire *wire);
/* Closes the connection, and opens another. */
void wire_reopen(struct wire *wire);
void wire_end(struct wire *wire);

/* Bytes to be received. */
void wire_give(struct wire *wire, const uint8_t *bytes, size_t length);
/* Has the engine go on until it waits, or has failed, or the connection is at its end. */
void wire_step(struct wire *wire);
void wire_write(struct wire *wire, size_t length);
void wire_finish(struct wire *wire); /* close_notify */

/* A record of the peer, sealed as the engine expects the next one. */
void wire_give_record(struct wire *wire, uint8_t type, const uint8_t *bytes, size_t length);
/* The Finished that the engine expects in its present state; nothing, if it expects none. */
void wire_give_finished(struct wire *wire);

/*
 * The program that a sealed input is: the setting, and then pieces. In one byte what is to be done, in two how many
 * bytes it is done with, and these.
 */
enum action {
    ACTION_RECORD,   /* one byte: type; the rest: in the clear what is sealed */
    ACTION_FINISHED, /* the right one */
    ACTION_RAW,      /* bytes as they come over the wire */
    ACTION_FIN,
    ACTION_WRITE, /* application data of ours, as many bytes as the number says times 64 */
    ACTION_CLOSE_NOTIFY,
    ACTION_REOPEN, /* another connection, which may resume */
    ACTION_SPLIT,  /* as ACTION_RECORD, in records of at most as many bytes as the second byte says */
    ACTIONS,
};

#endif
