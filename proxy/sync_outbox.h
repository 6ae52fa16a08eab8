/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_OUTBOX_H
#define PROXY_SYNC_OUTBOX_H
/* What a process sends: messages to all are collected into one datagram for as long as they fit. */
#include "session_sync.h"
#include "sync_message.h"

struct sync_outbox {
    const struct session_sync *sync;
    EVP_CIPHER_CTX *seal;
    struct writer batch;
    struct sync_session before; /* the last one in it */
    uint64_t batch_date_us;     /* 0: that of its sending */
    uint8_t bytes[SYNC_PACKET_BYTES_MAX];
};

/* False: the library failed. */
bool sync_outbox_init(struct sync_outbox *outbox, const struct session_sync *sync);

/*
 * To all, with the next sync_outbox_flush at the latest. born_us: when that which it tells of happened, or 0; the
 * oldest of a datagram is its date.
 */
void sync_outbox_add(struct sync_outbox *outbox, const struct sync_message *message, uint64_t born_us);

/* Sends what was collected, if anything was. */
void sync_outbox_flush(struct sync_outbox *outbox);

/* Sends a datagram to all, whatever was collected: we live. */
void sync_outbox_beat(struct sync_outbox *outbox);

/* To one, at once: messages that sync_outbox_writer has begun. */
void sync_outbox_reply(struct sync_outbox *outbox, const struct address *to, const struct writer *messages);

/* Counts a datagram of this length that was sent to so many of those wanted. */
void sync_outbox_count(const struct session_sync *sync, size_t length, int sent, int wanted);

/*
 * Messages for one addressee, in bytes of SYNC_PACKET_BYTES_MAX: the room that a datagram has for them.
 */
struct writer sync_outbox_writer(uint8_t *bytes, const uint8_t *addressee);

/* From here on as much as a datagram can ever have, for one session that is larger than usual; and no more again. */
void sync_outbox_widen(struct writer *writer);
void sync_outbox_narrow(struct writer *writer);

#endif
