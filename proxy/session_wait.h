/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SESSION_WAIT_H
#define PROXY_SESSION_WAIT_H
/*
 * A session that a client asks for and this host knows nothing of may lie in the socket, unread: proxy-sync is told to
 * take what has come, before the handshake goes on. With --shared-cache-pull the others are asked for it, too. The
 * ClientHello waits meanwhile, the worker does not. Whatever has come by then, the handshake goes on when the time is
 * over.
 */
#include "announcer.h"

#include <ev.h>
#include <openssl/ssl.h>

struct worker_counters;

/* Of a context. */
struct session_waits {
    /* Not owned; sync NULL: none. */
    struct session_sync *sync;
    struct announcer *announcer;
    bool stateless_tickets;
};

/* In the master, before any of the others. */
void session_waits_serve(void);

/*
 * In OpenSSL's ClientHello callback, whose result it gives: the handshake may have to wait. When it is to go on, the
 * watcher that is the SSL's app data is fed EV_READ, be it active or not: meanwhile nothing is to be read, and what the
 * client sends beyond its ClientHello is not to wake the worker again and again. Without a watcher nothing waits.
 */
int session_waits_hello(const struct session_waits *waits, SSL *ssl);

/* In a worker that has this slot to itself, of each of its contexts. */
void session_waits_begin(const struct session_waits *waits, struct ev_loop *loop, struct worker_counters *counters,
                         int slot);

/* In the process that puts what has come into the store, after it: whoever waits looks again. */
void session_waits_wake(const struct session_sync *sync);

#endif
