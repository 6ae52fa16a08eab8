/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_SOCKET_BIO_H
#define TLSDYNO_SOCKET_BIO_H
/*
 * What the TLS library reads from and writes to: a non-blocking socket. The library's own cannot be told that more
 * follows: several records of one answer, or a close_notify and the FIN, then leave as several segments, and the peer
 * is woken for each.
 */
#include <openssl/bio.h>
#include <stdbool.h>

/* fd stays the caller's. NULL: no memory. */
BIO *socket_bio_new(int fd);

/* more: what is written from here on is of no use without what is written, or the FIN, right after it (MSG_MORE). */
void socket_bio_more(BIO *bio, bool more);

#endif
