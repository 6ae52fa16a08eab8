/* SPDX-License-Identifier: MIT */
#ifndef PROXY_ANNOUNCEMENTS_H
#define PROXY_ANNOUNCEMENTS_H
/*
 * What workers have to tell other hosts, on its way to the process that does: a ring of bytes in shared memory for each
 * process that may be a worker, with one writer and one reader, so that nobody waits for anybody and a death leaves
 * nothing locked. What a full ring does not take is not announced.
 */
#include "session_store.h"

enum announcement_kind { ANNOUNCE_NEW, ANNOUNCE_DEL, ANNOUNCE_GET };

struct announcement {
    enum announcement_kind kind;
    uint64_t expires_s; /* as in the store */
    uint64_t born_us;   /* CLOCK_REALTIME */
    size_t id_length, length;
    uint8_t id[SESSION_ID_MAX], bytes[SESSION_BYTES_MAX]; /* bytes: of a new session */
};

struct announcements;

/* In the master, before anything is forked. NULL with errno set: no descriptor. */
struct announcements *announcements_new(int slots);

/* In a worker that has this slot to itself. False: the ring is full. */
bool announcements_put(struct announcements *announcements, int slot, const struct announcement *announcement);

/* In the one reader: the next of a ring. False: there is none. */
bool announcements_take(struct announcements *announcements, int slot, struct announcement *announcement);

/*
 * In the reader: whoever announces something from here on makes the descriptor readable. False: something was
 * announced already, and nobody will.
 */
bool announcements_sleep(struct announcements *announcements);

/* In the reader, when the descriptor was readable. */
void announcements_wake(struct announcements *announcements);

/* For the reader to watch. */
int announcements_descriptor(const struct announcements *announcements);

#endif
