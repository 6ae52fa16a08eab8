/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TLS_POLICY_H
#define PROXY_TLS_POLICY_H
/* What both sorts of SSL_CTX, a server's and a client's, have in common: versions, ciphers, groups, modes. */
#include "settings.h"

#include <openssl/ssl.h>

/* NULL, or one line that says which option is refused and why. Certificates are loaded after it: it sets their limits.
 */
const char *tls_policy_apply(SSL_CTX *context, const struct proxy_settings *settings);

#endif
