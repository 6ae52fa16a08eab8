/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_PROLOGUE_H
#define TLSDYNO_ECHO_PROLOGUE_H
/*
 * What a proxy says of its client before the first byte of TLS or HTTP: a PROXY header, or the client's address alone.
 * One that is expected and does not come, or is broken, is an error: to guess would hide a proxy's fault.
 */
#include "received_header.h"

#include <stddef.h>
#include <stdint.h>

enum prologue_kind {
    PROLOGUE_NONE,
    PROLOGUE_PROXY, /* a PROXY header of either version */
    PROLOGUE_IP,   /* the address family in one octet, as this system numbers it, then 4, 16 or (AF_UNSPEC) no octets */
    PROLOGUE_IPV4, /* four octets of IPv4 address */
};

/* All zero is one of which nothing has come. */
struct prologue {
    struct received_header *header; /* PROLOGUE_PROXY */
    uint8_t ip[17];                 /* the others: as it came */
    uint8_t ip_bytes;
};

/* The calls for more are for as long as PROLOGUE_RETRY says that there is more to come. */
enum prologue_result { PROLOGUE_OK, PROLOGUE_RETRY, PROLOGUE_BAD };

/* Takes what is there of it from fd (non-blocking), and nothing behind it. Ends the worker if there is no memory. */
enum prologue_result prologue_receive(struct prologue *prologue, enum prologue_kind kind, int fd);

/* Why it is PROLOGUE_BAD, as one line without its end. */
const char *prologue_complaint(enum prologue_kind kind);

/* Frees what it holds. */
void prologue_drop(struct prologue *prologue);

#endif
