/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_CLIENT_STEPS_H
#define TLSDYNO_CLIENT_STEPS_H
/*
 * What client.c and its parts, client_open.c, client_transaction.c and client_close.c, say to each other; nobody else
 * needs it. Each state has a step. It, and whatever it ends with, returns true if the next state can be worked on at
 * once, false if an event must come.
 */
#include "client.h"

/* ---- client.c ---- */

/* The one end of every connection, and of every attempt at one: here it is counted, once, if it went wrong. True. */
bool client_finish(struct client *client, enum load_error error, uint64_t now_ns);

/* The same for what the engine just said, STREAM_EOF or STREAM_ERROR. */
bool client_finish_for(struct client *client, enum stream_result result, uint64_t now_ns);

void client_set_deadline(struct client *client, uint64_t now_ns);

/* Asks pacing for something to do; with PACING_NOW the slot has it. */
enum pacing_answer client_take(struct client *client, uint64_t now_ns);

/* A connection without a transaction at work: begins the next, rests until there is one, or ends. */
bool client_go_on(struct client *client, uint64_t now_ns);

/* A latency of what the slot is at, from from_ns until now, if it is to be counted. */
void client_count_latency(struct client *client, enum latency latency, uint64_t from_ns, uint64_t now_ns);

/* What the slot took was done. Counts the operation; whole is the latency of all of it. */
void client_count_done(struct client *client, enum latency whole, uint64_t now_ns);

/* ---- client_open.c ---- */

bool client_open(struct client *client, uint64_t now_ns);
bool client_step_connecting(struct client *client);
bool client_step_handshaking(struct client *client);

/* ---- client_transaction.c ---- */

bool client_begin_request(struct client *client, uint64_t now_ns);
bool client_step_sending(struct client *client);
bool client_step_receiving(struct client *client);

/* ---- client_close.c ---- */

bool client_begin_end(struct client *client, uint64_t now_ns);
bool client_step_ending(struct client *client);
bool client_step_lingering(struct client *client);

/*
 * A write failed with this error. The target may have said why before it closed: an alert that is still to be read
 * tells more.
 */
enum load_error client_last_words(struct client *client, enum load_error error);

#endif
