/* SPDX-License-Identifier: MIT */
#include "foreign_keys.h"

#include "shared_memory.h"

#include <openssl/crypto.h>
#include <string.h>

/* Three each of as many senders as are remembered, and of some that have gone. */
#define PLACES 256

struct place {
    uint32_t sequence; /* odd while the writer is at it */
    bool seals;
    uint64_t expires_s; /* 0: empty */
    struct ticket_key key;
};

struct foreign_keys {
    uint32_t used; /* places above were never used */
    /* Beside each other, so that looking for one that is not there costs little. */
    uint8_t name[PLACES][TICKET_KEY_NAME_BYTES];
    struct place place[PLACES];
};

struct foreign_keys *foreign_keys_new(void) {
    return shared_memory_new(sizeof(struct foreign_keys));
}

static void begin_change(struct place *place) {
    __atomic_store_n(&place->sequence, place->sequence | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void end_change(struct place *place) {
    __atomic_store_n(&place->sequence, place->sequence + 1, __ATOMIC_RELEASE);
}

static void wipe(struct foreign_keys *keys, uint32_t at) {
    struct place *place = &keys->place[at];

    begin_change(place);
    OPENSSL_cleanse(&place->key, sizeof place->key);
    place->expires_s = 0;
    memset(keys->name[at], 0, sizeof keys->name[at]);
    end_change(place);
}

void foreign_keys_begin(struct foreign_keys *keys) {
    for (uint32_t at = 0; at < PLACES; at++)
        if (keys->place[at].sequence & 1)
            wipe(keys, at);
}

static uint32_t find(const struct foreign_keys *keys, const uint8_t *name) {
    uint32_t at = 0, used = __atomic_load_n(&keys->used, __ATOMIC_ACQUIRE);

    while (at < used && (!keys->place[at].expires_s || memcmp(keys->name[at], name, TICKET_KEY_NAME_BYTES) != 0))
        at++;
    return at < used ? at : PLACES;
}

enum foreign_key_result foreign_keys_put(struct foreign_keys *keys, const struct ticket_key *key, bool seals,
                                         uint64_t expires_s) {
    uint32_t at = find(keys, key->name);
    bool known = at < PLACES;
    struct place *place;

    for (uint32_t other = 0; at == PLACES && other < PLACES; other++)
        if (!keys->place[other].expires_s)
            at = other;
    if (at == PLACES)
        return FOREIGN_KEY_NO_ROOM;
    place = &keys->place[at];
    if (known && CRYPTO_memcmp(&place->key, key, sizeof *key) == 0) {
        /* Told again and again: whoever reads it meanwhile finds it. */
        place->seals = seals;
        __atomic_store_n(&place->expires_s, expires_s, __ATOMIC_RELAXED);
        return FOREIGN_KEY_KNOWN;
    }
    begin_change(place);
    place->key = *key;
    place->seals = seals;
    place->expires_s = expires_s;
    memcpy(keys->name[at], key->name, sizeof keys->name[at]);
    end_change(place);
    if (at >= keys->used)
        __atomic_store_n(&keys->used, at + 1, __ATOMIC_RELEASE);
    return known ? FOREIGN_KEY_KNOWN : FOREIGN_KEY_NEW;
}

void foreign_keys_expire(struct foreign_keys *keys, uint64_t now_s) {
    for (uint32_t at = 0; at < keys->used; at++)
        if (keys->place[at].expires_s && keys->place[at].expires_s <= now_s)
            wipe(keys, at);
}

bool foreign_keys_find(const struct foreign_keys *keys, const uint8_t *name, uint64_t now_s, struct ticket_key *key,
                       bool *seals) {
    uint32_t at = find(keys, name), before;
    const struct place *place = &keys->place[at < PLACES ? at : 0];
    uint64_t expires_s;

    if (at == PLACES)
        return false;
    before = __atomic_load_n(&place->sequence, __ATOMIC_ACQUIRE);
    *key = place->key;
    *seals = place->seals;
    expires_s = place->expires_s;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!(before & 1) && before == __atomic_load_n(&place->sequence, __ATOMIC_RELAXED) && expires_s > now_s &&
        memcmp(key->name, name, TICKET_KEY_NAME_BYTES) == 0)
        return true;
    OPENSSL_cleanse(key, sizeof *key);
    return false;
}
