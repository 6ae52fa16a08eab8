/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ADDRESS_H
#define TLSDYNO_ADDRESS_H
/* Where to listen and where to connect: IPv4, IPv6 and UNIX sockets behind one type. */
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ADDRESS_TEXT_MAX 128

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in ipv4;
        struct sockaddr_in6 ipv6;
        struct sockaddr_un local;
    } sockaddr;
    socklen_t length;
};

#define ADDRESS_LIST_MAX 16

/* All that a name stands for. */
struct address_list {
    int count;
    struct address address[ADDRESS_LIST_MAX];
};

/*
 * Reads "HOST:PORT", "[HOST]:PORT", stud's "HOST,PORT", "*:PORT" (every local address) or "/path.sock". A host name is
 * resolved now and its first address taken. NULL if it is good, else why it is refused.
 */
const char *address_parse(struct address *address, const char *text);

/* The same, with every address of the name, the first ADDRESS_LIST_MAX of them. */
const char *address_resolve(struct address_list *list, const char *text);

/*
 * The same, but nobody is asked: a host that is a name, and not a number, gives an empty list. What is wrong with the
 * spelling is told all the same.
 */
const char *address_resolve_number(struct address_list *list, const char *text);

bool address_is_equal(const struct address *one, const struct address *other);

/* That of a TCP address which asks for any free port. */
bool address_has_port_0(const struct address *address);

/* An IPv4 peer of an IPv6 socket (::ffff:a.b.c.d) becomes what it is; any other address stays as it is. */
void address_unmap(struct address *address);

/* "127.0.0.1:80", "[::1]:80" or "/path.sock"; text holds ADDRESS_TEXT_MAX bytes. Returns text. */
char *address_format(const struct address *address, char *text);

/*
 * Fills fds with count non-blocking, close-on-exec sockets that listen on address, one for each worker, so that each
 * has a queue of its own (SO_REUSEPORT), and accepted sockets have TCP_NODELAY; of a UNIX socket there is only one, so
 * all entries are the same descriptor. An address that somebody else uses is EADDRINUSE. Port 0 is replaced in *address
 * by the port that was given. A UNIX socket file that nobody listens on any more is replaced. False with errno set on
 * failure; nothing is left open then.
 */
bool address_listen(struct address *address, int backlog, int *fds, int count);

/*
 * The same, but of TCP sockets as if address_refuse_new had been called before anybody could come; it is over with
 * address_let_in. Who tries meanwhile tries again a second later.
 */
bool address_listen_shut(struct address *address, int backlog, int *fds, int count);
void address_let_in(int fd);

/* A non-blocking socket on its way to address (errno EINPROGRESS is not an error here); -1 with errno set on failure.
 */
int address_connect(const struct address *address);

/* Closes a socket that came to nothing, but keeps the errno that says why. Returns -1. */
int address_give_up(int fd);

bool address_is_local(const struct address *address); /* a UNIX socket */
bool address_is_loopback(const struct address *address);

/* Small writes leave at once (TCP_NODELAY); nothing to do on UNIX sockets. */
void address_set_nodelay(int fd);

/*
 * A listening TCP socket answers nobody from here on who is not connecting already, where the system can do that: who
 * has begun is accepted still, and who tries until the socket is closed will try again a second later and be refused.
 */
void address_refuse_new(int fd);

/*
 * A peer that is silent for so long is probed, RFC 1122, 4.2.3.6. Set on a listening TCP socket, it is so for all that
 * are accepted from there on.
 */
void address_set_keepalive(int fd, int idle_s);

/*
 * Congestion control by Reno (RFC 5681), whatever the system's default is: on a path without loss it is as good as any,
 * it costs the least, and no pacing comes between the program and its peer. Set on a listening TCP socket, it is so for
 * all that are accepted from there on.
 */
void address_set_reno(int fd);

#endif
