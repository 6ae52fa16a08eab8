/* SPDX-License-Identifier: MIT */
#include "proxy_protocol.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static const char signature[] = "\r\n\r\n\0\r\nQUIT\n"; /* section 2.2 */

#define SIGNATURE_BYTES (sizeof signature - 1)
#define VERSION_2_PROXY 0x21
#define VERSION_2_LOCAL 0x20
#define TCP_OVER_IPV4   0x11
#define TCP_OVER_IPV6   0x21

static size_t version_1(char *header, int family, const struct address *source, const struct address *destination) {
    char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
    int length;

    switch (family) {
    case AF_INET:
        inet_ntop(AF_INET, &source->sockaddr.ipv4.sin_addr, from, sizeof from);
        inet_ntop(AF_INET, &destination->sockaddr.ipv4.sin_addr, to, sizeof to);
        length = snprintf(header, PROXY_PROTOCOL_BYTES_MAX, "PROXY TCP4 %s %s %u %u\r\n", from, to,
                          ntohs(source->sockaddr.ipv4.sin_port), ntohs(destination->sockaddr.ipv4.sin_port));
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &source->sockaddr.ipv6.sin6_addr, from, sizeof from);
        inet_ntop(AF_INET6, &destination->sockaddr.ipv6.sin6_addr, to, sizeof to);
        length = snprintf(header, PROXY_PROTOCOL_BYTES_MAX, "PROXY TCP6 %s %s %u %u\r\n", from, to,
                          ntohs(source->sockaddr.ipv6.sin6_port), ntohs(destination->sockaddr.ipv6.sin6_port));
        break;
    default:
        length = snprintf(header, PROXY_PROTOCOL_BYTES_MAX, "PROXY UNKNOWN\r\n");
    }
    return (size_t)length;
}

static char *append(char *at, const void *bytes, size_t length) {
    memcpy(at, bytes, length);
    return at + length;
}

static size_t version_2(char *header, int family, const struct address *source, const struct address *destination) {
    char *at = append(header, signature, SIGNATURE_BYTES);

    *at++ = family == AF_UNSPEC ? VERSION_2_LOCAL : VERSION_2_PROXY;
    *at++ = family == AF_INET ? TCP_OVER_IPV4 : family == AF_INET6 ? TCP_OVER_IPV6 : 0;
    *at++ = 0;
    *at++ = family == AF_INET ? 12 : family == AF_INET6 ? 36 : 0;
    if (family == AF_INET) {
        at = append(at, &source->sockaddr.ipv4.sin_addr, 4);
        at = append(at, &destination->sockaddr.ipv4.sin_addr, 4);
        at = append(at, &source->sockaddr.ipv4.sin_port, 2);
        at = append(at, &destination->sockaddr.ipv4.sin_port, 2);
    } else if (family == AF_INET6) {
        at = append(at, &source->sockaddr.ipv6.sin6_addr, 16);
        at = append(at, &destination->sockaddr.ipv6.sin6_addr, 16);
        at = append(at, &source->sockaddr.ipv6.sin6_port, 2);
        at = append(at, &destination->sockaddr.ipv6.sin6_port, 2);
    }
    return (size_t)(at - header);
}

size_t proxy_protocol_header(char header[PROXY_PROTOCOL_BYTES_MAX], enum proxy_protocol version,
                             const struct address *source, const struct address *destination) {
    int family = source->sockaddr.any.sa_family;

    if ((family != AF_INET && family != AF_INET6) || destination->sockaddr.any.sa_family != family)
        family = AF_UNSPEC;
    return version == PROXY_PROTOCOL_V1 ? version_1(header, family, source, destination)
                                        : version_2(header, family, source, destination);
}

bool proxy_protocol_send(int fd, enum proxy_protocol version) {
    struct address source = {.length = sizeof source.sockaddr}, destination = {.length = sizeof destination.sockaddr};
    char header[PROXY_PROTOCOL_BYTES_MAX];
    size_t length;

    if (getsockname(fd, &source.sockaddr.any, &source.length) != 0 ||
        getpeername(fd, &destination.sockaddr.any, &destination.length) != 0)
        return false;
    length = proxy_protocol_header(header, version, &source, &destination);
    return send(fd, header, length, MSG_NOSIGNAL | MSG_MORE) == (ssize_t)length;
}
