/* SPDX-License-Identifier: MIT */
#ifndef PROXY_CERTIFICATE_SET_H
#define PROXY_CERTIFICATE_SET_H
/*
 * The server's certificates, and which of them a client gets: of those for the name it asks for (SNI, RFC 6066), the
 * one with a key of a kind that it can use. A client that asks for no name, or for one that nobody here has, gets what
 * those get that ask for the first certificate's first name. A certificate may have a word of its own on the
 * certificates of the clients that it serves.
 */
#include "session_identity.h"
#include "settings.h"

#include <openssl/ssl.h>

struct certificate_set;

/*
 * Reads all, with their OCSP staples, and sets up the context to serve them. NULL and *made set, which must be freed
 * after the context; else one line that names the file and says why it is refused.
 */
const char *certificate_set_serve(struct certificate_set **made, SSL_CTX *context,
                                  const struct proxy_settings *settings);

/* Adds the first list's certificates to where the context's sessions belong. False: out of memory. */
bool certificate_set_identify(const struct certificate_set *set, struct session_identity *identity);

/*
 * Where a certificate has clients verified in its own way: its sessions belong there, beside what identifies the
 * context's. False: out of memory.
 */
bool certificate_set_divide_sessions(struct certificate_set *set, const struct session_identity *identity);

/* Whether certificate_set_hello is needed. */
bool certificate_set_divides_sessions(const struct certificate_set *set);

/*
 * In OpenSSL's ClientHello callback: how this client is to be verified, and what it may resume. False: it cannot be, or
 * asks, told to ask again, for another name.
 */
bool certificate_set_hello(const struct certificate_set *set, SSL *ssl);

void certificate_set_free(struct certificate_set *set);

#endif
