/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_CATCH_UP_H
#define PROXY_SYNC_CATCH_UP_H
/*
 * A host that has just met another asks it for all that it has: one datagram's worth at a time, and the next only when
 * that has come, so neither is ever busy with much more than with one datagram. What has not come is asked for again,
 * for as long as the other is heard.
 */
#include "sync_outbox.h"
#include "sync_senders.h"

#include <ev.h>

struct sync_catch_up {
    struct ev_loop *loop;
    struct sync_outbox *outbox;
    struct sync_senders *senders;
    struct sync_sender *from; /* NULL: nobody is asked now */
    uint8_t id[SYNC_SENDER_BYTES];
    uint64_t number; /* asked for */
    int tries;
    ev_timer timer;
};

void sync_catch_up_init(struct sync_catch_up *catch_up, struct ev_loop *loop, struct sync_outbox *outbox,
                        struct sync_senders *senders);

/* Asks the next sender that is due, unless one is being asked. */
void sync_catch_up_go_on(struct sync_catch_up *catch_up);

/* A SYNC_CAUGHT_UP of this sender said this, and all that came with it has been taken. */
void sync_catch_up_answered(struct sync_catch_up *catch_up, const struct sync_sender *from, uint64_t number,
                            uint64_t next);

/* Answers the SYNC_CATCH_UP of a sender, which is there, with what there is from that number on. */
void sync_catch_up_answer(struct sync_outbox *outbox, const uint8_t *from, const struct address *to, uint64_t number);

/* This host's ticket keys, as messages. False: they did not all fit. */
bool sync_catch_up_write_keys(const struct session_sync *sync, struct writer *writer);

#endif
