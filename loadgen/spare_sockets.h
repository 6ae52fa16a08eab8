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

/* One that is as good as new, but for its options, which it still has. -1: there is none. */
int spare_sockets_take(struct spare_sockets *spare);

/* Makes one of a connected TCP socket: with RST, if it is not at its end. False: it could not be, and is closed. */
bool spare_socket_disconnect(int fd);

void spare_sockets_end(struct spare_sockets *spare);

#endif
