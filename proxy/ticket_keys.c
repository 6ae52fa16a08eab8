/* SPDX-License-Identifier: MIT */
#include "ticket_keys.h"

#include "clock.h"
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
    uint64_t since_ns;   /* when it began to, in CLOCK_REALTIME */
    uint64_t interval_ns;
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

static bool make_key(struct ticket_key *key) {
    key->secret_bytes = sizeof key->cipher_secret;
    return RAND_bytes(key->name, sizeof key->name) == 1 &&
           RAND_priv_bytes(key->cipher_secret, sizeof key->cipher_secret) == 1 &&
           RAND_priv_bytes(key->mac_secret, sizeof key->mac_secret) == 1;
}

struct ticket_keys *ticket_keys_new(void) {
    struct ticket_keys *keys = calloc(1, sizeof *keys);

    if (!keys)
        return NULL;
    keys->shared = shared_memory_new(sizeof *keys->shared);
    ev_init(&keys->timer, time_to_rotate);
    keys->timer.data = keys;
    if (!make_key(&keys->shared->slot[1]) || !ticket_keys_rotate(keys)) {
        free(keys);
        return NULL;
    }
    return keys;
}

void ticket_keys_rotate_every(struct ticket_keys *keys, struct ev_loop *loop, uint64_t interval_ns) {
    ev_tstamp interval = (ev_tstamp)interval_ns / NS_PER_S;

    __atomic_store_n(&keys->shared->interval_ns, interval_ns, __ATOMIC_RELEASE);
    if (ev_is_active(&keys->timer) && keys->timer.repeat == interval)
        return;
    keys->timer.repeat = interval;
    ev_timer_again(loop, &keys->timer);
}

bool ticket_keys_rotate(struct ticket_keys *keys) {
    struct shared_keys *shared = keys->shared;
    uint64_t next = keys->generation + 1;

    /* Whole before anybody can see it: the slot is that of three generations ago. */
    if (!make_key(&shared->slot[(next + 1) % SLOTS]))
        return false;
    keys->generation = next;
    shared->since_ns = realtime_ns();
    __atomic_store_n(&shared->generation, next, __ATOMIC_RELEASE);
    /* Not before the count: a worker that copies this one sees that the generation went on. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    OPENSSL_cleanse(&shared->slot[(next - 2) % SLOTS], sizeof *shared->slot);
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

uint64_t ticket_keys_generation(const struct ticket_keys *keys) {
    return __atomic_load_n(&keys->shared->generation, __ATOMIC_ACQUIRE);
}

/* False: the keys went on meanwhile. */
static bool list_keys(const struct shared_keys *shared, uint64_t current, uint64_t interval_ns, struct listed_key *list,
                      int *count) {
    *count = 0;
    for (int age = -1; age <= 1; age++) {
        struct listed_key *listed = &list[*count];
        if (age == 1 && current == 1)
            break; /* the first has none before it */
        listed->key = shared->slot[(current - (uint64_t)age) % SLOTS];
        listed->age = age;
        listed->expires_s = (shared->since_ns + (uint64_t)(2 - age) * interval_ns) / NS_PER_S;
        ++*count;
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(&shared->generation, __ATOMIC_ACQUIRE) == current;
}

int ticket_keys_list(const struct ticket_keys *keys, struct listed_key *list) {
    const struct shared_keys *shared = keys->shared;
    uint64_t interval_ns = __atomic_load_n(&shared->interval_ns, __ATOMIC_ACQUIRE);
    int count;

    if (!interval_ns)
        return 0;
    while (!list_keys(shared, __atomic_load_n(&shared->generation, __ATOMIC_ACQUIRE), interval_ns, list, &count))
        ;
    return count;
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
