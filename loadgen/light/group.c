/* SPDX-License-Identifier: MIT */
#include "group.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <string.h>
#include <strings.h>

static const struct group groups[] = {
    {0x001d, "X25519", "X25519", 32, 32, false},
    {0x0017, "P-256", "prime256v1", 65, 32, true},
    {0x0018, "P-384", "secp384r1", 97, 48, true},
    {0x0019, "P-521", "secp521r1", 133, 66, true},
};

#define GROUPS (sizeof groups / sizeof *groups)

const struct group *group_by_id(uint16_t id) {
    for (size_t i = 0; i < GROUPS; i++)
        if (groups[i].id == id)
            return &groups[i];
    return NULL;
}

static bool is_name(const char *known, const char *name, size_t length) {
    return strlen(known) == length && strncasecmp(known, name, length) == 0;
}

const struct group *group_by_name(const char *name, size_t length) {
    for (size_t i = 0; i < GROUPS; i++)
        if (is_name(groups[i].name, name, length) || is_name(groups[i].openssl_name, name, length))
            return &groups[i];
    return is_name("secp256r1", name, length) ? group_by_id(0x0017) : NULL;
}

static bool write_base_point(const struct group *group, uint8_t *bytes) {
    if (!group->is_point) {
        memset(bytes, 0, group->public_bytes);
        bytes[0] = 9; /* RFC 7748, 4.1 */
        return true;
    }
    EC_GROUP *curve = EC_GROUP_new_by_curve_name(OBJ_txt2nid(group->openssl_name));
    bool good = curve && EC_POINT_point2oct(curve, EC_GROUP_get0_generator(curve), POINT_CONVERSION_UNCOMPRESSED, bytes,
                                            group->public_bytes, NULL) == group->public_bytes;
    EC_GROUP_free(curve);
    return good;
}

static bool make_key(struct key_share *share) {
    const struct group *group = share->group;
    size_t length = 0;

    share->key = group->is_point ? EVP_EC_gen(group->openssl_name) : EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    return share->key &&
           EVP_PKEY_get_octet_string_param(share->key, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, share->bytes,
                                           sizeof share->bytes, &length) == 1 &&
           length == group->public_bytes;
}

bool key_share_make(struct key_share *share, const struct group *group, bool base) {
    *share = (struct key_share){.group = group};
    bool good = base ? write_base_point(group, share->bytes) : make_key(share);

    ERR_clear_error();
    if (!good)
        key_share_free(share);
    return good;
}

void key_share_free(struct key_share *share) {
    EVP_PKEY_free(share->key);
    share->key = NULL;
}

static bool agree_with_key(EVP_PKEY *key, const uint8_t *peer, size_t length, uint8_t *secret, size_t secret_bytes) {
    EVP_PKEY *other = EVP_PKEY_new();
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    size_t got = secret_bytes;
    bool good = other && context && EVP_PKEY_copy_parameters(other, key) == 1 &&
                EVP_PKEY_set1_encoded_public_key(other, peer, length) == 1 && EVP_PKEY_derive_init(context) == 1 &&
                EVP_PKEY_derive_set_peer(context, other) == 1 && EVP_PKEY_derive(context, secret, &got) == 1 &&
                got == secret_bytes;

    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(other);
    ERR_clear_error();
    return good;
}

bool key_share_agree(const struct key_share *share, const uint8_t *peer, uint8_t *secret) {
    const struct group *group = share->group;

    if (group->is_point && peer[0] != POINT_CONVERSION_UNCOMPRESSED)
        return false;
    if (share->key)
        return agree_with_key(share->key, peer, group->public_bytes, secret, group->secret_bytes);
    memcpy(secret, peer + group->is_point, group->secret_bytes);
    return true;
}
