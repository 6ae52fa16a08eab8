/* SPDX-License-Identifier: MIT */
#include "sigalg.h"

#include <string.h>
#include <strings.h>

static const struct sigalg {
    uint16_t id;
    const char *name, *openssl_name;
} sigalgs[] = {
    {0x0403, "ecdsa_secp256r1_sha256", "ECDSA+SHA256"},
    {0x0503, "ecdsa_secp384r1_sha384", "ECDSA+SHA384"},
    {0x0603, "ecdsa_secp521r1_sha512", "ECDSA+SHA512"},
    {0x0807, "ed25519", ""},
    {0x0808, "ed448", ""},
    {0x0809, "rsa_pss_pss_sha256", ""},
    {0x080a, "rsa_pss_pss_sha384", ""},
    {0x080b, "rsa_pss_pss_sha512", ""},
    {0x0804, "rsa_pss_rsae_sha256", "RSA-PSS+SHA256"},
    {0x0805, "rsa_pss_rsae_sha384", "RSA-PSS+SHA384"},
    {0x0806, "rsa_pss_rsae_sha512", "RSA-PSS+SHA512"},
    {0x0401, "rsa_pkcs1_sha256", "RSA+SHA256"},
    {0x0501, "rsa_pkcs1_sha384", "RSA+SHA384"},
    {0x0601, "rsa_pkcs1_sha512", "RSA+SHA512"},
    {0x0303, "ecdsa_sha224", "ECDSA+SHA224"},
    {0x0203, "ecdsa_sha1", "ECDSA+SHA1"},
    {0x0301, "rsa_pkcs1_sha224", "RSA+SHA224"},
    {0x0201, "rsa_pkcs1_sha1", "RSA+SHA1"},
    {SIGALG_RSA_MD5_SHA1, "rsa_pkcs1_md5_sha1", ""}, /* never on the wire */
};

#define SIGALGS ((int)(sizeof sigalgs / sizeof *sigalgs))

_Static_assert(sizeof sigalgs / sizeof *sigalgs <= SIGALGS_MAX, "a list must hold them all");

const char *sigalg_name(uint16_t id) {
    for (int i = 0; i < SIGALGS; i++)
        if (sigalgs[i].id == id)
            return sigalgs[i].name;
    return id ? "unknown" : "";
}

uint16_t sigalg_by_name(const char *name, size_t length) {
    for (int i = 0; i < SIGALGS - 1; i++)
        if ((strlen(sigalgs[i].name) == length && memcmp(sigalgs[i].name, name, length) == 0) ||
            (strlen(sigalgs[i].openssl_name) == length && strncasecmp(sigalgs[i].openssl_name, name, length) == 0))
            return sigalgs[i].id;
    return 0;
}

int sigalgs_default(uint16_t list[SIGALGS_MAX]) {
    for (int i = 0; i < SIGALGS - 1; i++)
        list[i] = sigalgs[i].id;
    return SIGALGS - 1;
}
