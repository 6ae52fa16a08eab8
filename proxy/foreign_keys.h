/* SPDX-License-Identifier: MIT */
#ifndef PROXY_FOREIGN_KEYS_H
#define PROXY_FOREIGN_KEYS_H
/*
 * Ticket keys of other hosts: their tickets are opened here, none is sealed with them. In shared memory that one
 * process writes and all workers read, without waiting for each other: a reader sees that a key changed under its
 * hands, and takes it for one that is not there.
 */
#include "ticket_key_file.h"

#include <stdbool.h>

struct foreign_keys;

/* In the master, before anything is forked. */
struct foreign_keys *foreign_keys_new(void);

/* In the writer, which may be the successor of one that died in the middle of a change: before anything else. */
void foreign_keys_begin(struct foreign_keys *keys);

enum foreign_key_result { FOREIGN_KEY_NEW, FOREIGN_KEY_KNOWN, FOREIGN_KEY_NO_ROOM };

/*
 * The key opens tickets until expires_s (CLOCK_REALTIME); seals: new tickets are still sealed with it, or soon will be.
 */
enum foreign_key_result foreign_keys_put(struct foreign_keys *keys, const struct ticket_key *key, bool seals,
                                         uint64_t expires_s);

/* In the writer: keys that are over are wiped. */
void foreign_keys_expire(struct foreign_keys *keys, uint64_t now_s);

/* Copies the key of that name, for the caller to wipe, and whether it still seals. False: there is none. */
bool foreign_keys_find(const struct foreign_keys *keys, const uint8_t *name, uint64_t now_s, struct ticket_key *key,
                       bool *seals);

#endif
