/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TLS_STATE_H
#define PROXY_TLS_STATE_H
/* What the callbacks of a server's SSL_CTX need: hung on it, and freed with it. */
#include "alpn.h"
#include "certificate_set.h"
#include "session_wait.h"
#include "tls_sessions.h"
#include "tls_tickets.h"

struct tls_state {
    struct tls_sessions sessions;
    struct session_waits waits; /* sync NULL: none */
    struct tls_tickets tickets;
    struct alpn alpn;
    struct certificate_set *certificates;
};

struct tls_state *tls_state_of(const SSL_CTX *context);

#endif
