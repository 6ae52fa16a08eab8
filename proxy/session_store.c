/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "session_store.h"

#include "shared_memory.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

/* Slots are numbered from 1, so that memory fresh from the system (all zero) is an empty store. */
#define NONE 0
/* Below this, one shard: a small cache must hold as many sessions as it was given, however their IDs fall. */
#define SESSIONS_TO_SHARD 4096
#define SHARDS            16
/* A store of no more is there from the start: 20000 sessions take 12 MB. */
#define POPULATED_MAX (16 << 20)
/* Of the processor's cache, and what is fetched of a slot before it is known that it is the one. */
#define LINE_BYTES  64
#define USUAL_BYTES 256

/* What is followed to a slot. Apart from it, so that a million of them are still near the processor. */
struct link {
    uint32_t chain; /* next in the bucket, or next free */
    uint32_t older, newer;
    uint32_t hash; /* of the ID */
};

struct slot {
    uint16_t length; /* 0: withdrawn, its ID is all that is remembered */
    uint8_t id_length;
    uint8_t id[SESSION_ID_MAX];
    uint64_t expires_s;
    uint8_t bytes[]; /* as many as the store was made for */
};

struct shard {
    pthread_mutex_t lock;
    uint32_t slots, buckets; /* buckets: a power of two */
    uint32_t free, oldest, newest;
    uint32_t touched; /* slots above this number were never used: a large store takes memory as it fills */
    uint32_t count;
    uint32_t *bucket;  /* the same address in every worker: mapped before the fork */
    struct link *link; /* of the slots; slot 0 is not used */
    uint8_t *memory;
    size_t slot_bytes;
} __attribute__((aligned(64)));

struct session_store {
    uint32_t shards;
    size_t session_bytes;
    struct shard shard[];
};

static struct slot *slot_at(const struct shard *shard, uint32_t index) {
    return (struct slot *)(void *)(shard->memory + index * shard->slot_bytes);
}

static void shard_clear(struct shard *shard) {
    memset(shard->bucket, 0, shard->buckets * sizeof *shard->bucket);
    shard->free = shard->oldest = shard->newest = NONE;
    shard->touched = shard->count = 0;
}

static void shard_init(struct shard *shard, uint32_t slots, size_t session_bytes) {
    pthread_mutexattr_t attributes;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&shard->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    shard->slots = slots;
    shard->buckets = 1;
    while (shard->buckets < slots)
        shard->buckets *= 2;
    shard->bucket = shared_memory_new(shard->buckets * sizeof *shard->bucket);
    shard->link = shared_memory_new((slots + (size_t)1) * sizeof *shard->link);
    shard->slot_bytes = (sizeof(struct slot) + session_bytes + 7) / 8 * 8;
    shard->memory = shared_memory_new((slots + (size_t)1) * shard->slot_bytes);
}

struct session_store *session_store_new(uint64_t sessions, size_t session_bytes) {
    uint32_t shards = sessions < SESSIONS_TO_SHARD ? 1 : SHARDS;
    struct session_store *store = shared_memory_new(sizeof *store + shards * sizeof *store->shard);

    store->shards = shards;
    store->session_bytes = session_bytes;
    for (uint32_t i = 0; i < shards; i++)
        shard_init(&store->shard[i], (uint32_t)((sessions + shards - 1) / shards), session_bytes);
    return store;
}

void session_store_begin(const struct session_store *store) {
    for (uint32_t i = 0; i < store->shards; i++) {
        const struct shard *shard = &store->shard[i];
        size_t bytes = (shard->slots + (size_t)1) * shard->slot_bytes;
        if (bytes > POPULATED_MAX / store->shards)
            return; /* all are as large */
        shared_memory_populate(shard->bucket, shard->buckets * sizeof *shard->bucket);
        shared_memory_populate(shard->link, (shard->slots + (size_t)1) * sizeof *shard->link);
        shared_memory_populate(shard->memory, bytes);
    }
}

/* FNV-1a. The IDs are random bytes of our own making, but a client may send what it likes in a ClientHello. */
static uint32_t hash_id(const uint8_t *id, size_t length) {
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ id[i]) * 16777619u;
    return hash ^ hash >> 15;
}

static struct shard *lock_shard_at(struct session_store *store, uint32_t number) {
    struct shard *shard = &store->shard[number];

    if (pthread_mutex_lock(&shard->lock) == EOWNERDEAD) {
        /* Its owner died in the middle of a change: the lists may be in pieces. A cache may forget. */
        shard_clear(shard);
        pthread_mutex_consistent(&shard->lock);
    }
    return shard;
}

static struct shard *lock_shard(struct session_store *store, uint32_t hash) {
    return lock_shard_at(store, hash % store->shards);
}

static uint32_t *bucket_of(struct shard *shard, uint32_t hash) {
    return &shard->bucket[(hash / SHARDS) & (shard->buckets - 1)];
}

/* What lies far apart is fetched at once, as far as a session usually goes, and not one after the other. */
static void fetch_ahead(const struct shard *shard, uint32_t index) {
    const struct link *link = &shard->link[index];
    const uint8_t *slot = (const uint8_t *)slot_at(shard, index);

    for (size_t at = 0; at < USUAL_BYTES; at += LINE_BYTES)
        __builtin_prefetch(slot + at);
    __builtin_prefetch(&shard->link[link->older], 1);
    __builtin_prefetch(&shard->link[link->newer], 1);
}

/* Where the number of the slot with this ID is, or NONE. */
static uint32_t *find(struct shard *shard, uint32_t hash, const uint8_t *id, size_t id_length) {
    uint32_t *at = bucket_of(shard, hash);

    for (; *at != NONE; at = &shard->link[*at].chain) {
        const struct slot *slot = slot_at(shard, *at);
        if (shard->link[*at].hash != hash)
            continue;
        fetch_ahead(shard, *at);
        if (slot->id_length == id_length && memcmp(slot->id, id, id_length) == 0)
            break;
    }
    return at;
}

static void unlink_age(struct shard *shard, uint32_t index) {
    const struct link *link = &shard->link[index];

    *(link->older == NONE ? &shard->oldest : &shard->link[link->older].newer) = link->newer;
    *(link->newer == NONE ? &shard->newest : &shard->link[link->newer].older) = link->older;
}

static void link_newest(struct shard *shard, uint32_t index) {
    struct link *link = &shard->link[index];

    link->older = shard->newest;
    link->newer = NONE;
    *(link->older == NONE ? &shard->oldest : &shard->link[link->older].newer) = index;
    shard->newest = index;
}

/* Takes the slot whose number is there out of its bucket and the order of use, wipes it, and makes it free. */
static void drop(struct shard *shard, uint32_t *at) {
    uint32_t index = *at;
    struct link *link = &shard->link[index];
    struct slot *slot = slot_at(shard, index);

    *at = link->chain;
    unlink_age(shard, index);
    explicit_bzero(slot->bytes, slot->length);
    slot->length = 0;
    link->chain = shard->free;
    shard->free = index;
    shard->count--;
}

static void drop_oldest(struct shard *shard) {
    uint32_t *at = bucket_of(shard, shard->link[shard->oldest].hash);

    while (*at != shard->oldest)
        at = &shard->link[*at].chain;
    drop(shard, at);
}

/* A slot that is in no list: a free one, a new one, or that of the session that was used longest ago. */
static uint32_t take_slot(struct shard *shard, uint64_t now_s, enum session_put_result *result) {
    uint32_t index;

    *result = SESSION_KEPT;
    if (shard->free == NONE && shard->touched < shard->slots)
        return ++shard->touched;
    if (shard->free == NONE) {
        const struct slot *oldest = slot_at(shard, shard->oldest);
        if (oldest->length)
            *result = oldest->expires_s <= now_s ? SESSION_KEPT_FOR_EXPIRED : SESSION_KEPT_FOR_ANOTHER;
        drop_oldest(shard);
    }
    index = shard->free;
    shard->free = shard->link[index].chain;
    return index;
}

/* Under the lock; nothing of this ID is there. length 0: as withdrawn. */
static enum session_put_result put(struct shard *shard, uint32_t hash, const uint8_t *id, size_t id_length,
                                   const uint8_t *bytes, size_t length, uint64_t now_s, uint64_t expires_s) {
    enum session_put_result result;
    uint32_t index = take_slot(shard, now_s, &result), *bucket = bucket_of(shard, hash);
    struct slot *slot = slot_at(shard, index);

    slot->id_length = (uint8_t)id_length;
    memcpy(slot->id, id, id_length);
    slot->length = (uint16_t)length;
    if (length)
        memcpy(slot->bytes, bytes, length);
    slot->expires_s = expires_s;
    shard->link[index].hash = hash;
    shard->link[index].chain = *bucket;
    *bucket = index;
    link_newest(shard, index);
    shard->count++;
    return result;
}

static bool fits(const struct session_store *store, size_t id_length, size_t length) {
    return length <= store->session_bytes && id_length <= SESSION_ID_MAX && length > 0;
}

enum session_put_result session_store_put(struct session_store *store, const uint8_t *id, size_t id_length,
                                          const uint8_t *bytes, size_t length, uint64_t now_s, uint64_t expires_s) {
    enum session_put_result result;
    struct shard *shard;
    uint32_t hash, *at;

    if (!fits(store, id_length, length))
        return SESSION_TOO_LARGE;
    hash = hash_id(id, id_length);
    shard = lock_shard(store, hash);
    at = find(shard, hash, id, id_length);
    if (*at != NONE)
        drop(shard, at);
    result = put(shard, hash, id, id_length, bytes, length, now_s, expires_s);
    pthread_mutex_unlock(&shard->lock);
    return result;
}

/* A free slot, one that was never used, or one whose session is over. */
static bool has_spare_room(const struct shard *shard, uint64_t now_s) {
    return shard->free != NONE || shard->touched < shard->slots || slot_at(shard, shard->oldest)->expires_s <= now_s;
}

enum session_put_result session_store_add(struct session_store *store, const uint8_t *id, size_t id_length,
                                          const uint8_t *bytes, size_t length, uint64_t now_s, uint64_t expires_s,
                                          bool spare) {
    enum session_put_result result;
    struct shard *shard;
    uint32_t hash, *at;

    if (!fits(store, id_length, length))
        return SESSION_TOO_LARGE;
    hash = hash_id(id, id_length);
    shard = lock_shard(store, hash);
    at = find(shard, hash, id, id_length);
    if (*at != NONE)
        result = slot_at(shard, *at)->length ? SESSION_THERE_ALREADY : SESSION_WITHDRAWN;
    else if (spare && !has_spare_room(shard, now_s))
        result = SESSION_NO_ROOM;
    else
        result = put(shard, hash, id, id_length, bytes, length, now_s, expires_s);
    pthread_mutex_unlock(&shard->lock);
    return result;
}

size_t session_store_get(struct session_store *store, const uint8_t *id, size_t id_length, uint8_t *bytes,
                         uint64_t now_s, bool take, bool *expired, uint64_t *expires_s) {
    uint32_t hash = hash_id(id, id_length), *at;
    struct shard *shard = lock_shard(store, hash);
    size_t length = 0;

    *expired = false;
    at = find(shard, hash, id, id_length);
    if (*at != NONE && slot_at(shard, *at)->length) {
        struct slot *slot = slot_at(shard, *at);
        *expired = slot->expires_s <= now_s;
        *expires_s = slot->expires_s;
        if (!*expired) {
            length = slot->length;
            memcpy(bytes, slot->bytes, length);
        }
        if (take || *expired) {
            drop(shard, at);
        } else {
            unlink_age(shard, *at);
            link_newest(shard, *at);
        }
    }
    pthread_mutex_unlock(&shard->lock);
    return length;
}

static bool is_good(const struct slot *slot, uint64_t now_s) {
    return slot->length && slot->expires_s > now_s;
}

enum session_presence session_store_look(struct session_store *store, const uint8_t *id, size_t id_length,
                                         uint64_t now_s) {
    uint32_t hash = hash_id(id, id_length), *at;
    struct shard *shard = lock_shard(store, hash);
    enum session_presence presence = SESSION_NOT_THERE;

    at = find(shard, hash, id, id_length);
    if (*at != NONE)
        presence = is_good(slot_at(shard, *at), now_s) ? SESSION_GOOD : SESSION_DEAD;
    pthread_mutex_unlock(&shard->lock);
    return presence;
}

bool session_store_remove(struct session_store *store, const uint8_t *id, size_t id_length) {
    uint32_t hash = hash_id(id, id_length), *at;
    struct shard *shard = lock_shard(store, hash);
    bool found;

    at = find(shard, hash, id, id_length);
    found = *at != NONE && slot_at(shard, *at)->length;
    if (found)
        drop(shard, at);
    pthread_mutex_unlock(&shard->lock);
    return found;
}

enum session_put_result session_store_withdraw(struct session_store *store, const uint8_t *id, size_t id_length,
                                               uint64_t now_s, uint64_t expires_s) {
    uint32_t hash = hash_id(id, id_length), *at;
    enum session_put_result result;
    struct shard *shard;
    bool found = false;

    if (id_length > SESSION_ID_MAX)
        return SESSION_TOO_LARGE;
    shard = lock_shard(store, hash);
    at = find(shard, hash, id, id_length);
    if (*at != NONE) {
        found = slot_at(shard, *at)->length > 0;
        drop(shard, at);
    }
    result = put(shard, hash, id, id_length, NULL, 0, now_s, expires_s);
    pthread_mutex_unlock(&shard->lock);
    return found ? SESSION_THERE_ALREADY : result;
}

/* A slot that is not in use has no length: drop() sees to that. */
static bool copy_slot(struct shard *shard, uint32_t index, uint64_t now_s, struct stored_session *session) {
    const struct slot *slot = slot_at(shard, index);

    if (index > shard->touched || !is_good(slot, now_s))
        return false;
    session->expires_s = slot->expires_s;
    session->id_length = slot->id_length;
    memcpy(session->id, slot->id, slot->id_length);
    session->length = slot->length;
    memcpy(session->bytes, slot->bytes, slot->length);
    return true;
}

bool session_store_walk(struct session_store *store, uint64_t *at, uint32_t places, uint64_t now_s,
                        struct stored_session *session) {
    const uint64_t slots = store->shard[0].slots, end = slots * store->shards;
    bool found = false;

    while (!found && places-- && *at < end) {
        struct shard *shard = lock_shard_at(store, (uint32_t)(*at / slots));
        uint32_t index = (uint32_t)(*at % slots) + 1;

        /* The rest of a shard that was never used is passed over at once. */
        if (index > shard->touched)
            *at = (*at / slots + 1) * slots;
        else
            ++*at;
        found = copy_slot(shard, index, now_s, session);
        pthread_mutex_unlock(&shard->lock);
    }
    if (*at >= end)
        *at = 0;
    return found;
}

uint64_t session_store_count(struct session_store *store) {
    uint64_t count = 0;

    for (uint32_t i = 0; i < store->shards; i++)
        count += __atomic_load_n(&store->shard[i].count, __ATOMIC_RELAXED);
    return count;
}
