/* SPDX-License-Identifier: MIT */
#include "tls_credentials.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

static char reason_text[512];

/* The most telling of OpenSSL's queued errors: the first, which is the cause. */
static const char *openssl_reason(void) {
    unsigned long code = ERR_peek_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    /* What the decoders say when they went through the whole file and found nothing of the kind. */
    if (!reason || ERR_GET_REASON(code) == ERR_R_UNSUPPORTED || ERR_GET_REASON(code) == PEM_R_NO_START_LINE)
        return "there is none in this file";
    return reason;
}

static const char *refuse(const char *file, const char *what, const char *why) {
    snprintf(reason_text, sizeof reason_text, "%s: %s: %s", file, what, why);
    ERR_clear_error();
    return reason_text;
}

/* fopen and a first look, so that a missing, unreadable or empty file is called just that. */
static const char *check_readable(const char *file) {
    FILE *stream = fopen(file, "r");
    int first;

    if (!stream)
        return refuse(file, "cannot be read", strerror(errno));
    errno = 0;
    first = fgetc(stream);
    fclose(stream);
    if (first == EOF)
        return refuse(file, "cannot be read", errno ? strerror(errno) : "the file is empty");
    return NULL;
}

const char *tls_credentials_load(SSL_CTX *context, const char *certificate_file, const char *key_file) {
    const char *reason = check_readable(certificate_file);

    if (!reason && key_file)
        reason = check_readable(key_file);
    if (reason)
        return reason;
    if (!key_file)
        key_file = certificate_file;
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(context, certificate_file) != 1)
        return refuse(certificate_file, "no certificate can be read", openssl_reason());
    /* Reads and checks in one: a key of the same type that belongs to another certificate is refused here. */
    if (SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) != 1) {
        unsigned long code = ERR_peek_last_error();
        if (ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH || ERR_GET_REASON(code) == X509_R_KEY_TYPE_MISMATCH)
            return refuse(key_file, "the private key does not match the certificate", certificate_file);
        return refuse(key_file, "no private key can be read", openssl_reason());
    }
    if (SSL_CTX_check_private_key(context) != 1)
        return refuse(key_file, "the private key does not match the certificate", certificate_file);
    return NULL;
}

/* The first name of a version is its own. */
static const struct {
    const char *name;
    int version;
} versions[] = {
    {"TLSv1", TLS1_VERSION},     {"TLSv1.0", TLS1_VERSION},   {"TLSv1.1", TLS1_1_VERSION},
    {"TLSv1.2", TLS1_2_VERSION}, {"TLSv1.3", TLS1_3_VERSION},
};

int tls_version_parse(const char *text) {
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        if (strcmp(versions[i].name, text) == 0)
            return versions[i].version;
    return 0;
}

const char *tls_version_name(int version) {
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        if (versions[i].version == version)
            return versions[i].name;
    return NULL;
}

const char *tls_group_name(int nid) {
    switch (nid) {
    case NID_undef:
        return "";
    case NID_X9_62_prime256v1:
        return "P-256";
    case NID_secp384r1:
        return "P-384";
    case NID_secp521r1:
        return "P-521";
    default: {
        const char *name = OBJ_nid2sn(nid & ~TLSEXT_nid_unknown);
        return name ? name : "";
    }
    }
}

char *tls_key_name(EVP_PKEY *key, char *text, size_t size) {
    char group[64] = "";

    if (EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_is_a(key, "RSA-PSS")) {
        snprintf(text, size, "rsa:%d", EVP_PKEY_get_bits(key));
    } else if (EVP_PKEY_is_a(key, "EC")) {
        EVP_PKEY_get_group_name(key, group, sizeof group, NULL);
        snprintf(text, size, "ecdsa:%s", tls_group_name(OBJ_txt2nid(group)));
    } else {
        const char *name = EVP_PKEY_get0_type_name(key);
        snprintf(text, size, "%s", name ? name : "unknown");
        for (char *c = text; *c; c++)
            if (*c >= 'A' && *c <= 'Z')
                *c = (char)(*c - 'A' + 'a');
    }
    return text;
}
