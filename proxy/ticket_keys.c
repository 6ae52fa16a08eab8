/* SPDX-License-Identifier: MIT */
#include "ticket_keys.h"

#include "log.h"
#include "shared_memory.h"
#include "units.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 4

struct shared_keys {
    uint64_t generation; /* of the key that seals; the first is 1 */
    struct ticket_key slot[SLOTS];
};

struct ticket_keys {
    struct shared_keys *shared;
    uint64_t generation; /* the master's own count: workers could write to the other */
    ev_timer timer;      /* runs in the master only */
};

static void time_to_rotate(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    if (!ticket_keys_rotate(timer->data))
        log_error("session tickets: no new key: the random number generator failed");
}

struct ticket_keys *ticket_keys_new(void) {
    struct ticket_keys *keys = calloc(1, sizeof *keys);

    if (!keys)
        return NULL;
    keys->shared = shared_memory_new(sizeof *keys->shared);
    ev_init(&keys->timer, time_to_rotate);
    keys->timer.data = keys;
    if (!ticket_keys_rotate(keys)) {
        free(keys);
        return NULL;
    }
    return keys;
}

void ticket_keys_rotate_every(struct ticket_keys *keys, struct ev_loop *loop, uint64_t interval_ns) {
    ev_tstamp interval = (ev_tstamp)interval_ns / NS_PER_S;

    if (ev_is_active(&keys->timer) && keys->timer.repeat == interval)
        return;
    keys->timer.repeat = interval;
    ev_timer_again(loop, &keys->timer);
}

bool ticket_keys_rotate(struct ticket_keys *keys) {
    struct shared_keys *shared = keys->shared;
    uint64_t next = keys->generation + 1;
    struct ticket_key *key = &shared->slot[next % SLOTS];

    /* Whole before anybody can see it: the slot is that of four generations ago. */
    if (RAND_bytes(key->name, sizeof key->name) != 1 ||
        RAND_priv_bytes(key->cipher_secret, sizeof key->cipher_secret) != 1 ||
        RAND_priv_bytes(key->mac_secret, sizeof key->mac_secret) != 1)
        return false;
    key->secret_bytes = sizeof key->cipher_secret;
    keys->generation = next;
    __atomic_store_n(&shared->generation, next, __ATOMIC_RELEASE);
    /* Not before the count: a worker that copies this one sees that the generation went on. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    OPENSSL_cleanse(&shared->slot[(next - 2) % SLOTS], sizeof *key);
    return true;
}

/*
 * Copies the key of a generation. False: it is older than the last but one, and so may have been wiped under our hands.
 */
static bool copy(const struct shared_keys *shared, uint64_t generation, struct ticket_key *key) {
    *key = shared->slot[generation % SLOTS];
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(&shared->generation, __ATOMIC_ACQUIRE) <= generation + 1;
}

void ticket_keys_current(const struct ticket_keys *keys, struct ticket_key *key) {
    while (!copy(keys->shared, __atomic_load_n(&keys->shared->generation, __ATOMIC_ACQUIRE), key))
        ;
}

bool ticket_keys_find(const struct ticket_keys *keys, const uint8_t *name, struct ticket_key *key, bool *is_current) {
    uint64_t current = __atomic_load_n(&keys->shared->generation, __ATOMIC_ACQUIRE);

    /* The first has none before it: slot 0 is empty then, and would do for a ticket that anybody can make. */
    for (uint64_t generation = current; generation >= 1 && generation + 1 >= current; generation--)
        if (copy(keys->shared, generation, key) && memcmp(key->name, name, sizeof key->name) == 0) {
            *is_current = generation == current;
            return true;
        }
    OPENSSL_cleanse(key, sizeof *key);
    return false;
}
