/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_STRANGERS_H
#define PROXY_SYNC_STRANGERS_H
/*
 * Senders that have proven nothing, of which some have gone and are only sent again by somebody who has recorded them.
 * Numbers of a sender only grow, so one that has come before tells nothing new, and is refused before it costs more
 * than a look; who lives goes on to the next. And a sender is replied to a few times a second at most.
 *
 * Who has recorded very many senders can fill all places. A host whose clock shows about our time has places of its
 * own, where nothing that was recorded longer ago gets in. A place that was just used is given to no other, so there
 * are never more than PLACES replies of a kind, twice, in SYNC_REPLY_NS.
 */
#include "sync_packet.h"

#define SYNC_STRANGER_PLACES 256 /* a power of two */
/* From one reply of a kind to the next, to the same sender. */
#define SYNC_REPLY_NS UINT64_C(50000000)

enum sync_reply { SYNC_REPLY_CHALLENGE, SYNC_REPLY_PROOF, SYNC_REPLIES };

enum sync_recency { SYNC_OF_THIS_TIME, SYNC_OF_ANOTHER_TIME, SYNC_RECENCIES };

struct sync_stranger {
    uint8_t id[SYNC_SENDER_BYTES];
    uint64_t number[SYNC_STREAMS];     /* the last that has come; 0: none */
    uint64_t replied_ns[SYNC_REPLIES]; /* CLOCK_MONOTONIC; 0: not yet */
};

struct sync_strangers {
    uint64_t secret; /* nobody can choose who shares a place with whom */
    struct sync_stranger place[SYNC_RECENCIES][SYNC_STRANGER_PLACES];
};

/* False: the library failed. */
bool sync_strangers_init(struct sync_strangers *strangers);

/* Whether this number of the sender's, or a later one, has come before; as far as is remembered. */
bool sync_strangers_have_heard(const struct sync_strangers *strangers, const struct sync_head *head);

/*
 * The sender has sealed this, and it has not been heard. NULL: there is no place for it now, and no reply; else valid
 * until the next call.
 */
struct sync_stranger *sync_strangers_hear(struct sync_strangers *strangers, const struct sync_head *head,
                                          enum sync_recency recency, uint64_t now_ns);

/* True: it may be replied to in this way, and is from here on. The stranger may be NULL, which may not. */
bool sync_stranger_reply(struct sync_stranger *stranger, enum sync_reply reply, uint64_t now_ns);

#endif
