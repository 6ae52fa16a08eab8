/* SPDX-License-Identifier: MIT */
#include "certificate.h"

#include "random.h"
#include "tls_credentials.h"

#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>

static void forget(struct certificate_seen *seen) {
    free(seen->leaf);
    free(seen->premaster_block);
    EVP_PKEY_free(seen->key);
    *seen = (struct certificate_seen){0};
}

static bool remember(struct certificate_seen *seen, const uint8_t *leaf, size_t length) {
    const unsigned char *at = leaf;

    forget(seen);
    if (!(seen->leaf = malloc(length)))
        return false;
    memcpy(seen->leaf, leaf, length);
    seen->leaf_bytes = length;
    X509 *x509 = d2i_X509(NULL, &at, (long)length);
    seen->key = x509 ? X509_get_pubkey(x509) : NULL;
    if (seen->key)
        tls_key_name(seen->key, seen->key_name, sizeof seen->key_name);
    else
        snprintf(seen->key_name, sizeof seen->key_name, "unknown");
    X509_free(x509);
    ERR_clear_error();
    return true;
}

static struct certificate_seen *find(struct certificates *certificates, const uint8_t *leaf, size_t length) {
    for (unsigned i = 0; i < CERTIFICATES_SEEN && certificates->seen[i].leaf; i++) {
        struct certificate_seen *seen = &certificates->seen[i];
        if (seen->leaf_bytes == length && memcmp(seen->leaf, leaf, length) == 0)
            return seen;
    }
    struct certificate_seen *seen = &certificates->seen[certificates->next];
    if (!remember(seen, leaf, length))
        return NULL;
    certificates->next = (certificates->next + 1) % CERTIFICATES_SEEN;
    return seen;
}

struct certificate_seen *certificates_look(struct certificates *certificates, struct reader list, bool has_extensions,
                                           uint32_t *chain_bytes) {
    struct reader leaf = reader_vector(&list, 3), other = leaf;

    *chain_bytes = 0;
    if (leaf.failed || leaf.left == 0)
        return NULL;
    for (;;) {
        *chain_bytes += (uint32_t)other.left;
        if (has_extensions)
            reader_vector(&list, 2);
        if (list.failed)
            return NULL;
        if (list.left == 0)
            break;
        other = reader_vector(&list, 3);
        if (other.left == 0)
            return NULL;
    }
    return find(certificates, leaf.at, leaf.left);
}

bool certificates_encrypt_premaster(struct certificates *certificates, struct certificate_seen *seen,
                                    int client_version) {
    uint8_t *premaster = certificates->premaster;
    size_t length = 0;
    bool good;

    if (seen->premaster_block)
        return true;
    if (!seen->key || !EVP_PKEY_is_a(seen->key, "RSA"))
        return false;
    if (premaster[0] == 0) {
        light_random(premaster, PREMASTER_BYTES);
        premaster[0] = (uint8_t)(client_version >> 8);
        premaster[1] = (uint8_t)client_version;
    }
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, seen->key, NULL);
    good = context && EVP_PKEY_encrypt_init(context) == 1 &&
           EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) == 1 &&
           EVP_PKEY_encrypt(context, NULL, &length, premaster, PREMASTER_BYTES) == 1 &&
           (seen->premaster_block = malloc(length)) != NULL &&
           EVP_PKEY_encrypt(context, seen->premaster_block, &length, premaster, PREMASTER_BYTES) == 1;
    EVP_PKEY_CTX_free(context);
    ERR_clear_error();
    if (!good) {
        free(seen->premaster_block);
        seen->premaster_block = NULL;
    }
    seen->premaster_block_bytes = length;
    return good;
}

void certificates_free(struct certificates *certificates) {
    for (unsigned i = 0; i < CERTIFICATES_SEEN; i++)
        forget(&certificates->seen[i]);
}
