/* SPDX-License-Identifier: MIT */
#ifndef PROXY_RESUMPTION_H
#define PROXY_RESUMPTION_H
/* What sessions are resumed with. It outlives reloads, and with it do the sessions. */
#include "session_store.h"
#include "session_sync.h"
#include "settings.h"
#include "ticket_keys.h"

struct resumption {
    struct session_store *store[2]; /* of sessions without and with certificates of clients; NULL: not needed yet */
    struct ticket_keys *ticket_keys;
    struct session_sync *sync;        /* with other hosts; NULL: none */
    struct session_store *sync_store; /* what it puts sessions of other hosts into */
};

/*
 * In the master, once. slots: workers that can be there at a time. NULL, or why it is refused, valid until the next
 * call; without random numbers the program ends.
 */
const char *resumption_new(struct resumption *made, const struct proxy_settings *settings, int slots);

/*
 * The store that fits the settings, once made for life. Where a reload asks for certificates of clients, or does not
 * any more, sessions of before cannot be resumed anyway (client_verification.h), so it costs nothing to begin another.
 * NULL and *store, which is NULL where none is wanted, or why that is refused, valid until the next call.
 */
const char *resumption_find_store(struct resumption *resumption, const struct proxy_settings *settings,
                                  struct session_store **store);

/* In a worker. */
void resumption_begin(const struct resumption *resumption);

#endif
