/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_GROUP_H
#define TLSDYNO_LIGHT_GROUP_H
/*
 * The key exchange, from the side that wants to have no work with it.
 *
 * KEY_SHARE_BASE sends the group's base point as the client's public share: the private scalar is 1 (for X25519 there
 * is no such scalar, and none is needed). What the server computes, its own scalar times our point, is then its own
 * public share, which it sends to us. So there is nothing to compute here and nothing is secret; the server multiplies
 * a point that it does not know beforehand by a scalar of its own, as it does for every client.
 */
#include "../engine.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>

#define GROUP_PUBLIC_MAX 133
#define GROUP_SECRET_MAX 66

struct group {
    uint16_t id;
    const char *name;         /* the field's */
    const char *openssl_name; /* libcrypto's */
    size_t public_bytes;      /* of a share */
    size_t secret_bytes;      /* of the shared secret: of one coordinate */
    bool is_point;            /* 4, x, y; else the x alone */
};

/* NULL: none of ours. Names are the field's or OpenSSL's. */
const struct group *group_by_id(uint16_t id);
const struct group *group_by_name(const char *name, size_t length);

struct key_share {
    const struct group *group;
    EVP_PKEY *key; /* NULL: the base point */
    uint8_t bytes[GROUP_PUBLIC_MAX];
};

/* False: libcrypto does not have the group, or no memory. */
bool key_share_make(struct key_share *share, const struct group *group, bool base);
void key_share_free(struct key_share *share);

/* What both sides know then; peer is group->public_bytes long. False: peer is no share of the group. */
bool key_share_agree(const struct key_share *share, const uint8_t *peer, uint8_t *secret);

#endif
