/* SPDX-License-Identifier: MIT */
#ifndef PROXY_CERTIFICATE_SET_H
#define PROXY_CERTIFICATE_SET_H
/*
 * The server's certificates, and which of them a client gets: of those for the name it asks for (SNI, RFC 6066), the
 * one with a key of a kind that it can use. A client that asks for no name, or for one that nobody here has, gets what
 * those get that ask for the first certificate's first name.
 */
#include "settings.h"

#include <openssl/ssl.h>

struct certificate_set;

/*
 * Reads all, with their OCSP staples, and sets up the context to serve them. NULL and *made set, which must be freed
 * after the context; else one line that names the file and says why it is refused.
 */
const char *certificate_set_serve(struct certificate_set **made, SSL_CTX *context,
                                  const struct proxy_settings *settings);

void certificate_set_free(struct certificate_set *set);

#endif
