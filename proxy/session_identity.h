/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SESSION_IDENTITY_H
#define PROXY_SESSION_IDENTITY_H
/*
 * Where a session belongs: it is resumed only where the identity is the one that it was begun with (OpenSSL's session
 * ID context). Hosts with the same settings come to the same.
 */
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stdint.h>

struct session_identity {
    uint8_t bytes[SSL_MAX_SID_CTX_LENGTH];
};

/* That of a proxy of which nothing particular is asked. */
struct session_identity session_identity(void);

/*
 * Adds something more that a session depends on: what is added in another order comes to something else. False: out of
 * memory, and what it is then is not to be used.
 */
bool session_identity_add(struct session_identity *identity, const void *bytes, size_t length);

/* The same of certificates, in whatever order they are. */
bool session_identity_add_certificates(struct session_identity *identity, const STACK_OF(X509) * certificates);

#endif
