/* SPDX-License-Identifier: MIT */
#include "source.h"

#include "units.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#define COUNT_MAX (UINT64_C(1) << 32)

/* How many addresses a prefix leaves, COUNT_MAX at most. */
static uint64_t addresses(unsigned free_bits) {
    return free_bits >= 32 ? COUNT_MAX : UINT64_C(1) << free_bits;
}

static void clear_bits(unsigned char *bytes, unsigned size, unsigned free_bits) {
    for (unsigned i = 0; i < free_bits; i++)
        bytes[size - 1 - i / 8] &= (unsigned char)~(1u << i % 8);
}

static void add(unsigned char *bytes, unsigned size, uint64_t number) {
    for (unsigned i = size; i-- > 0 && number > 0;) {
        number += bytes[i];
        bytes[i] = (unsigned char)number;
        number >>= 8;
    }
}

/* The bytes of the IP address itself. */
static unsigned char *bytes_of(struct address *address, unsigned *size) {
    if (address->sockaddr.any.sa_family == AF_INET) {
        *size = 4;
        return (unsigned char *)&address->sockaddr.ipv4.sin_addr;
    }
    *size = 16;
    return (unsigned char *)&address->sockaddr.ipv6.sin6_addr;
}

const char *source_parse(void *target, const char *text) {
    struct source *source = target;
    struct address *first = &source->first;
    const char *slash = strchr(text, '/');
    size_t length = slash ? (size_t)(slash - text) : strlen(text);
    unsigned size, free_bits;
    unsigned char *bytes;
    char host[INET6_ADDRSTRLEN];
    uint64_t prefix;

    *source = (struct source){0};
    if (length >= sizeof host)
        return "not an IP address, or one with /PREFIX";
    memcpy(host, text, length);
    host[length] = '\0';
    if (inet_pton(AF_INET, host, &first->sockaddr.ipv4.sin_addr) == 1) {
        first->sockaddr.ipv4.sin_family = AF_INET;
        first->length = sizeof first->sockaddr.ipv4;
    } else if (inet_pton(AF_INET6, host, &first->sockaddr.ipv6.sin6_addr) == 1) {
        first->sockaddr.ipv6.sin6_family = AF_INET6;
        first->length = sizeof first->sockaddr.ipv6;
    } else {
        return "not an IP address, or one with /PREFIX";
    }
    bytes = bytes_of(first, &size);
    prefix = 8 * size;
    if (slash && (!parse_uint(slash + 1, &prefix) || prefix > 8 * size))
        return size == 4 ? "the prefix is not a number from 0 to 32" : "the prefix is not a number from 0 to 128";
    free_bits = 8 * size - (unsigned)prefix;
    clear_bits(bytes, size, free_bits);
    source->count = addresses(free_bits);
    if (free_bits >= 2) {
        add(bytes, size, 1);
        source->count -= size == 4 ? 2 : 1;
    }
    return NULL;
}

struct address source_address(const struct source *source, uint64_t turn) {
    struct address address = source->first;
    unsigned size;
    unsigned char *bytes = bytes_of(&address, &size);

    add(bytes, size, turn % source->count);
    return address;
}

char *source_format(const struct address *address, char *text) {
    bool ipv4 = address->sockaddr.any.sa_family == AF_INET;
    const void *bytes = ipv4 ? (const void *)&address->sockaddr.ipv4.sin_addr : &address->sockaddr.ipv6.sin6_addr;

    inet_ntop(address->sockaddr.any.sa_family, bytes, text, ADDRESS_TEXT_MAX);
    return text;
}

static bool bind_to(int fd, const struct address *from) {
    int on = 1;

    /* Else bind() takes a port that no other socket of this address has, whatever its destination. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return bind(fd, &from->sockaddr.any, from->length) == 0;
}

/*
 * What a TCP socket keeps over all its connections. The client speaks first: its first bytes acknowledge the target's
 * SYN as well, instead of a packet of its own, which Linux does for TCP_DEFER_ACCEPT on this side, too.
 */
static void prepare(int fd) {
    int wait_s = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &wait_s, sizeof wait_s);
    address_set_reno(fd);
}

int source_connect(const struct source *source, uint64_t turn, const struct address *target, int spare) {
    int fd = spare;

    if (fd < 0)
        fd = socket(target->sockaddr.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (spare < 0 && !address_is_local(target))
        prepare(fd);
    if (source->count > 0) {
        struct address from = source_address(source, turn);
        if (!bind_to(fd, &from))
            return address_give_up(fd);
    }
    if (connect(fd, &target->sockaddr.any, target->length) != 0 && errno != EINPROGRESS)
        return address_give_up(fd);
    return fd;
}

/* Connecting a datagram socket asks the routing table and sends nothing. */
static int check_one(const struct address *from, const struct address *target) {
    int fd = socket(target->sockaddr.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int error = 0;

    if (fd < 0)
        return errno;
    if (bind(fd, &from->sockaddr.any, from->length) != 0 || connect(fd, &target->sockaddr.any, target->length) != 0)
        error = errno;
    close(fd);
    return error;
}

int source_check(const struct source *source, const struct address *target, struct address *culprit) {
    const uint64_t turns[] = {0, source->count - 1};

    *culprit = source->first;
    if (target->sockaddr.any.sa_family != source->first.sockaddr.any.sa_family)
        return EAFNOSUPPORT;
    for (int i = 0; i < 2; i++) {
        *culprit = source_address(source, turns[i]);
        int error = check_one(culprit, target);
        if (error)
            return error;
    }
    return 0;
}
