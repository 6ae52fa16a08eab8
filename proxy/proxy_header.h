/* SPDX-License-Identifier: MIT */
#ifndef PROXY_PROXY_HEADER_H
#define PROXY_PROXY_HEADER_H
/*
 * What the backend hears before anything that the client sends: who the client is. In either role it goes out in the
 * clear, as the first bytes of the connection to the backend.
 */
#include "address.h"
#include "received_header.h"
#include "settings.h"

#include <openssl/ssl.h>
#include <stddef.h>

/* Without --proxy-proxy's: the facts are those of the connection itself, with the name that the client asked for if
 * authority is true. ssl is NULL where the client speaks in the clear. Returns the length, at most
 * PROXY_HEADER_BYTES_MAX. */
size_t proxy_header_make(char *bytes, enum proxy_header_kind kind, bool authority, const struct address *client,
                         int client_fd, SSL *ssl);

/*
 * Takes the bytes of the header, and not one of those behind it, from the socket. *header is NULL to begin with and
 * belongs to the caller (free). HEADER_OK: it is all there, and *client is the address that it names, if it names one.
 */
enum header_result proxy_header_receive(struct received_header **header, int fd, struct address *client);

#endif
