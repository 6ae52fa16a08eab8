/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_RECORD_H
#define TLSDYNO_LIGHT_RECORD_H
/*
 * Records (RFC 8446, 5; RFC 5246, 6.2): one direction of a connection, its keys, and what they seal and open.
 *
 * A direction holds its keys as bytes. libcrypto's contexts, in which a key costs some microseconds to set up and a
 * kilobyte or two to keep, are a cache of the process: those directions that were used last have one.
 */
#include "alert.h"
#include "suite.h"

#include <stdbool.h>

enum content_type {
    CONTENT_CHANGE_CIPHER_SPEC = 20,
    CONTENT_ALERT = 21,
    CONTENT_HANDSHAKE = 22,
    CONTENT_APPLICATION_DATA = 23,
};

#define RECORD_HEADER_BYTES 5
#define RECORD_PLAIN_MAX    16384
#define RECORD_SEALED_MAX   (RECORD_PLAIN_MAX + 2048) /* without the header */
#define RECORD_OVERHEAD_MAX 128                       /* what sealing adds, at most, header included */

struct direction {
    const struct suite *suite; /* NULL: in the clear */
    int version;               /* of the protocol; before it is known, that of the record's header */
    uint32_t slot;             /* where its context is, if the cache still has it */
    uint64_t key_id;           /* names the keys in the cache; 0: not there yet */
    uint64_t sequence;         /* records so far under these keys */
    uint8_t key[32];
    uint8_t iv[16];                 /* AEAD: of RFC 8446 5.3, or the salt; CBC of TLS 1.0: of the next record */
    uint8_t secret[HASH_BYTES_MAX]; /* CBC: the MAC's key; TLS 1.3: the traffic secret */
};

/* In the clear, with nothing sent. */
void direction_begin(struct direction *direction, int version);

/* Under the keys of a TLS 1.3 traffic secret; hmac (may be NULL) is set to that secret's. */
void direction_set_traffic_secret(struct direction *direction, const struct suite *suite, const uint8_t *secret,
                                  struct hmac *hmac);

/* The next generation of keys, RFC 8446, 7.2. */
void direction_update(struct direction *direction);

/* Bytes of MAC key, key and IV that TLS 1.2's key block holds for a direction under the suite. */
struct key_block_lengths {
    size_t mac, key, iv;
};
struct key_block_lengths key_block_lengths(const struct suite *suite);

/* Under keys of a key block (RFC 5246, 6.3). */
void direction_set_keys(struct direction *direction, const struct suite *suite, int version, const uint8_t *mac,
                        const uint8_t *key, const uint8_t *iv);

/* Its keys are of no more use. */
void direction_end(struct direction *direction);

/*
 * Writes the record of length (at most RECORD_PLAIN_MAX) bytes to out, which has room for RECORD_OVERHEAD_MAX more, and
 * returns its size; 0 if libcrypto failed (no memory).
 */
size_t record_seal(struct direction *direction, enum content_type type, const uint8_t *bytes, size_t length,
                   uint8_t *out);

struct plaintext {
    uint8_t type; /* in TLS 1.3 the inner one; not checked */
    uint8_t *bytes;
    size_t length;
};

/*
 * Opens the record of this header and length bytes after it, in its place, or into other memory that has room for
 * length bytes (NULL: in its place). NO_ALERT, or what is wrong with it.
 */
enum alert record_open(struct direction *direction, const uint8_t header[RECORD_HEADER_BYTES], uint8_t *body,
                       size_t length, uint8_t *into, struct plaintext *plaintext);

#endif
