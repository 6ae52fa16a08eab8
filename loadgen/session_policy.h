/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_SESSION_POLICY_H
#define TLSDYNO_SESSION_POLICY_H
/*
 * Which handshakes of a connection slot offer a session. A slot is one of the -c connections: it makes one connection
 * after the other and keeps the session of the last.
 */
#include "engine.h"

#include <stdbool.h>
#include <stdint.h>

enum reuse { REUSE_NEVER, REUSE_ALWAYS, REUSE_EVERY };

struct session_policy {
    enum reuse reuse;
    uint64_t every; /* REUSE_EVERY: one full handshake in so many */
};

struct session_slot {
    const struct session_policy *policy;
    const struct engine *engine;
    void *session;       /* the newest, or NULL; the slot's */
    bool offered;        /* the session, which is good for one use, in a handshake that goes on */
    bool given_back;     /* by one that came to nothing */
    uint64_t handshakes; /* completed so far */
    uint64_t offset;     /* REUSE_EVERY: by how much the slot's second full handshake is late, < every */
};

/* "never", "always" or "every:N" into a struct session_policy; NULL if it is good, else why it is refused. */
const char *session_policy_parse(void *policy, const char *text);

/*
 * The index-th of so many slots. Slots are spread so that their full handshakes do not come in bursts, and yet each
 * makes exactly one full handshake in its connections 0..N-1, N..2N-1 and so on.
 */
void session_slot_init(struct session_slot *slot, const struct session_policy *policy, const struct engine *engine,
                       uint64_t index, uint64_t slots);

/* The session that the next handshake offers, or NULL: then it is to be full. It stays the slot's. */
void *session_slot_offer(struct session_slot *slot);

/* The session that session_slot_offer gave is on its way in a handshake. */
void session_slot_used(struct session_slot *slot);

/*
 * A handshake was completed: forgets what it offered if that is good for one use only. One that failed does not count:
 * what was due is due again.
 */
void session_slot_completed(struct session_slot *slot);

/*
 * The connection ended with an error. If a handshake did that offered a session which is good for one use only, that is
 * forgotten too; but if the target was gone (as when it dies with the connections that it had not looked at yet), it is
 * offered once more. RFC 8446, C.4, would rather have clients not do so, for their privacy.
 */
void session_slot_failed(struct session_slot *slot, bool target_was_gone);

/* A new session, the slot's from here on: it replaces the one before. */
void session_slot_keep(struct session_slot *slot, void *session);

void session_slot_end(struct session_slot *slot);

#endif
