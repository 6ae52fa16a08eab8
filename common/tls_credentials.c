/* SPDX-License-Identifier: MIT */
#include "tls_credentials.h"

#include "regular_file.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static char reason_text[512];

static const char *refuse(const char *file, const char *what, const char *why) {
    snprintf(reason_text, sizeof reason_text, "%s: %s: %s", file, what, why);
    ERR_clear_error();
    return reason_text;
}

/* The most telling of OpenSSL's queued errors: the first, which is the cause. */
static const char *refuse_content(const char *file, const char *what) {
    unsigned long code = ERR_peek_error();
    const char *why = code ? ERR_reason_error_string(code) : NULL;

    /* What the decoders say when they went through the whole file and found nothing of the kind. */
    if (!why || ERR_GET_REASON(code) == ERR_R_UNSUPPORTED || ERR_GET_REASON(code) == PEM_R_NO_START_LINE)
        why = "there is none in this file";
    return refuse(file, what, why);
}

/* The file, with a first look at it, so that a missing, unreadable or empty one is called just that. */
static const char *open_file(BIO **opened, const char *file) {
    const char *why;
    FILE *stream = regular_file_open(file, &why);

    if (!stream)
        return refuse(file, "cannot be read", why);
    if (fgetc(stream) == EOF) {
        why = ferror(stream) ? strerror(errno) : "the file is empty";
        fclose(stream);
        return refuse(file, "cannot be read", why);
    }
    rewind(stream);
    *opened = BIO_new_fp(stream, BIO_CLOSE);
    if (!*opened) {
        fclose(stream);
        return refuse(file, "cannot be read", "out of memory");
    }
    return NULL;
}

/* Nobody is there to type a passphrase. */
static int refuse_passphrase(char *text, int size, int writing, void *asked) {
    (void)text, (void)size, (void)writing;
    *(bool *)asked = true;
    return -1;
}

/* The file's first certificate is the leaf, all others are its chain. */
static const char *read_certificates(struct tls_credentials *credentials, const char *file) {
    const char *reason;
    BIO *bio = NULL;
    X509 *link;

    reason = open_file(&bio, file);
    if (reason)
        return reason;
    ERR_clear_error();
    credentials->certificate = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
    credentials->chain = sk_X509_new_null();
    if (!credentials->certificate || !credentials->chain)
        reason = refuse_content(file, "no certificate can be read");
    while (!reason && (link = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
        if (!sk_X509_push(credentials->chain, link)) {
            X509_free(link);
            reason = refuse(file, "cannot be read", "out of memory");
        }
    if (!reason && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        reason = refuse_content(file, "a certificate of the chain cannot be read");
    ERR_clear_error();
    BIO_free(bio);
    return reason;
}

static const char *read_key(struct tls_credentials *credentials, const char *file) {
    bool asked = false;
    const char *reason;
    BIO *bio = NULL;

    reason = open_file(&bio, file);
    if (reason)
        return reason;
    ERR_clear_error();
    credentials->key = PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, &asked);
    if (asked)
        reason = refuse(file, "the private key is encrypted", "give it without a passphrase");
    else if (!credentials->key)
        reason = refuse_content(file, "no private key can be read");
    BIO_free(bio);
    return reason;
}

const char *tls_credentials_read(struct tls_credentials *credentials, const char *certificate_file,
                                 const char *key_file) {
    const char *reason;

    *credentials = (struct tls_credentials){0};
    if (!key_file)
        key_file = certificate_file;
    reason = read_certificates(credentials, certificate_file);
    if (!reason)
        reason = read_key(credentials, key_file);
    if (!reason && X509_check_private_key(credentials->certificate, credentials->key) != 1)
        reason = refuse(key_file, "the private key does not match the certificate", certificate_file);
    if (reason)
        tls_credentials_free(credentials);
    return reason;
}

const char *tls_credentials_check_dates(const struct tls_credentials *credentials, const char *file) {
    const ASN1_TIME *from = X509_get0_notBefore(credentials->certificate);
    const ASN1_TIME *until = X509_get0_notAfter(credentials->certificate);
    char text[64];

    if (X509_cmp_current_time(until) < 0)
        return refuse(file, "the certificate expired on", tls_time_text(until, text, sizeof text));
    if (X509_cmp_current_time(from) > 0)
        return refuse(file, "the certificate is not valid before", tls_time_text(from, text, sizeof text));
    return NULL;
}

void tls_credentials_free(struct tls_credentials *credentials) {
    X509_free(credentials->certificate);
    EVP_PKEY_free(credentials->key);
    sk_X509_pop_free(credentials->chain, X509_free);
    *credentials = (struct tls_credentials){0};
}

const char *tls_credentials_use(const struct tls_credentials *credentials, const char *file, SSL_CTX *context) {
    ERR_clear_error();
    if (SSL_CTX_use_cert_and_key(context, credentials->certificate, credentials->key, credentials->chain, 1) == 1)
        return NULL;
    return refuse_content(file, "refused by the TLS library");
}

const char *tls_credentials_load(SSL_CTX *context, const char *certificate_file, const char *key_file) {
    struct tls_credentials credentials;
    const char *reason = tls_credentials_read(&credentials, certificate_file, key_file);

    if (!reason) {
        reason = tls_credentials_use(&credentials, certificate_file, context);
        tls_credentials_free(&credentials);
    }
    return reason;
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

char *tls_time_text(const ASN1_TIME *time, char *text, size_t size) {
    struct tm date;

    if (ASN1_TIME_to_tm(time, &date) != 1 || !strftime(text, size, "%Y-%m-%d %H:%M:%S UTC", &date))
        snprintf(text, size, "an unknown time");
    return text;
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
