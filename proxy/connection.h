/* SPDX-License-Identifier: MIT */
#ifndef PROXY_CONNECTION_H
#define PROXY_CONNECTION_H
/*
 * One client and its own connection to the backend:
 *
 *   HANDSHAKE  TLS with the client; the backend hears nothing of clients that never finish it
 *   CONNECT    the backend is being connected; what the client has sent already is tried on it at once
 *   RELAY      two pumps, client -> backend and backend -> client, each with at most one buffer; a pump whose buffer is
 * full reads no more, so each side feels the other's pace
 *
 * When one side ends its sending (close_notify or FIN) and all it sent is delivered, the other side is told, and the
 * other direction goes on. The connection ends when both directions have.
 */
#include "worker.h"

/* Takes over fd, a client that was just accepted and counted as such. It closes and frees itself. */
void connection_new(struct worker *worker, int fd, const struct address *client);

#endif
