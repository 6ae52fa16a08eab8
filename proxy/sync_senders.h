/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_SENDERS_H
#define PROXY_SYNC_SENDERS_H
/*
 * The hosts that are heard. Nothing of a sender is taken before it has proven that it is alive: it has sealed, together
 * with a random number that we have just sent it, how far its own numbers have come. So whatever was recorded earlier,
 * of this sender or of one that has gone, before a restart of ours or after, is of no use to whoever sends it again.
 *
 * The proof also tells what the sender's clock shows while ours shows the time, so the clocks need not agree: dates are
 * held against that, and a datagram that is dated otherwise than it would be now was kept back or made up.
 */
#include "address.h"
#include "replay_window.h"
#include "sync_packet.h"

#define SYNC_SENDERS_MAX 64

struct sync_sender {
    uint8_t id[SYNC_SENDER_BYTES];
    EVP_CIPHER_CTX *open; /* NULL: this place is free */
    struct replay_window window[SYNC_STREAMS];
    /* Numbers up to these, inclusive, may have been used before the proof was asked for. */
    uint64_t before_proof[SYNC_STREAMS];
    int64_t behind_us;            /* our clock less its own, and the shortest way of a datagram since the last proof */
    uint64_t heard_ns, proven_ns; /* CLOCK_MONOTONIC */
    uint64_t misdated_ns;         /* the same: it was last asked for a proof for its dates; 0: never */
    struct address address;
    bool catch_up_due;
};

struct sync_senders {
    struct sync_keys *keys;
    uint8_t nonce_secret[SYNC_SECRET_BYTES];
    struct sync_sender sender[SYNC_SENDERS_MAX];
};

/* False: the library failed. */
bool sync_senders_init(struct sync_senders *senders, struct sync_keys *keys);

/* NULL: not known. */
struct sync_sender *sync_senders_find(struct sync_senders *senders, const uint8_t *id);

/*
 * The sender has given a proof: it is known from here on, and nothing up to the numbers of this datagram, and of its
 * stream to all, is new. NULL: there are too many.
 */
struct sync_sender *sync_senders_add(struct sync_senders *senders, const struct sync_head *head, uint64_t next_to_all);

/* Forgets who has not been heard for half a minute; how many are left. */
int sync_senders_expire(struct sync_senders *senders, uint64_t now_ns);

/* What a sender has to seal to prove that it is alive. It changes every few seconds. */
void sync_senders_nonce(const struct sync_senders *senders, const uint8_t *id, uint64_t now_ns, uint8_t *nonce);

/* Whether it is one that was asked for within the last few seconds. */
bool sync_senders_check_nonce(const struct sync_senders *senders, const uint8_t *id, uint64_t now_ns,
                              const uint8_t *nonce);

#endif
