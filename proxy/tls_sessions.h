/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TLS_SESSIONS_H
#define PROXY_TLS_SESSIONS_H
/* Sessions that the server remembers: found by session ID (TLS 1.2) or by what a stateful ticket names (TLS 1.3). */
#include "announcer.h"
#include "session_store.h"
#include "stats.h"

#include <openssl/ssl.h>

struct tls_sessions {
    struct session_store *store; /* NULL: none are kept; not owned */
    struct announcer *announcer; /* to other hosts; NULL: none; not owned */
    struct worker_counters *counters;
    uint64_t lifetime_s;
    bool stateless_tickets;
};

/* Has the context keep its sessions there. It must have its tls_state, which holds this. */
void tls_sessions_serve(const struct tls_sessions *sessions, SSL_CTX *context);

#endif
