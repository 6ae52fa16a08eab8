/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_HELLO_H
#define TLSDYNO_LIGHT_HELLO_H
/* ClientHello and ServerHello (RFC 8446, 4.1; RFC 5246, 7.4.1). */
#include "bytes.h"
#include "light.h"

enum extension {
    EXTENSION_SERVER_NAME = 0,
    EXTENSION_SUPPORTED_GROUPS = 10,
    EXTENSION_EC_POINT_FORMATS = 11,
    EXTENSION_SIGNATURE_ALGORITHMS = 13,
    EXTENSION_ALPN = 16,
    EXTENSION_EXTENDED_MASTER_SECRET = 23,
    EXTENSION_SESSION_TICKET = 35,
    EXTENSION_PRE_SHARED_KEY = 41,
    EXTENSION_SUPPORTED_VERSIONS = 43,
    EXTENSION_COOKIE = 44,
    EXTENSION_PSK_KEY_EXCHANGE_MODES = 45,
    EXTENSION_KEY_SHARE = 51,
    EXTENSION_RENEGOTIATION_INFO = 0xff01,
};

/* Writes the extensions that are the same in every ClientHello. False: too many names. */
bool hello_prepare(struct light_engine *engine);

/*
 * Writes the ClientHello to handshake->hello. session (may be NULL) is offered if it can be. False: no memory, or it
 * does not fit a record.
 */
bool hello_write(struct light_connection *connection, const char *server_name, const struct session *session);

/*
 * After a HelloRetryRequest: writes the same ClientHello with the share that the handshake now has and the cookie (may
 * be empty). The transcript has what comes before it; it is added there. False as above.
 */
bool hello_rewrite(struct handshake *handshake, struct reader cookie);

struct server_hello {
    int version; /* that was chosen */
    const uint8_t *random;
    struct reader session_id;
    uint16_t suite;
    bool is_retry;               /* HelloRetryRequest */
    uint16_t group;              /* 0: none */
    struct reader share, cookie; /* TLS 1.3; empty: none */
    bool has_psk;
    uint16_t psk;
    bool extended_master_secret, ticket;
    struct reader alpn; /* the extension's body; empty: none */
};

enum alert server_hello_read(struct server_hello *hello, struct reader body);

#endif
