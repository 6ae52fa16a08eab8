/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TLS_CONTEXT_H
#define PROXY_TLS_CONTEXT_H
/* The server's TLS: certificates, versions, ciphers, and how sessions are resumed. */
#include "session_store.h"
#include "settings.h"
#include "stats.h"

#include <openssl/ssl.h>
#include <stdbool.h>

/*
 * Built in the master, so that all workers have the same ticket keys. store may be NULL: no session cache. NULL and
 * *context set, or one line that names the option or file and says why it is refused, valid until the next call.
 */
const char *tls_context_new(SSL_CTX **context, const struct proxy_settings *settings, struct session_store *store);

/* After SSL_new of a connection to the backend (--client). False: no memory. */
bool tls_context_prepare_client(SSL *ssl);

/* In a worker: where this process counts its look-ups in the session cache. */
void tls_context_count_in(SSL_CTX *context, struct worker_counters *counters);

#endif
