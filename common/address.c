/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *parse_local(struct address *address, const char *path) {
    struct sockaddr_un *local = &address->sockaddr.local;

    if (strlen(path) >= sizeof local->sun_path)
        return "the path of a UNIX socket has at most 107 bytes";
    local->sun_family = AF_UNIX;
    memcpy(local->sun_path, path, strlen(path) + 1);
    address->length = sizeof *local;
    return NULL;
}

/* "*": the IPv6 wildcard takes IPv4 connections too, where the machine has IPv6. */
static const char *any_host(void) {
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return "0.0.0.0";
    close(fd);
    return "::";
}

#define HOST_BYTES 256

/* Parts "HOST:PORT" in all its spellings; *port stays in text. NULL, or why it is refused. */
static const char *part(const char *text, char *host, const char **port_in_text) {
    const char *port;
    size_t length;

    if (*text == '[') {
        const char *end = strchr(text, ']');
        if (!end || (end[1] != ':' && end[1] != ','))
            return "not [HOST]:PORT";
        port = end + 2;
        text++;
        length = (size_t)(end - text);
    } else {
        port = strrchr(text, ',');
        if (!port)
            port = strrchr(text, ':');
        if (!port)
            return "not HOST:PORT or a path that begins with /";
        length = (size_t)(port - text);
        port++;
        if (memchr(text, ':', length))
            return "an IPv6 address goes in brackets: [HOST]:PORT";
    }
    if (length >= HOST_BYTES)
        return "the host name is too long";
    memcpy(host, text, length);
    host[length] = '\0';
    if (!*port || strspn(port, "0123456789") != strlen(port) || strlen(port) > 5)
        return "the port is not a number";
    if (strtol(port, NULL, 10) > 65535)
        return "the port is over 65535";
    if (length == 0 || strcmp(host, "*") == 0)
        memcpy(host, any_host(), strlen(any_host()) + 1);
    *port_in_text = port;
    return NULL;
}

static const char *resolve(struct address_list *list, const char *text, int flags) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    struct addrinfo *found;
    char host[HOST_BYTES];
    const char *port, *reason;
    int error;

    memset(list, 0, sizeof *list);
    if (*text == '/') {
        list->count = 1;
        return parse_local(&list->address[0], text);
    }
    reason = part(text, host, &port);
    if (reason)
        return reason;
    error = getaddrinfo(host, port, &hints, &found);
    if (error == EAI_NONAME && flags & AI_NUMERICHOST)
        return NULL;
    if (error)
        return gai_strerror(error);
    for (const struct addrinfo *one = found; one && list->count < ADDRESS_LIST_MAX; one = one->ai_next) {
        struct address *address = &list->address[list->count++];
        memcpy(&address->sockaddr, one->ai_addr, one->ai_addrlen);
        address->length = one->ai_addrlen;
    }
    freeaddrinfo(found);
    return NULL;
}

const char *address_resolve(struct address_list *list, const char *text) {
    return resolve(list, text, 0);
}

const char *address_resolve_number(struct address_list *list, const char *text) {
    return resolve(list, text, AI_NUMERICHOST);
}

const char *address_parse(struct address *address, const char *text) {
    struct address_list list;
    const char *reason = address_resolve(&list, text);

    *address = list.address[0];
    return reason;
}

bool address_is_equal(const struct address *one, const struct address *other) {
    return one->length == other->length && memcmp(&one->sockaddr, &other->sockaddr, one->length) == 0;
}

bool address_has_port_0(const struct address *address) {
    /* sin_port and sin6_port are in the same place. */
    return !address_is_local(address) && address->sockaddr.ipv4.sin_port == 0;
}

void address_unmap(struct address *address) {
    const struct sockaddr_in6 mapped = address->sockaddr.ipv6;
    struct sockaddr_in *ipv4 = &address->sockaddr.ipv4;

    if (mapped.sin6_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&mapped.sin6_addr))
        return;
    *ipv4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = mapped.sin6_port};
    memcpy(&ipv4->sin_addr, mapped.sin6_addr.s6_addr + 12, sizeof ipv4->sin_addr);
    address->length = sizeof *ipv4;
}

char *address_format(const struct address *address, char *text) {
    char host[INET6_ADDRSTRLEN];

    switch (address->sockaddr.any.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &address->sockaddr.ipv4.sin_addr, host, sizeof host);
        snprintf(text, ADDRESS_TEXT_MAX, "%s:%u", host, ntohs(address->sockaddr.ipv4.sin_port));
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &address->sockaddr.ipv6.sin6_addr, host, sizeof host);
        snprintf(text, ADDRESS_TEXT_MAX, "[%s]:%u", host, ntohs(address->sockaddr.ipv6.sin6_port));
        break;
    case AF_UNIX:
        snprintf(text, ADDRESS_TEXT_MAX, "%s", address->sockaddr.local.sun_path);
        break;
    default:
        snprintf(text, ADDRESS_TEXT_MAX, "?");
    }
    return text;
}

bool address_is_local(const struct address *address) {
    return address->sockaddr.any.sa_family == AF_UNIX;
}

bool address_is_loopback(const struct address *address) {
    const struct in6_addr *ipv6 = &address->sockaddr.ipv6.sin6_addr;

    switch (address->sockaddr.any.sa_family) {
    case AF_INET:
        return ntohl(address->sockaddr.ipv4.sin_addr.s_addr) >> 24 == 127;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(ipv6) || (IN6_IS_ADDR_V4MAPPED(ipv6) && ipv6->s6_addr[12] == 127);
    default:
        return true;
    }
}

void address_set_nodelay(int fd) {
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void address_set_keepalive(int fd, int idle_s) {
    int on = 1;

    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
}

void address_refuse_new(int fd) {
    /* What comes to a listening socket begins with TCP's header: its flags are in byte 13, and SYN is 2. */
    struct sock_filter drop_syn[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    const struct sock_fprog program = {.len = sizeof drop_syn / sizeof *drop_syn, .filter = drop_syn};

    setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

void address_let_in(int fd) {
    int unused = 0;

    setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused);
}

void address_set_reno(int fd) {
    static const char name[] = "reno"; /* of all algorithms, the one that is in every kernel */

    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, sizeof name - 1);
}

static int new_socket(const struct address *address) {
    return socket(address->sockaddr.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

int address_give_up(int fd) {
    int error = errno;

    close(fd);
    errno = error;
    return -1;
}

/* True if a socket file is there and nobody answers on it. */
static bool is_stale_socket_file(const struct address *address) {
    struct stat file;
    bool stale;
    int fd;

    /* connect() to an ordinary file is ECONNREFUSED as well. */
    if (lstat(address->sockaddr.local.sun_path, &file) != 0 || !S_ISSOCK(file.st_mode))
        return false;
    fd = new_socket(address);
    if (fd < 0)
        return false;
    stale = connect(fd, &address->sockaddr.any, address->length) != 0 && errno == ECONNREFUSED;
    close(fd);
    return stale;
}

/* -1 with EADDRINUSE if somebody else uses the address: SO_REUSEPORT would let two programs share it unawares. */
static int probe_free(const struct address *address) {
    int on = 1, fd = new_socket(address);

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    address_refuse_new(fd); /* a connection would be reset at once */
    if (bind(fd, &address->sockaddr.any, address->length) != 0 || listen(fd, 1) != 0)
        return address_give_up(fd);
    close(fd);
    return 0;
}

static int listen_one(struct address *address, int backlog, bool share, bool shut) {
    int on = 1, fd = new_socket(address);

    if (fd < 0)
        return -1;
    if (!address_is_local(address)) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        address_set_nodelay(fd); /* on Linux the accepted sockets inherit it: no system call for each */
        if (share && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
            return address_give_up(fd);
        if (shut)
            address_refuse_new(fd);
    }
    if (bind(fd, &address->sockaddr.any, address->length) != 0 || listen(fd, backlog) != 0)
        return address_give_up(fd);
    if (!address_is_local(address)) {
        address->length = sizeof address->sockaddr;
        getsockname(fd, &address->sockaddr.any, &address->length);
    }
    return fd;
}

static bool listen_all(struct address *address, int backlog, int *fds, int count, bool shut) {
    bool local = address_is_local(address), share = !local && count > 1;

    if (local && is_stale_socket_file(address))
        unlink(address->sockaddr.local.sun_path);
    if (share && probe_free(address) != 0)
        return false;
    for (int i = 0; i < count; i++) {
        fds[i] = local && i > 0 ? fds[0] : listen_one(address, backlog, share, shut);
        if (fds[i] >= 0)
            continue;
        while (i-- > 0)
            address_give_up(fds[i]);
        return false;
    }
    return true;
}

bool address_listen(struct address *address, int backlog, int *fds, int count) {
    return listen_all(address, backlog, fds, count, false);
}

bool address_listen_shut(struct address *address, int backlog, int *fds, int count) {
    return listen_all(address, backlog, fds, count, true);
}

int address_connect(const struct address *address) {
    int fd = new_socket(address);

    if (fd < 0)
        return -1;
    if (connect(fd, &address->sockaddr.any, address->length) != 0 && errno != EINPROGRESS)
        return address_give_up(fd);
    if (!address_is_local(address))
        address_set_nodelay(fd);
    return fd;
}
