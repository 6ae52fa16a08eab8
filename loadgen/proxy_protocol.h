/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_PROXY_PROTOCOL_H
#define TLSDYNO_PROXY_PROTOCOL_H
/* The PROXY header that a load balancer sends before anything else (haproxy.org, proxy-protocol.txt), as a sender. */
#include "address.h"

#include <stdbool.h>
#include <stddef.h>

enum proxy_protocol { PROXY_PROTOCOL_NONE, PROXY_PROTOCOL_V1, PROXY_PROTOCOL_V2 };

#define PROXY_PROTOCOL_BYTES_MAX 108 /* section 2.1: 107 and a NUL; version 2 with IPv6 takes 52 */

/*
 * Writes the header of a connection from source to destination; returns its length. TCP over IPv4 or IPv6, both of the
 * same family; anything else is UNKNOWN (version 1) or LOCAL (version 2): the receiver is to use the connection's own
 * addresses.
 */
size_t proxy_protocol_header(char header[PROXY_PROTOCOL_BYTES_MAX], enum proxy_protocol version,
                             const struct address *source, const struct address *destination);

/*
 * Sends the header of a new connection with the addresses of the socket itself. The kernel holds it back for what is
 * sent next, so that both go in one segment. False if it cannot be sent.
 */
bool proxy_protocol_send(int fd, enum proxy_protocol version);

#endif
