/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_TLS_CREDENTIALS_H
#define TLSDYNO_TLS_CREDENTIALS_H
/* Certificates and keys from PEM files, and the names of TLS versions, groups and keys: what every TLS program here
 * needs. */
#include <openssl/ssl.h>
#include <stdbool.h>

/* A certificate, those that lead from it to its root (the first is its issuer; may be none), and its private key. */
struct tls_credentials {
    X509 *certificate;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
};

/*
 * Reads them from certificate_file and key_file (NULL: the same file). NULL and *credentials set, which the caller
 * frees; else why not, naming the file: the text is valid until the next call. Nobody is asked for a passphrase.
 */
const char *tls_credentials_read(struct tls_credentials *credentials, const char *certificate_file,
                                 const char *key_file);

/* NULL, or that the certificate in that file has expired or is not valid yet; valid until the next call. */
const char *tls_credentials_check_dates(const struct tls_credentials *credentials, const char *file);

/* Adds them to context, beside what is there already for other key types. NULL, or why not; file is for that line. */
const char *tls_credentials_use(const struct tls_credentials *credentials, const char *file, SSL_CTX *context);

void tls_credentials_free(struct tls_credentials *credentials);

/* Reads and uses them. */
const char *tls_credentials_load(SSL_CTX *context, const char *certificate_file, const char *key_file);

/* The protocol number of "TLSv1", "TLSv1.1", "TLSv1.2" or "TLSv1.3"; 0 if text is none of these. */
int tls_version_parse(const char *text);

/* The name of a protocol number that tls_version_parse gives. */
const char *tls_version_name(int version);

/*
 * The name of the group with OpenSSL's number (a NID): "X25519", "P-256"... or OpenSSL's own name where the field has
 * no other; "" for 0.
 */
const char *tls_group_name(int nid);

/* "2027-01-31 12:00:00 UTC". text holds size bytes. Returns text. */
char *tls_time_text(const ASN1_TIME *time, char *text, size_t size);

/* "rsa:2048", "ecdsa:P-256", "ed25519" of a public or private key. text holds size bytes. Returns text. */
char *tls_key_name(EVP_PKEY *key, char *text, size_t size);

#endif
