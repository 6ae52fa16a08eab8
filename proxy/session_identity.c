/* SPDX-License-Identifier: MIT */
#include "session_identity.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(SHA256_DIGEST_LENGTH == SSL_MAX_SID_CTX_LENGTH, "an identity is a digest");

typedef uint8_t fingerprint[SHA256_DIGEST_LENGTH];

struct session_identity session_identity(void) {
    return (struct session_identity){"tlsdyno"};
}

/* The digest of all before, and of what is new. */
bool session_identity_add(struct session_identity *identity, const void *bytes, size_t length) {
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool done = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(digest, identity->bytes, sizeof identity->bytes) == 1 &&
                EVP_DigestUpdate(digest, bytes, length) == 1 && EVP_DigestFinal_ex(digest, identity->bytes, NULL) == 1;

    EVP_MD_CTX_free(digest);
    return done;
}

static int compare(const void *one, const void *other) {
    return memcmp(one, other, sizeof(fingerprint));
}

bool session_identity_add_certificates(struct session_identity *identity, const STACK_OF(X509) * certificates) {
    int count = sk_X509_num(certificates);
    fingerprint *all = calloc((size_t)count + 1, sizeof *all);
    bool done = all != NULL;

    for (int i = 0; done && i < count; i++)
        done = X509_digest(sk_X509_value(certificates, i), EVP_sha256(), all[i], NULL) == 1;
    if (done) {
        qsort(all, (size_t)count, sizeof *all, compare);
        done = session_identity_add(identity, all, (size_t)count * sizeof *all);
    }
    free(all);
    return done;
}
