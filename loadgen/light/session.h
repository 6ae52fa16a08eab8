/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_SESSION_H
#define TLSDYNO_LIGHT_SESSION_H
/* What is needed to resume: the engine's opaque session. */
#include "suite.h"

#include <stdbool.h>
#include <time.h>

/* A longer ticket would not leave room for its ClientHello in one record. OpenSSL's are some 200 bytes. */
#define TICKET_BYTES_MAX 12000

struct session {
    int version;
    const struct suite *suite;
    uint8_t secret[HASH_BYTES_MAX]; /* TLS 1.3: the PSK; before: the master secret */
    bool extended_master_secret;
    uint8_t id[32]; /* before TLS 1.3, and without ticket */
    uint8_t id_bytes;
    uint16_t ticket_bytes;      /* 0: no ticket */
    uint32_t lifetime_s;        /* TLS 1.3 */
    uint32_t age_add;           /* TLS 1.3 */
    struct timespec arrived_at; /* CLOCK_MONOTONIC_COARSE */
    uint8_t ticket[];
};

/* A copy of the ticket is made; the rest is zero, for the caller to fill in. NULL: no memory, or the ticket is too
 * long. */
struct session *session_new(const uint8_t *ticket, size_t ticket_bytes);

/* Milliseconds since it arrived. */
uint64_t session_age_ms(const struct session *session);

/* TLS 1.3 tickets are for one connection only (RFC 8446, C.4). */
bool session_is_single_use(const struct session *session);

void session_free(struct session *session);

#endif
