/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_CIPHER_CACHE_H
#define TLSDYNO_LIGHT_CIPHER_CACHE_H
/* libcrypto's contexts of the directions that were used last. One cache a process. */
#include "record.h"

struct keyed_cipher {
    EVP_CIPHER_CTX *context;
    const EVP_CIPHER *cipher; /* that the context was last set to */
    struct hmac mac;          /* CIPHER_CBC only */
    uint64_t key_id;          /* 0: free */
    uint32_t next_free;
};

/*
 * The context with the direction's key. The IV of the record is still to be set. NULL: no memory.
 */
struct keyed_cipher *cipher_cache_get(struct direction *direction, bool encrypt);

void cipher_cache_release(struct direction *direction);

/* Frees all of them: for a process that is to show that it leaks nothing. */
void cipher_cache_clear(void);

#endif
