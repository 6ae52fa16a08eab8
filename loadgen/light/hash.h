/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_HASH_H
#define TLSDYNO_LIGHT_HASH_H
/*
 * Hashes and HMAC as plain values: to save a state, or to go on from it twice, is an assignment. Nothing is allocated
 * and nothing fails.
 */
#include <openssl/md5.h>
#include <openssl/sha.h>
#include <stddef.h>
#include <stdint.h>

enum hash_kind {
    HASH_MD5,
    HASH_SHA1,
    HASH_SHA256,
    HASH_SHA384,
    HASH_MD5_SHA1, /* both, one result after the other: the transcript before TLS 1.2 */
};

#define HASH_BYTES_MAX 48

struct hash {
    union {
        MD5_CTX md5;
        SHA_CTX sha1;
        SHA256_CTX sha256;
        SHA512_CTX sha512;
        struct {
            MD5_CTX md5;
            SHA_CTX sha1;
        } both;
    } state;
    enum hash_kind kind;
};

size_t hash_bytes(enum hash_kind kind);

void hash_begin(struct hash *hash, enum hash_kind kind);
void hash_add(struct hash *hash, const void *bytes, size_t length);

/* Writes hash_bytes() to result; the state is of no more use. */
void hash_end(struct hash *hash, uint8_t *result);

/* The hash so far; hash goes on. */
void hash_peek(const struct hash *hash, uint8_t *result);

/* A key, as the two states that RFC 2104 makes of it: what it costs is paid once. */
struct hmac {
    struct hash inner, outer;
};

void hmac_set_key(struct hmac *hmac, enum hash_kind kind, const void *key, size_t length);

/* One after the other: begin (state is the caller's), hash_add to the state, end. */
void hmac_begin(const struct hmac *hmac, struct hash *state);
void hmac_end(const struct hmac *hmac, struct hash *state, uint8_t *result);

void hmac_of(const struct hmac *hmac, const void *bytes, size_t length, uint8_t *result);

#endif
