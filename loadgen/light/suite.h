/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_SUITE_H
#define TLSDYNO_LIGHT_SUITE_H
/* The cipher suites that the light engine speaks. */
#include "hash.h"

#include <openssl/evp.h>
#include <stdbool.h>

enum key_exchange {
    KEY_EXCHANGE_TLS13, /* not the suite's business */
    KEY_EXCHANGE_ECDHE_RSA,
    KEY_EXCHANGE_ECDHE_ECDSA,
    KEY_EXCHANGE_RSA,
};

enum cipher_kind { CIPHER_GCM, CIPHER_CHACHA20_POLY1305, CIPHER_CBC };

struct suite {
    uint16_t id;
    const char *name; /* OpenSSL's */
    enum key_exchange key_exchange;
    enum cipher_kind cipher_kind;
    const char *cipher_name; /* libcrypto's */
    size_t key_bytes;
    enum hash_kind mac;  /* CIPHER_CBC only */
    enum hash_kind hash; /* of the key schedule; of TLS 1.2's PRF */
    int min_version;     /* TLS 1.2 for what needs it, else TLS 1.0 */
};

#define SUITES_MAX 32

/* NULL: none of ours. */
const struct suite *suite_by_id(uint16_t id);
const struct suite *suite_by_name(const char *name, size_t length);

/* The suites that a version can agree on, in the order of preference. Returns how many were written to list. */
int suites_of_version(int version, const struct suite *list[SUITES_MAX]);

bool suite_speaks(const struct suite *suite, int version);

/* libcrypto's cipher, fetched once a process tree; NULL if it has none. */
const EVP_CIPHER *suite_cipher(const struct suite *suite);

/* The hash of Finished and of the PRF under that version. */
enum hash_kind suite_hash(const struct suite *suite, int version);

#endif
