/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_FLIGHT_BIO_H
#define TLSDYNO_FLIGHT_BIO_H
/*
 * The sending side of an OpenSSL client's socket, which keeps the client's last handshake flight (its Finished in TLS
 * 1.3 and in a resumption) until there is something to send with it. OpenSSL flushes each flight by itself: without
 * this, Finished and the first request are two segments, and the server is woken for each. It saves the client one
 * system call, some 4 us.
 */
#include <openssl/ssl.h>
#include <stdbool.h>

/* Replaces what ssl writes to. fd stays the caller's. False: out of memory. */
bool flight_bio_attach(SSL *ssl, int fd);

#endif
