/* SPDX-License-Identifier: MIT */
#ifndef PROXY_CLIENT_VERIFICATION_H
#define PROXY_CLIENT_VERIFICATION_H
/* Certificates of clients: whether one is asked for, and which authorities are believed. */
#include "settings.h"

#include <openssl/ssl.h>

/*
 * Also gives the context its session ID context: a session is resumed only where its client would be verified as it was
 * when the session began. NULL, or one line that names the file and says why it is refused.
 */
const char *client_verification_set_up(SSL_CTX *context, const struct proxy_settings *settings);

#endif
