/* SPDX-License-Identifier: MIT */
#ifndef PROXY_CONNECTION_H
#define PROXY_CONNECTION_H
/*
 * One client and its own connection to the backend:
 *
 *   PROXY_HEADER       --proxy-proxy: the client says for whom it speaks
 *   CLIENT_HANDSHAKE   TLS with the client; the backend hears nothing of clients that never finish it
 *   QUEUED             --maxconn: it waits for a place; a client that ends its sending meanwhile is taken for gone
 *   CONNECT            the backend is being connected, one address after the other; what the client has sent already is
 *                      tried on it at once
 *   BACKEND_HANDSHAKE  --client: TLS with the backend
 *   RELAY              two pumps, client -> backend and backend -> client
 *
 * Without --client TLS is on the client's side, with it on the backend's; all else is the same.
 *
 * When one side ends its sending (close_notify, or FIN where there is no TLS) and all it sent is delivered, the other
 * side is told, and the other direction goes on. The connection ends when both directions have. A FIN without
 * close_notify on the TLS side is no end of sending but that of a peer that has gone: what it sent is delivered, then
 * both sides are closed. Before TLS 1.3 so does a close_notify of a peer that was the last to be told something; one
 * that spoke last gets its answer first.
 */
#include "admission.h"
#include "proxy_header.h"
#include "pump.h"
#include "worker.h"

enum connection_state { PROXY_HEADER, CLIENT_HANDSHAKE, QUEUED, CONNECT, BACKEND_HANDSHAKE, RELAY };

struct connection {
    struct worker *worker;
    const struct door *door;
    enum connection_state state;
    struct stream client, backend;
    struct pump up, down;          /* client -> backend, backend -> client */
    const struct pump *spoke_last; /* the one that delivered something last; NULL: none yet */
    ev_io client_watcher, backend_watcher;
    ev_timer timer;
    uint64_t accepted_ns, handshake_done_ns; /* monotonic; 0: not yet */
    ev_tstamp connect_deadline;              /* of CONNECT, to the address that is tried */
    ev_tstamp last_progress;                 /* of RELAY: when something last came or went */
    struct address client_address;           /* as the PROXY header says, where there is one */
    struct received_header *header;          /* --proxy-proxy, until it is passed on */
    size_t header_bytes;                     /* of what up delivers: not the client's own */
    struct waiter waiter;                    /* of QUEUED */
    struct address backend_address;          /* the one that is tried, or was reached */
    uint32_t tried;                          /* the backend's addresses, a bit each */
    bool has_place;                          /* among --maxconn */
};

/* Takes over fd, a client that was just accepted and counted as such. It closes and frees itself. */
void connection_new(const struct door *door, int fd, const struct address *client);

/* What the queue of admission calls: owner is a connection. */
void connection_admitted(void *owner);
void connection_left_queue(void *owner);

#endif
