/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_STUD_H
#define PROXY_SYNC_STUD_H
/*
 * stud's datagram, one for each new session, in the clear:
 *
 *   session ID, 32 bytes, padded with zeros | ASN.1 of the session, 1..512 | time of birth, 4 | HMAC-SHA1 of these, 20
 *
 * The key of the HMAC is the SHA-1 of the certificate's private key, in DER as its type has it.
 */
#include "sync_counters.h"

#include <stddef.h>
#include <stdint.h>

#define STUD_KEY_BYTES     20
#define STUD_SESSION_BYTES 512
#define STUD_AROUND_BYTES  56 /* ID, time, signature */
#define STUD_PACKET_BYTES  (STUD_AROUND_BYTES + STUD_SESSION_BYTES)

struct stud_session {
    const uint8_t *id, *bytes;
    size_t id_length, length;
    uint32_t born_s; /* CLOCK_REALTIME */
};

/* Makes the datagram and returns its length; 0: the session is too large. */
size_t sync_stud_make(const uint8_t *key, const struct stud_session *session, uint8_t *datagram);

/* SYNC_TAKEN and what is in it, pointing into the datagram, or what is wrong with it. */
enum sync_rejection sync_stud_read(const uint8_t *key, const uint8_t *datagram, size_t length,
                                   struct stud_session *session);

#endif
