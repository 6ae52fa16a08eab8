/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TLS_CONTEXT_H
#define PROXY_TLS_CONTEXT_H
/*
 * The TLS of the proxy as its settings ask for it: a server's, or with --client that of a client of the backend.
 * A context can be made any number of times; SSL_CTX_free frees all of it. What must outlive it (the session store, the
 * ticket keys) is passed in.
 */
#include "session_store.h"
#include "session_sync.h"
#include "settings.h"
#include "stats.h"
#include "ticket_keys.h"

#include <ev.h>
#include <openssl/ssl.h>

/*
 * What the settings ask for, with client_role that of a client. Built in the master, before the workers that use it are
 * forked. store may be NULL: no session is kept; and sync: nothing is shared with other hosts. NULL and *context set,
 * or one line that names the option or file and says why it is refused, valid until the next call.
 */
const char *tls_context_new(SSL_CTX **context, const struct proxy_settings *settings, struct session_store *store,
                            struct ticket_keys *keys, struct session_sync *sync);

/*
 * That of a client of the backend. Certificates are optional; the last session that the backend gave is kept, in each
 * process its own.
 */
const char *tls_context_new_client(SSL_CTX **context, const struct proxy_settings *settings);

/*
 * Each SSL of such a context, before its handshake: the name that it asks for and the session that it offers. False:
 * out of memory.
 */
bool tls_context_prepare_client(SSL *ssl);

/*
 * In a worker, of a server's context: where this process counts its look-ups in the session cache, and which slot it
 * has to itself among those that wait for sessions of other hosts; it tells those of its own.
 */
void tls_context_begin(SSL_CTX *context, struct worker_counters *counters, int slot, struct ev_loop *loop);

/*
 * In a worker, each SSL of a server's context, before its handshake: the watcher of its socket. It is fed EV_READ when
 * a handshake that stood still by no fault of the client (stream.wants is 0) is to go on.
 */
void tls_context_prepare_server(SSL *ssl, ev_io *watcher);

/* In a worker, after each step of a client's handshake: what other hosts are told of is not kept waiting by others. */
void tls_context_step_done(void);

#endif
