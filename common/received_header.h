/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_RECEIVED_HEADER_H
#define TLSDYNO_RECEIVED_HEADER_H
/* A PROXY header as it arrives on a socket, with not one byte taken of what follows it. */
#include "proxy_protocol.h"

#include <stddef.h>
#include <stdint.h>

/* The longest that is taken: TLVs with a client's certificate among them. */
#define PROXY_HEADER_BYTES_MAX 16384

/* As far as it has come. */
struct received_header {
    size_t length;
    uint8_t bytes[];
};

enum header_result { HEADER_OK, HEADER_RETRY, HEADER_BAD, HEADER_NO_MEMORY };

/*
 * Takes what is there of the header from fd (non-blocking). *header is NULL to begin with and belongs to the caller
 * (free). HEADER_OK: it is all there, and *fact is what it says; HEADER_BAD: it is none, is too long, or the peer has
 * gone.
 */
enum header_result received_header_take(struct received_header **header, int fd, struct proxy_protocol_fact *fact);

#endif
