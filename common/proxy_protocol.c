/* SPDX-License-Identifier: MIT */
#include "proxy_protocol.h"

#include "bytes.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
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

static struct address internet_address(int family, const void *host, uint16_t port) {
    struct address address = {.length = 0};

    if (family == AF_INET) {
        struct sockaddr_in *ipv4 = &address.sockaddr.ipv4;
        ipv4->sin_family = AF_INET;
        ipv4->sin_port = htons(port);
        memcpy(&ipv4->sin_addr, host, sizeof ipv4->sin_addr);
        address.length = sizeof *ipv4;
    } else {
        struct sockaddr_in6 *ipv6 = &address.sockaddr.ipv6;
        ipv6->sin6_family = AF_INET6;
        ipv6->sin6_port = htons(port);
        memcpy(&ipv6->sin6_addr, host, sizeof ipv6->sin6_addr);
        address.length = sizeof *ipv6;
    }
    return address;
}

/* Cuts the next word off a line; NULL if there is none. One space parts two words. */
static char *next_word(char **line) {
    char *word = *line, *space;

    if (!word)
        return NULL;
    space = strchr(word, ' ');
    if (space)
        *space = '\0';
    *line = space ? space + 1 : NULL;
    return word;
}

/* Section 2.1: 0 to 65535, in decimal, without leading zeros. */
static bool read_port(const char *word, uint16_t *port) {
    size_t digits = word ? strspn(word, "0123456789") : 0;
    long value;

    if (digits == 0 || digits > 5 || word[digits] || (digits > 1 && word[0] == '0'))
        return false;
    value = strtol(word, NULL, 10);
    *port = (uint16_t)value;
    return value <= 65535;
}

/* A whole line, without its end, after "PROXY ". */
static bool read_line(char *line, struct proxy_protocol_fact *fact) {
    const char *word = next_word(&line), *source, *destination;
    uint8_t from[16], to[16];
    uint16_t port, to_port;
    int family;

    if (word && strcmp(word, "UNKNOWN") == 0)
        return true; /* whatever follows is to be ignored */
    if (!word || (strcmp(word, "TCP4") != 0 && strcmp(word, "TCP6") != 0))
        return false;
    family = word[3] == '4' ? AF_INET : AF_INET6;
    source = next_word(&line);
    destination = next_word(&line);
    if (!source || !destination || inet_pton(family, source, from) != 1 || inet_pton(family, destination, to) != 1)
        return false;
    if (!read_port(next_word(&line), &port) || !read_port(next_word(&line), &to_port) || line)
        return false;
    fact->source = internet_address(family, from, port);
    fact->destination = internet_address(family, to, to_port);
    return true;
}

static enum proxy_protocol_reading read_version_1(const uint8_t *bytes, size_t length,
                                                  struct proxy_protocol_fact *fact) {
    static const char start[] = "PROXY ";
    const size_t start_length = sizeof start - 1, seen = length < start_length ? length : start_length;
    size_t limit = length < PROXY_PROTOCOL_BYTES_MAX - 1 ? length : PROXY_PROTOCOL_BYTES_MAX - 1;
    char line[PROXY_PROTOCOL_BYTES_MAX];
    const uint8_t *end;

    if (memcmp(bytes, start, seen) != 0)
        return PROXY_PROTOCOL_BAD;
    end = memchr(bytes, '\n', limit);
    /* Without its end it may still be one, unless it is too long, or is broken by a NUL or a lone CR. */
    if (!end) {
        const uint8_t *carriage_return = memchr(bytes, '\r', limit);
        if (limit == PROXY_PROTOCOL_BYTES_MAX - 1 || memchr(bytes, '\0', limit) ||
            (carriage_return && carriage_return + 1 != bytes + limit))
            return PROXY_PROTOCOL_BAD;
        return PROXY_PROTOCOL_PART;
    }
    if (end[-1] != '\r' || memchr(bytes, '\0', (size_t)(end - bytes)))
        return PROXY_PROTOCOL_BAD;
    fact->version = PROXY_PROTOCOL_V1;
    fact->length = fact->tlvs_at = (size_t)(end - bytes) + 1;
    memcpy(line, bytes, fact->length - 2);
    line[fact->length - 2] = '\0';
    if (strchr(line, '\r') || !read_line(line + start_length, fact))
        return PROXY_PROTOCOL_BAD;
    return PROXY_PROTOCOL_WHOLE;
}

static enum proxy_protocol_reading read_version_2(const uint8_t *bytes, size_t length,
                                                  struct proxy_protocol_fact *fact) {
    struct reader reader = reader_of(bytes, length);
    size_t address_bytes, rest;
    uint8_t command, family;
    const uint8_t *body;

    if (memcmp(bytes, signature, length < SIGNATURE_BYTES ? length : SIGNATURE_BYTES) != 0)
        return PROXY_PROTOCOL_BAD;
    if (length < PROXY_PROTOCOL_V2_FIXED)
        return length > SIGNATURE_BYTES && bytes[SIGNATURE_BYTES] != VERSION_2_PROXY &&
                       bytes[SIGNATURE_BYTES] != VERSION_2_LOCAL
                   ? PROXY_PROTOCOL_BAD
                   : PROXY_PROTOCOL_PART;
    reader_take(&reader, SIGNATURE_BYTES);
    command = reader_u8(&reader);
    family = reader_u8(&reader);
    rest = reader_u16(&reader);
    /* Section 2.2: address families 0 to 3, transports 0 to 2. */
    if ((command != VERSION_2_PROXY && command != VERSION_2_LOCAL) || family >> 4 > 3 || (family & 15) > 2)
        return PROXY_PROTOCOL_BAD;
    address_bytes = (const uint8_t[]){0, 12, 36, 216}[family >> 4];
    if (command == VERSION_2_PROXY && rest < address_bytes)
        return PROXY_PROTOCOL_BAD;
    fact->version = PROXY_PROTOCOL_V2;
    fact->local = command == VERSION_2_LOCAL;
    fact->length = PROXY_PROTOCOL_V2_FIXED + rest;
    fact->tlvs_at = rest < address_bytes ? fact->length : PROXY_PROTOCOL_V2_FIXED + address_bytes;
    body = reader_take(&reader, rest);
    if (!body)
        return PROXY_PROTOCOL_PART;
    if (!fact->local && (family == TCP_OVER_IPV4 || family == TCP_OVER_IPV6)) {
        int host_bytes = family == TCP_OVER_IPV4 ? 4 : 16;
        const uint8_t *ports = body + 2 * host_bytes;
        int domain = family == TCP_OVER_IPV4 ? AF_INET : AF_INET6;
        fact->source = internet_address(domain, body, (uint16_t)(ports[0] << 8 | ports[1]));
        fact->destination = internet_address(domain, body + host_bytes, (uint16_t)(ports[2] << 8 | ports[3]));
    }
    return PROXY_PROTOCOL_WHOLE;
}

enum proxy_protocol_reading proxy_protocol_read(const uint8_t *bytes, size_t length, struct proxy_protocol_fact *fact) {
    *fact = (struct proxy_protocol_fact){.length = 0};
    if (length == 0)
        return PROXY_PROTOCOL_PART;
    return bytes[0] == 'P' ? read_version_1(bytes, length, fact) : read_version_2(bytes, length, fact);
}
