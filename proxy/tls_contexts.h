/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TLS_CONTEXTS_H
#define PROXY_TLS_CONTEXTS_H
/* The TLS of each frontend: see tls_context.h. Frontends of which nothing particular is asked have one in common. */
#include "tls_context.h"

struct tls_contexts {
    SSL_CTX *of[FRONTENDS_MAX]; /* in the order of the settings */
    int count;
};

/* NULL and *made, or one line that says why it is refused and, if it was about one frontend, of which. */
const char *tls_contexts_new(struct tls_contexts *made, const struct proxy_settings *settings,
                             struct session_store *store, struct ticket_keys *keys, struct session_sync *sync);

/* In a worker: tls_context_begin of each. */
void tls_contexts_begin(const struct tls_contexts *contexts, struct worker_counters *counters, int slot,
                        struct ev_loop *loop);

void tls_contexts_free(struct tls_contexts *contexts);

#endif
