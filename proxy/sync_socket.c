/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "sync_socket.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* What comes while the process does not run, at ten thousand sessions a second for a tenth of a second, twice. */
#define RECEIVE_BUFFER_BYTES (2 << 20)

static bool set(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

/* A group that stays on this host would have nobody to talk to if what is sent did not come back. */
static bool join(int fd, const struct sharing *sharing) {
    int hops = (int)sharing->hops, loop = hops == 0;

    if (sharing->own.sockaddr.any.sa_family == AF_INET) {
        const struct ip_mreqn group = {.imr_multiaddr = sharing->own.sockaddr.ipv4.sin_addr,
                                       .imr_ifindex = (int)sharing->interface};
        return setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) == 0 &&
               setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &group, sizeof group) == 0 &&
               set(fd, IPPROTO_IP, IP_MULTICAST_TTL, hops) && set(fd, IPPROTO_IP, IP_MULTICAST_LOOP, loop);
    }
    const struct ipv6_mreq group = {.ipv6mr_multiaddr = sharing->own.sockaddr.ipv6.sin6_addr,
                                    .ipv6mr_interface = sharing->interface};
    return setsockopt(fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &group, sizeof group) == 0 &&
           set(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)sharing->interface) &&
           set(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, hops) && set(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, loop);
}

int sync_socket_open(struct sharing *sharing) {
    struct sockaddr *own = &sharing->own.sockaddr.any;
    int fd = socket(own->sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error;
    bool multicast = sharing_is_multicast(&sharing->own);

    if (fd < 0)
        return -1;
    if (own->sa_family == AF_INET6 && multicast)
        sharing->own.sockaddr.ipv6.sin6_scope_id = sharing->interface;
    if (own->sa_family == AF_INET6)
        set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    /* Without the right to more, as much as there is. */
    if (!set(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES))
        set(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER_BYTES);
    /* How long it was on its way is known also where it lies here for some time. */
    set(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
    if ((!multicast || set(fd, SOL_SOCKET, SO_REUSEADDR, 1)) && bind(fd, own, sharing->own.length) == 0 &&
        getsockname(fd, own, &sharing->own.length) == 0 && (!multicast || join(fd, sharing)))
        return fd;
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

bool sync_socket_has_more(int fd) {
    uint8_t byte;

    return recv(fd, &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

int sync_socket_targets(const struct sharing *sharing) {
    return sharing_is_multicast(&sharing->own) ? 1 : sharing->peers.count;
}

static const struct address *target(const struct sharing *sharing, int number) {
    return sharing_is_multicast(&sharing->own) ? &sharing->own : &sharing->peers.address[number];
}

static bool send_to(int fd, const struct address *to, const uint8_t *datagram, size_t length) {
    return sendto(fd, datagram, length, MSG_NOSIGNAL, &to->sockaddr.any, to->length) == (ssize_t)length;
}

int sync_socket_send_all(int fd, const struct sharing *sharing, const uint8_t *datagram, size_t length) {
    int sent = 0;

    for (int i = 0; i < sync_socket_targets(sharing); i++)
        sent += send_to(fd, target(sharing, i), datagram, length);
    return sent;
}

bool sync_socket_send(int fd, const struct sharing *sharing, const struct address *to, const uint8_t *datagram,
                      size_t length) {
    return send_to(fd, sharing_is_multicast(&sharing->own) ? &sharing->own : to, datagram, length);
}
