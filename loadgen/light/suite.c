/* SPDX-License-Identifier: MIT */
#include "suite.h"

#include <openssl/ssl.h>
#include <string.h>

#define GCM(id, name, exchange, bits, prf, version)                                                                    \
    { id, name, KEY_EXCHANGE_##exchange, CIPHER_GCM, "AES-" #bits "-GCM", bits / 8, HASH_SHA1, prf, version }
#define CHACHA(id, name, exchange, version)                                                                            \
    {                                                                                                                  \
        id, name, KEY_EXCHANGE_##exchange, CIPHER_CHACHA20_POLY1305, "ChaCha20-Poly1305", 32, HASH_SHA1, HASH_SHA256,  \
            version                                                                                                    \
    }
#define CBC(id, name, exchange, bits, mac, prf, version)                                                               \
    { id, name, KEY_EXCHANGE_##exchange, CIPHER_CBC, "AES-" #bits "-CBC", bits / 8, mac, prf, version }

/* In the order in which OpenSSL prefers them. */
static const struct suite suites[] = {
    GCM(0x1302, "TLS_AES_256_GCM_SHA384", TLS13, 256, HASH_SHA384, TLS1_3_VERSION),
    CHACHA(0x1303, "TLS_CHACHA20_POLY1305_SHA256", TLS13, TLS1_3_VERSION),
    GCM(0x1301, "TLS_AES_128_GCM_SHA256", TLS13, 128, HASH_SHA256, TLS1_3_VERSION),
    GCM(0xc02c, "ECDHE-ECDSA-AES256-GCM-SHA384", ECDHE_ECDSA, 256, HASH_SHA384, TLS1_2_VERSION),
    GCM(0xc030, "ECDHE-RSA-AES256-GCM-SHA384", ECDHE_RSA, 256, HASH_SHA384, TLS1_2_VERSION),
    CHACHA(0xcca9, "ECDHE-ECDSA-CHACHA20-POLY1305", ECDHE_ECDSA, TLS1_2_VERSION),
    CHACHA(0xcca8, "ECDHE-RSA-CHACHA20-POLY1305", ECDHE_RSA, TLS1_2_VERSION),
    GCM(0xc02b, "ECDHE-ECDSA-AES128-GCM-SHA256", ECDHE_ECDSA, 128, HASH_SHA256, TLS1_2_VERSION),
    GCM(0xc02f, "ECDHE-RSA-AES128-GCM-SHA256", ECDHE_RSA, 128, HASH_SHA256, TLS1_2_VERSION),
    CBC(0xc024, "ECDHE-ECDSA-AES256-SHA384", ECDHE_ECDSA, 256, HASH_SHA384, HASH_SHA384, TLS1_2_VERSION),
    CBC(0xc028, "ECDHE-RSA-AES256-SHA384", ECDHE_RSA, 256, HASH_SHA384, HASH_SHA384, TLS1_2_VERSION),
    CBC(0xc023, "ECDHE-ECDSA-AES128-SHA256", ECDHE_ECDSA, 128, HASH_SHA256, HASH_SHA256, TLS1_2_VERSION),
    CBC(0xc027, "ECDHE-RSA-AES128-SHA256", ECDHE_RSA, 128, HASH_SHA256, HASH_SHA256, TLS1_2_VERSION),
    CBC(0xc00a, "ECDHE-ECDSA-AES256-SHA", ECDHE_ECDSA, 256, HASH_SHA1, HASH_SHA256, TLS1_VERSION),
    CBC(0xc014, "ECDHE-RSA-AES256-SHA", ECDHE_RSA, 256, HASH_SHA1, HASH_SHA256, TLS1_VERSION),
    CBC(0xc009, "ECDHE-ECDSA-AES128-SHA", ECDHE_ECDSA, 128, HASH_SHA1, HASH_SHA256, TLS1_VERSION),
    CBC(0xc013, "ECDHE-RSA-AES128-SHA", ECDHE_RSA, 128, HASH_SHA1, HASH_SHA256, TLS1_VERSION),
    GCM(0x009d, "AES256-GCM-SHA384", RSA, 256, HASH_SHA384, TLS1_2_VERSION),
    GCM(0x009c, "AES128-GCM-SHA256", RSA, 128, HASH_SHA256, TLS1_2_VERSION),
    CBC(0x003d, "AES256-SHA256", RSA, 256, HASH_SHA256, HASH_SHA256, TLS1_2_VERSION),
    CBC(0x003c, "AES128-SHA256", RSA, 128, HASH_SHA256, HASH_SHA256, TLS1_2_VERSION),
    CBC(0x0035, "AES256-SHA", RSA, 256, HASH_SHA1, HASH_SHA256, TLS1_VERSION),
    CBC(0x002f, "AES128-SHA", RSA, 128, HASH_SHA1, HASH_SHA256, TLS1_VERSION),
};

#define SUITES ((int)(sizeof suites / sizeof *suites))

_Static_assert(sizeof suites / sizeof *suites <= SUITES_MAX, "a list must hold them all");

const struct suite *suite_by_id(uint16_t id) {
    for (int i = 0; i < SUITES; i++)
        if (suites[i].id == id)
            return &suites[i];
    return NULL;
}

const struct suite *suite_by_name(const char *name, size_t length) {
    for (int i = 0; i < SUITES; i++)
        if (strlen(suites[i].name) == length && memcmp(suites[i].name, name, length) == 0)
            return &suites[i];
    return NULL;
}

bool suite_speaks(const struct suite *suite, int version) {
    return (suite->key_exchange == KEY_EXCHANGE_TLS13) == (version >= TLS1_3_VERSION) && version >= suite->min_version;
}

int suites_of_version(int version, const struct suite *list[SUITES_MAX]) {
    int count = 0;

    for (int i = 0; i < SUITES; i++)
        if (suite_speaks(&suites[i], version))
            list[count++] = &suites[i];
    return count;
}

const EVP_CIPHER *suite_cipher(const struct suite *suite) {
    static EVP_CIPHER *fetched[SUITES_MAX];
    ptrdiff_t index = suite - suites;

    if (!fetched[index])
        fetched[index] = EVP_CIPHER_fetch(NULL, suite->cipher_name, NULL);
    return fetched[index];
}

enum hash_kind suite_hash(const struct suite *suite, int version) {
    return version < TLS1_2_VERSION ? HASH_MD5_SHA1 : suite->hash;
}
