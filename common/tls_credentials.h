/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_TLS_CREDENTIALS_H
#define TLSDYNO_TLS_CREDENTIALS_H
/* Certificates and keys from PEM files, and the names of TLS versions, groups and keys: what every TLS program here
 * needs. */
#include <openssl/ssl.h>
#include <stdbool.h>

/*
 * Loads a certificate with its chain from certificate_file and the private key from key_file (NULL: the same file) into
 * context, beside what is there already for other key types. NULL if all is well, else why not, naming the file; the
 * text is valid until the next call.
 */
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

/* "rsa:2048", "ecdsa:P-256", "ed25519" of a public or private key. text holds size bytes. Returns text. */
char *tls_key_name(EVP_PKEY *key, char *text, size_t size);

#endif
