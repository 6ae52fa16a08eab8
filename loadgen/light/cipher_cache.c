/* SPDX-License-Identifier: MIT */
#include "cipher_cache.h"

#include <openssl/err.h>
#include <stdlib.h>

/* Enough for 500 busy connections; beyond that, a key set-up a record. Some 2 KiB each, made as they are needed. */
#define SLOTS 1024
#define NONE  UINT32_MAX

static struct keyed_cipher *slots;
static uint32_t used;              /* slots that have ever been in use */
static uint32_t first_free = NONE; /* the last one that was released: it is still in the CPU's cache */
static uint32_t next_victim;
static uint64_t last_key_id;

static uint32_t take_slot(void) {
    uint32_t index = first_free;

    if (index != NONE) {
        first_free = slots[index].next_free;
        return index;
    }
    if (used < SLOTS)
        return used++;
    index = next_victim;
    next_victim = (next_victim + 1) % SLOTS;
    return index;
}

static bool set_key(struct keyed_cipher *slot, const struct direction *direction, bool encrypt) {
    const struct suite *suite = direction->suite;
    const EVP_CIPHER *cipher = suite_cipher(suite);

    if (!slot->context && !(slot->context = EVP_CIPHER_CTX_new()))
        return false;
    /* To name the cipher again would make libcrypto free and allocate what it has. */
    if (EVP_CipherInit_ex(slot->context, slot->cipher == cipher ? NULL : cipher, NULL, direction->key, NULL, encrypt) !=
        1)
        return false;
    slot->cipher = cipher;
    if (suite->cipher_kind == CIPHER_CBC) {
        EVP_CIPHER_CTX_set_padding(slot->context, 0);
        hmac_set_key(&slot->mac, suite->mac, direction->secret, hash_bytes(suite->mac));
    }
    return true;
}

struct keyed_cipher *cipher_cache_get(struct direction *direction, bool encrypt) {
    if (!slots && !(slots = calloc(SLOTS, sizeof *slots)))
        return NULL;
    if (direction->key_id && slots[direction->slot].key_id == direction->key_id)
        return &slots[direction->slot];
    direction->slot = take_slot();
    struct keyed_cipher *slot = &slots[direction->slot];
    slot->key_id = direction->key_id = ++last_key_id;
    if (set_key(slot, direction, encrypt))
        return slot;
    ERR_clear_error();
    slot->cipher = NULL;
    cipher_cache_release(direction);
    return NULL;
}

void cipher_cache_release(struct direction *direction) {
    if (direction->key_id && slots && slots[direction->slot].key_id == direction->key_id) {
        slots[direction->slot].key_id = 0;
        slots[direction->slot].next_free = first_free;
        first_free = direction->slot;
    }
    direction->key_id = 0;
}

void cipher_cache_clear(void) {
    for (uint32_t i = 0; i < used; i++)
        EVP_CIPHER_CTX_free(slots[i].context);
    free(slots);
    slots = NULL;
    used = next_victim = 0;
    first_free = NONE;
}
