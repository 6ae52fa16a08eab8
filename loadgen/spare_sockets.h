/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_SPARE_SOCKETS_H
#define TLSDYNO_SPARE_SOCKETS_H
/*
 * Sockets of connections that both sides have ended, for the connections to come. To make a socket and to close it is a
 * tenth of what a handshake costs the light engine; the connection itself is as new, port and all.
 */
#include "linger.h"

#define SPARE_SOCKETS_MAX LINGERERS_MAX

struct plan;

struct spare_sockets {
    int fds[SPARE_SOCKETS_MAX];
    int count;
};

/* They have no target and no source yet: all targets must be of one family, and the source the kernel's choice. */
bool spare_sockets_serve(const struct plan *plan);

/* Takes a TCP socket that is watched by nobody. One that is not at its end is closed. */
void spare_sockets_keep(struct spare_sockets *spare, int fd);

/* The same, but a connection that is not at its end is ended with RST. */
void spare_sockets_reset(struct spare_sockets *spare, int fd);

/* One that is as good as new, but for TCP_NODELAY, which it may still have. -1: there is none. */
int spare_sockets_take(struct spare_sockets *spare);

void spare_sockets_end(struct spare_sockets *spare);

#endif
