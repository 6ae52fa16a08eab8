/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_INBOX_H
#define PROXY_SYNC_INBOX_H
/* What other hosts send: held against keys, numbers and dates, then put into the store. Every refusal is counted. */
#include "sync_catch_up.h"
#include "sync_strangers.h"

struct sync_inbox {
    const struct session_sync *sync;
    struct sync_outbox *outbox;
    struct sync_senders senders;
    struct sync_catch_up catch_up;
    EVP_CIPHER_CTX *stranger; /* opens what a sender sends that is not known */
    struct sync_strangers strangers;
    double answers_s; /* somebody may wait for an answer, of ours or to us, for so long: the receiver's to reset */
};

/* False: the library failed. */
bool sync_inbox_init(struct sync_inbox *inbox, struct ev_loop *loop, const struct session_sync *sync,
                     struct sync_outbox *outbox);

/* Takes a datagram, which arrived at this CLOCK_REALTIME; length may be more than SYNC_PACKET_BYTES_MAX. */
void sync_inbox_take(struct sync_inbox *inbox, const uint8_t *datagram, size_t length, const struct address *from,
                     uint64_t arrived_us);

/* Now and then: forgets who is silent and what is over. */
void sync_inbox_look_around(struct sync_inbox *inbox);

#endif
