/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_KEY_SCHEDULE_H
#define TLSDYNO_LIGHT_KEY_SCHEDULE_H
/* From a shared secret to keys: TLS 1.3 (RFC 8446, 7.1) and, before it, the PRF (RFC 5246, 5; RFC 2246, 5). */
#include "hash.h"

#include <stdbool.h>

/* HKDF-Expand-Label. length is at most that of the hash; context_length at most 64. */
void expand_label(const struct hmac *secret, const char *label, const uint8_t *context, size_t context_length,
                  uint8_t *result, size_t length);

/* The early, then the handshake, then the main secret. */
struct key_schedule {
    struct hmac secret;
};

/* The early secret of a PSK. */
void key_schedule_begin(struct key_schedule *schedule, enum hash_kind hash, const uint8_t *psk, size_t length);

/* The handshake secret, of the schedule of a PSK (or NULL: there is none) and what the key exchange gave. */
void key_schedule_handshake(struct key_schedule *schedule, enum hash_kind hash, const struct key_schedule *early,
                            const uint8_t *shared, size_t length);

/* The main secret of the handshake secret. */
void key_schedule_main(struct key_schedule *schedule);

/* Derive-Secret; the transcript is given as its hash. */
void key_schedule_derive(const struct key_schedule *schedule, const char *label, const uint8_t *transcript,
                         uint8_t *result);

/* verify_data of Finished, and a PSK binder (4.4.4, 4.2.11.2), of the secret they are made with. */
void finished_of(const struct hmac *secret, const uint8_t *transcript, uint8_t *result);

/* The binder of the PSK whose early secret this is. */
void binder_of(const struct key_schedule *early, const uint8_t *transcript, uint8_t *result);

/* A secret of the PRF: of TLS 1.2 with the suite's hash, of older versions (HASH_MD5_SHA1) with both of theirs. */
struct prf {
    struct hmac hmac, second; /* second: HASH_MD5_SHA1 only */
    bool split;
};

void prf_set_secret(struct prf *prf, enum hash_kind hash, const uint8_t *secret, size_t length);

/* seed is the label and what follows it, two pieces that may be empty. */
void prf_make(const struct prf *prf, const char *label, const uint8_t *first, size_t first_length,
              const uint8_t *second, size_t second_length, uint8_t *result, size_t length);

#endif
