/* SPDX-License-Identifier: MIT */
#ifndef PROXY_ALPN_H
#define PROXY_ALPN_H
/*
 * Application-Layer Protocol Negotiation, RFC 7301; and what there was before it, Next Protocol Negotiation, in which
 * the server shows its list and the client chooses (TLS 1.2 and before).
 */
#include <openssl/ssl.h>
#include <stdint.h>

#define ALPN_BYTES_MAX 1024

/* Protocols in the order of preference, as they are on the wire: each with a byte before it that is its length. */
struct alpn {
    uint8_t wire[ALPN_BYTES_MAX];
    unsigned length; /* 0: none */
};

/* Of "h2,http/1.1", or "h2, http/1.1". NULL, or why not. */
const char *alpn_parse(struct alpn *alpn, const char *list);

/*
 * A server's choice: the first of ours that the client has too. A client that has none of them gets the alert
 * no_application_protocol, one that has no ALPN is served without. alpn must outlive the context.
 */
void alpn_serve(SSL_CTX *context, const struct alpn *alpn);

/* What was agreed in either way, always one of ours; *length 0: nothing. */
void alpn_agreed(const SSL *ssl, const unsigned char **name, unsigned *length);

#endif
