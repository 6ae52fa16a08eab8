/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_CERTIFICATE_H
#define TLSDYNO_LIGHT_CERTIFICATE_H
/*
 * Certificates are measured, never verified. What costs something - decoding one, encrypting to its key - is done once
 * for each that is met and remembered for as long as the same bytes come.
 */
#include "bytes.h"

#include <openssl/evp.h>

#define PREMASTER_BYTES 48

struct certificate_seen {
    uint8_t *leaf; /* DER; NULL: this entry is free */
    size_t leaf_bytes;
    char key_name[48];        /* "rsa:2048" */
    EVP_PKEY *key;            /* NULL: it cannot be decoded */
    uint8_t *premaster_block; /* the premaster secret encrypted to the key, ready for ClientKeyExchange */
    size_t premaster_block_bytes;
};

/* Those of a server farm with a few keys. More push each other out. */
#define CERTIFICATES_SEEN 16

struct certificates {
    struct certificate_seen seen[CERTIFICATES_SEEN];
    unsigned next;                      /* to be replaced */
    uint8_t premaster[PREMASTER_BYTES]; /* of RSA key exchange: one for all connections. Byte 0: 0 until it is made */
};

/*
 * Reads a list of certificates: each a vector of 3 bytes' length, in TLS 1.3 followed by its extensions (vector of 2).
 * NULL: malformed, empty, or no memory. The entry is valid until CERTIFICATES_SEEN others were met; *chain_bytes is the
 * size of all certificates.
 */
struct certificate_seen *certificates_look(struct certificates *certificates, struct reader list, bool has_extensions,
                                           uint32_t *chain_bytes);

/*
 * Sees to it that the entry has its premaster_block. client_version is the version of the ClientHello, which is part of
 * the secret (RFC 5246, 7.4.7.1), and must always be the same. False: that is no RSA key, or no memory.
 */
bool certificates_encrypt_premaster(struct certificates *certificates, struct certificate_seen *seen,
                                    int client_version);

void certificates_free(struct certificates *certificates);

#endif
