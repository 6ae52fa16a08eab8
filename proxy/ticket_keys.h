/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TICKET_KEYS_H
#define PROXY_TICKET_KEYS_H
/*
 * Keys of session tickets that nobody chose: random, in memory that all workers share, replaced at intervals by the
 * master. The key before the last still opens its tickets, older ones are wiped, so that what was recorded more than
 * two intervals ago stays secret whatever is stolen later.
 *
 *   generation:      1    2    3    4  ...      the last one seals, the last two open; each has slot generation % 4
 *
 * The next key is made one interval before it seals, so that other hosts can be told of it in time.
 *
 * Nobody waits for anybody: the master writes to a slot that is in nobody's use, then counts the generation up, and a
 * worker looks again if the generation went on while it read.
 */
#include "ticket_key_file.h"

#include <ev.h>
#include <stdbool.h>

struct ticket_keys;

/* With a first key. In the master, once, before any worker is forked: it outlives reloads. NULL: no random numbers. */
struct ticket_keys *ticket_keys_new(void);

/*
 * In the master: a new key each interval_ns from here on. Again after a reload, with the interval that holds now: only
 * another than before begins anew.
 */
void ticket_keys_rotate_every(struct ticket_keys *keys, struct ev_loop *loop, uint64_t interval_ns);

/* In the master: a new key now. False: no random numbers; the old one stays. */
bool ticket_keys_rotate(struct ticket_keys *keys);

struct listed_key {
    struct ticket_key key;
    int age;            /* -1: seals next; 0: seals; 1: opens only */
    uint64_t expires_s; /* when it does not open any more (CLOCK_REALTIME), if keys rotate as they do now */
};

#define LISTED_KEYS_MAX 3

/* Grows by one with each key. */
uint64_t ticket_keys_generation(const struct ticket_keys *keys);

/* All keys, for the caller to wipe; returns how many. None before ticket_keys_rotate_every. */
int ticket_keys_list(const struct ticket_keys *keys, struct listed_key *list);

/* Copies the key that seals; the copy is the caller's to wipe. */
void ticket_keys_current(const struct ticket_keys *keys, struct ticket_key *key);

/* Copies the key of that name; *is_current tells whether it is the one that seals. False: there is none. */
bool ticket_keys_find(const struct ticket_keys *keys, const uint8_t *name, struct ticket_key *key, bool *is_current);

#endif
