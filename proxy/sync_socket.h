/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_SOCKET_H
#define PROXY_SYNC_SOCKET_H
/* The UDP socket that hosts share sessions through: of one address, or of a multicast group. */
#include "sharing.h"

#include <stddef.h>
#include <stdint.h>

/*
 * A non-blocking socket that takes what is sent to sharing->own, whose port 0 is replaced by the port that was given.
 * -1 with errno set.
 */
int sync_socket_open(struct sharing *sharing);

/* Whether there is a datagram to be taken; it stays where it is. */
bool sync_socket_has_more(int fd);

/* One datagram to all peers, or to the group; how many of them the system took. */
int sync_socket_send_all(int fd, const struct sharing *sharing, const uint8_t *datagram, size_t length);

/* One datagram to one host, which a group can only be reached as a whole. True: the system took it. */
bool sync_socket_send(int fd, const struct sharing *sharing, const struct address *to, const uint8_t *datagram,
                      size_t length);

/* How many datagrams leave with sync_socket_send_all. */
int sync_socket_targets(const struct sharing *sharing);

#endif
