/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_SIGALG_H
#define TLSDYNO_LIGHT_SIGALG_H
/* Signature schemes (RFC 8446, 4.2.3) by name: the light engine offers and reports them, and never checks one. */
#include <stddef.h>
#include <stdint.h>

#define SIGALGS_MAX 32

/* IANA's name; "" for 0, "unknown" for what has no name here. */
const char *sigalg_name(uint16_t id);

/* Of IANA's name, or of OpenSSL's "RSA-PSS+SHA256" and its like. 0: unknown. */
uint16_t sigalg_by_name(const char *name, size_t length);

/* What OpenSSL's clients offer, in their order, so that servers sign as they do for them. Returns how many. */
int sigalgs_default(uint16_t list[SIGALGS_MAX]);

/* Before TLS 1.2 there is nothing to choose: what such a name stands for in a report. */
#define SIGALG_RSA_MD5_SHA1 0xff01
#define SIGALG_ECDSA_SHA1   0x0203

#endif
