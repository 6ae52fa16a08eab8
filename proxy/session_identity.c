/* SPDX-License-Identifier: MIT */
#include "session_identity.h"

struct session_identity session_identity(void) {
    return (struct session_identity){"tlsdyno"};
}

bool session_identity_add(struct session_identity *identity, const void *bytes, size_t length) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_length;

    if (EVP_Digest(bytes, length, digest, &digest_length, EVP_sha256(), NULL) != 1)
        return false;
    for (unsigned i = 0; i < digest_length && i < sizeof identity->bytes; i++)
        identity->bytes[i] = (uint8_t)(identity->bytes[i] + digest[i]);
    return true;
}
