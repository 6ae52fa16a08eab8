/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_SOURCE_H
#define TLSDYNO_SOURCE_H
/* The local addresses that connections come from, each with ports of its own: a range, used in turn. */
#include "address.h"

#include <stdint.h>

struct source {
    struct address first; /* port 0 */
    uint64_t count;       /* of addresses; 0: whatever the kernel chooses */
};

/*
 * Reads "ADDRESS/PREFIX" (RFC 4632, RFC 4291) or one ADDRESS into a struct source. The addresses of a network that
 * stand for the network and for all of it are left out: of IPv4 the first and the last (not of a /31), of IPv6 the
 * first (not of a /127, RFC 6164). NULL if it is good, else why it is refused.
 */
const char *source_parse(void *source, const char *text);

/* The turn-th address, starting again after the last. */
struct address source_address(const struct source *source, uint64_t turn);

/* Without the port. text holds ADDRESS_TEXT_MAX bytes. Returns text. */
char *source_format(const struct address *address, char *text);

/*
 * Begins to connect, from the turn-th address if there is any. The kernel chooses the port knowing where it is going
 * to. spare is a socket to do it with, which has no address yet, or -1: a new one is made. Returns a non-blocking
 * socket that belongs to the caller, connected or still connecting, or -1 with errno set and spare closed.
 */
int source_connect(const struct source *source, uint64_t turn, const struct address *target, int spare);

/*
 * Whether packets to target may come from there, without sending any: 0, else the errno that says why not. *culprit is
 * set to the address that may not.
 */
int source_check(const struct source *source, const struct address *target, struct address *culprit);

#endif
