/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SESSION_SYNC_H
#define PROXY_SESSION_SYNC_H
/*
 * Sessions and ticket keys shared with other hosts: what the master makes once, before anything is forked, and workers
 * and the process that takes datagrams (sync_process.h) have in common.
 *
 *   workers -> datagrams -> proxy-sync of other hosts -> their store -> their workers
 *
 * A worker sends what it has to tell itself (announcer.h). All processes of a host are one sender: they have one key,
 * and the numbers of datagrams in shared memory. To be woken costs more than to take a datagram, so what has come lies
 * in the socket for a while where much comes (sync_receiver.h); a worker that misses a session has it taken at once
 * (session_wait.h). So whoever asks finds a session from the moment on that its datagram has come.
 */
#include "foreign_keys.h"
#include "session_store.h"
#include "settings.h"
#include "sync_counters.h"
#include "sync_packet.h"
#include "sync_stud.h"
#include "ticket_keys.h"

struct session_sync {
    struct sharing sharing;
    struct session_store *store;     /* NULL: only ticket keys are shared */
    struct ticket_keys *ticket_keys; /* NULL: they are not shared */
    struct foreign_keys *foreign_keys;
    struct sync_counters *counters;
    struct sync_keys *keys;
    uint8_t id[SYNC_SENDER_BYTES]; /* of this start of the proxy */
    uint64_t *next;                /* [SYNC_STREAMS], in shared memory: numbers begin with 1 */
    uint64_t *takes;               /* in shared memory: odd while datagrams are taken */
    int hurry;                     /* eventfd: what has come is to be taken at once */
    int slots;                     /* processes that may wait for a session */
    /* Of each slot: */
    uint32_t *waiting; /* somebody waits there: in shared memory */
    int *wake;         /* eventfd */
    uint64_t lifetime_s;
    uint8_t secret[SYNC_SECRET_BYTES];
    uint8_t stud_key[STUD_KEY_BYTES];
    int fd; /* -1 before session_sync_open */
};

/*
 * NULL and *made, which is NULL where nothing is shared; or one line that says why it is refused, valid until the next
 * call. The store may be NULL.
 */
const char *session_sync_new(struct session_sync **made, const struct proxy_settings *settings,
                             struct session_store *store, struct ticket_keys *ticket_keys, int slots);

/*
 * NULL, or one line that says why a reload is refused: what is shared is decided at the start, and random keys of
 * tickets that come later would be told to nobody. sync may be NULL.
 */
const char *session_sync_check_reload(const struct session_sync *sync, const struct proxy_settings *old,
                                      const struct proxy_settings *new);

/* Opens the socket, and what wakes those who wait for sessions and whoever takes them. False with errno set. */
bool session_sync_open(struct session_sync *sync);

#endif
