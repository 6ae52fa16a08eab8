/* SPDX-License-Identifier: MIT */
#include "key_schedule.h"

#include <string.h>

#define LABEL_MAX   32
#define CONTEXT_MAX 64

void expand_label(const struct hmac *secret, const char *label, const uint8_t *context, size_t context_length,
                  uint8_t *result, size_t length) {
    static const char prefix[6] = {'t', 'l', 's', '1', '3', ' '};
    uint8_t info[4 + sizeof prefix + LABEL_MAX + CONTEXT_MAX + 1], whole[HASH_BYTES_MAX];
    size_t label_length = strlen(label), used = 0;

    info[used++] = (uint8_t)(length >> 8);
    info[used++] = (uint8_t)length;
    info[used++] = (uint8_t)(sizeof prefix + label_length);
    memcpy(info + used, prefix, sizeof prefix);
    used += sizeof prefix;
    memcpy(info + used, label, label_length);
    used += label_length;
    info[used++] = (uint8_t)context_length;
    if (context_length > 0)
        memcpy(info + used, context, context_length);
    used += context_length;
    info[used++] = 1; /* the only block of HKDF-Expand */
    hmac_of(secret, info, used, whole);
    memcpy(result, whole, length);
}

static const uint8_t zeros[HASH_BYTES_MAX];

/* The secret under which the next input of the schedule is extracted. */
static void derived(const struct hmac *secret, struct hmac *next) {
    enum hash_kind kind = secret->inner.kind;
    uint8_t nothing[HASH_BYTES_MAX], salt[HASH_BYTES_MAX];
    struct hash empty;

    hash_begin(&empty, kind);
    hash_end(&empty, nothing);
    expand_label(secret, "derived", nothing, hash_bytes(kind), salt, hash_bytes(kind));
    hmac_set_key(next, kind, salt, hash_bytes(kind));
}

static void extract(struct key_schedule *schedule, const struct hmac *salt, const uint8_t *input, size_t length) {
    uint8_t secret[HASH_BYTES_MAX];

    hmac_of(salt, input, length, secret);
    hmac_set_key(&schedule->secret, salt->inner.kind, secret, hash_bytes(salt->inner.kind));
}

/* What is the same in every handshake is computed once a process: HKDF-Extract's empty salt, and the whole step from
 * the early secret on where there is no PSK. */
static struct constants {
    bool made;
    struct hmac empty_salt, no_psk_derived;
} all_constants[2];

static const struct constants *constants_of(enum hash_kind hash) {
    struct constants *constants = &all_constants[hash == HASH_SHA384];

    if (!constants->made) {
        struct key_schedule early;
        hmac_set_key(&constants->empty_salt, hash, zeros, hash_bytes(hash));
        extract(&early, &constants->empty_salt, zeros, hash_bytes(hash));
        derived(&early.secret, &constants->no_psk_derived);
        constants->made = true;
    }
    return constants;
}

void key_schedule_begin(struct key_schedule *schedule, enum hash_kind hash, const uint8_t *psk, size_t length) {
    extract(schedule, &constants_of(hash)->empty_salt, psk, length);
}

void key_schedule_handshake(struct key_schedule *schedule, enum hash_kind hash, const struct key_schedule *early,
                            const uint8_t *shared, size_t length) {
    struct hmac salt;

    if (!early) {
        extract(schedule, &constants_of(hash)->no_psk_derived, shared, length);
        return;
    }
    derived(&early->secret, &salt);
    extract(schedule, &salt, shared, length);
}

void key_schedule_main(struct key_schedule *schedule) {
    struct hmac salt;

    derived(&schedule->secret, &salt);
    extract(schedule, &salt, zeros, hash_bytes(salt.inner.kind));
}

void key_schedule_derive(const struct key_schedule *schedule, const char *label, const uint8_t *transcript,
                         uint8_t *result) {
    size_t length = hash_bytes(schedule->secret.inner.kind);

    expand_label(&schedule->secret, label, transcript, length, result, length);
}

void finished_of(const struct hmac *secret, const uint8_t *transcript, uint8_t *result) {
    enum hash_kind kind = secret->inner.kind;
    uint8_t key[HASH_BYTES_MAX];
    struct hmac hmac;

    expand_label(secret, "finished", NULL, 0, key, hash_bytes(kind));
    hmac_set_key(&hmac, kind, key, hash_bytes(kind));
    hmac_of(&hmac, transcript, hash_bytes(kind), result);
}

void binder_of(const struct key_schedule *early, const uint8_t *transcript, uint8_t *result) {
    enum hash_kind kind = early->secret.inner.kind;
    uint8_t nothing[HASH_BYTES_MAX], binder[HASH_BYTES_MAX];
    struct hash empty;
    struct hmac hmac;

    hash_begin(&empty, kind);
    hash_end(&empty, nothing);
    key_schedule_derive(early, "res binder", nothing, binder);
    hmac_set_key(&hmac, kind, binder, hash_bytes(kind));
    finished_of(&hmac, transcript, result);
}

/* ---- Before TLS 1.3 ---- */

void prf_set_secret(struct prf *prf, enum hash_kind hash, const uint8_t *secret, size_t length) {
    prf->split = hash == HASH_MD5_SHA1;
    if (!prf->split) {
        hmac_set_key(&prf->hmac, hash, secret, length);
        return;
    }
    /* The halves share a byte where the length is odd. */
    size_t half = (length + 1) / 2;
    hmac_set_key(&prf->hmac, HASH_MD5, secret, half);
    hmac_set_key(&prf->second, HASH_SHA1, secret + length - half, half);
}

struct seed {
    const char *label;
    const uint8_t *first, *second;
    size_t first_length, second_length;
};

static void add_seed(struct hash *state, const struct seed *seed) {
    hash_add(state, seed->label, strlen(seed->label));
    hash_add(state, seed->first, seed->first_length);
    hash_add(state, seed->second, seed->second_length);
}

/* P_hash, XORed into result. */
static void p_hash(const struct hmac *secret, const struct seed *seed, uint8_t *result, size_t length) {
    size_t size = hash_bytes(secret->inner.kind);
    uint8_t a[HASH_BYTES_MAX], block[HASH_BYTES_MAX];
    struct hash state;

    hmac_begin(secret, &state);
    add_seed(&state, seed);
    hmac_end(secret, &state, a);
    for (size_t done = 0; done < length; done += size) {
        if (done > 0)
            hmac_of(secret, a, size, a);
        hmac_begin(secret, &state);
        hash_add(&state, a, size);
        add_seed(&state, seed);
        hmac_end(secret, &state, block);
        for (size_t i = 0; i < size && done + i < length; i++)
            result[done + i] ^= block[i];
    }
}

void prf_make(const struct prf *prf, const char *label, const uint8_t *first, size_t first_length,
              const uint8_t *second, size_t second_length, uint8_t *result, size_t length) {
    const struct seed seed = {label, first, second, first_length, second_length};

    memset(result, 0, length);
    p_hash(&prf->hmac, &seed, result, length);
    if (prf->split)
        p_hash(&prf->second, &seed, result, length);
}
