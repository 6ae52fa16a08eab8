/* SPDX-License-Identifier: MIT */
#ifndef PROXY_ANNOUNCER_H
#define PROXY_ANNOUNCER_H
/*
 * A worker tells other hosts of its sessions itself: what it has to say within a millisecond leaves as
 * one datagram, which costs it less than waking another process would. It never waits: what the system does not take is
 * counted and not sent.
 */
#include "sync_outbox.h"

#include <ev.h>

#define DELS_TOLD_AGAIN 256

struct told_del {
    int left; /* times that it is still to be told */
    uint8_t id[SESSION_ID_MAX];
    size_t id_length;
    uint64_t expires_s;
};

struct announcer {
    struct session_sync *sync; /* set before the rest; not owned */
    struct ev_loop *loop;      /* of announcer_begin; before it NULL */
    /* Private. */
    struct sync_outbox outbox;
    struct told_del del[DELS_TOLD_AGAIN]; /* the last ones, in a ring */
    unsigned next_del;
    ev_timer collect, tell_again;
};

/* In a worker. False: the TLS library failed. */
bool announcer_begin(struct announcer *announcer, struct ev_loop *loop);

/*
 * After each step of a handshake: sends what has waited long enough. The timer alone would not do: a turn of the loop
 * may have many steps in it, each of up to a millisecond.
 */
void announcer_look(struct announcer *announcer);

/* A session that was just born. */
void announcer_new(struct announcer *announcer, const struct stored_session *session);

/* A session is dead, and is to be remembered as such until expires_s. */
void announcer_del(struct announcer *announcer, const uint8_t *id, size_t id_length, uint64_t expires_s);

/* Whoever has this session is asked for it, at once. */
void announcer_get(struct announcer *announcer, const uint8_t *id, size_t id_length);

#endif
