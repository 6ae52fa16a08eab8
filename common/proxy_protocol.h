/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_PROXY_PROTOCOL_H
#define TLSDYNO_PROXY_PROTOCOL_H
/* The PROXY header that a load balancer sends before anything else (haproxy.org, proxy-protocol.txt): made and read. */
#include "address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum proxy_protocol { PROXY_PROTOCOL_NONE, PROXY_PROTOCOL_V1, PROXY_PROTOCOL_V2 };

#define PROXY_PROTOCOL_BYTES_MAX 108 /* section 2.1: 107 and a NUL; version 2 with IPv6 takes 52 */

/* Where version 2 has the length of what follows, in two bytes, and where what follows begins. */
#define PROXY_PROTOCOL_V2_LENGTH_AT 14
#define PROXY_PROTOCOL_V2_FIXED     16

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

struct proxy_protocol_fact {
    size_t length; /* of the header */
    enum proxy_protocol version;
    bool local;                         /* version 2: LOCAL, of the sender itself */
    struct address source, destination; /* length 0: none was given (UNKNOWN, LOCAL), or one of no known family */
    size_t tlvs_at; /* version 2: where in the header the TLVs begin, which are the rest of it; length if none */
};

/*
 * Reads a header of either version from the beginning of bytes, strictly. Returns PROXY_PROTOCOL_WHOLE with *fact
 * filled in; PROXY_PROTOCOL_PART if it is good as far as it goes; PROXY_PROTOCOL_BAD if no continuation could make it
 * one. Of a header of version 2, fact->length is known as soon as its first 16 bytes are there; else it is 0.
 */
enum proxy_protocol_reading { PROXY_PROTOCOL_PART, PROXY_PROTOCOL_WHOLE, PROXY_PROTOCOL_BAD };
enum proxy_protocol_reading proxy_protocol_read(const uint8_t *bytes, size_t length, struct proxy_protocol_fact *fact);

#endif
