/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ENGINE_H
#define TLSDYNO_ENGINE_H
/*
 * What speaks TLS for the load generator. Nothing outside an engine's own source knows which one is in use: a
 * connection and a session are opaque, results are stream_results, reasons are load_errors.
 *
 * An engine is made once, by the master, before the workers are forked: each worker then has its own copy.
 *
 * A connection's life:   open -> handshake... -> (write... read...)... -> end... -> read until STREAM_EOF -> close
 *                        close is right at any moment after open, and so is release.
 */
#include "load_error.h"
#include "stream.h"

#include <stdbool.h>
#include <stddef.h>

enum resume_with { RESUME_WITH_ANY, RESUME_WITH_ID, RESUME_WITH_TICKET };

/* The light engine's: what it sends as its public share of a key exchange (see light/group.h). */
enum key_share_kind { KEY_SHARE_BASE, KEY_SHARE_REUSE, KEY_SHARE_FRESH };

/* With TLS 1.3: the PSK key exchange modes that are offered (RFC 8446, 4.2.9). */
enum psk_mode { PSK_MODE_DHE_KE, PSK_MODE_KE, PSK_MODE_ANY };

struct engine_config {
    int tls_version;     /* the only one to speak; 0: what the library offers */
    const char *cipher;  /* a TLS 1.3 suite, or a list for the older versions; NULL: the library's */
    const char *groups;  /* colon-separated; NULL: the library's */
    const char *sigalgs; /* colon-separated; NULL: the library's */
    const char *alpn;    /* comma-separated; NULL: none is offered */
    bool resume;         /* sessions are wanted; if not, none is asked for or kept */
    enum resume_with resume_with;
    enum key_share_kind key_share;
    enum psk_mode psk_mode;
    bool flush_handshake; /* hold back no part of a handshake: neither write nor end may follow */
    bool verify_peer;
    const char *ca_file; /* NULL: the library's default */
    /* A new session for the slot that owns the connection; it is the callee's to free with session_free. */
    void (*session_arrived)(void *owner, void *session);
};

/* What a handshake agreed on. Names are spelt as in docs/architecture.md; valid until the next call. */
struct engine_facts {
    bool resumed;            /* as the TLS library says */
    bool offered;            /* a session really was in the ClientHello */
    const char *tls_version; /* of negotiated parameters, "" is: none (of groups: a TLS 1.2 resumption, or psk_ke) */
    const char *cipher;
    const char *group;
    const char *sigalg;          /* what the server signed with; IANA's name */
    const char *alpn;            /* the protocol that the server chose of those offered; "": none */
    const char *certificate_key; /* "" where no certificate was sent (resumption) */
    unsigned chain_bytes;        /* DER of all certificates that were sent */
};

struct engine {
    const char *name;
    const char *note;        /* what one must know about its connections, for the result; NULL: nothing */
    size_t connection_bytes; /* the caller provides zeroed, aligned memory of this size, to be used again and again */

    /*
     * fd is a connected, non-blocking socket, the engine's from here on. server_name (may be NULL) is sent as SNI; what
     * is verified is that the certificate is for that, or without one for address, which is a number.
     * session (may be NULL) is offered; it stays the caller's. False: out of memory; fd is closed.
     */
    bool (*open)(struct engine *engine, void *connection, int fd, const char *server_name, const char *address,
                 void *session, void *owner);
    /*
     * One step of the handshake. After STREAM_OK, the last bytes of the handshake may still be held back, to go out
     * together with what the next write or end sends: one of them must follow, unless flush_handshake is set.
     */
    enum stream_result (*handshake)(void *connection);
    enum stream_result (*read)(void *connection, char *bytes, size_t size, size_t *got);
    /* After STREAM_RETRY the same bytes must come again. */
    enum stream_result (*write)(void *connection, const char *bytes, size_t length, size_t *put);
    /* close_notify, then FIN. Reading goes on, and sessions may still arrive. */
    enum stream_result (*end)(void *connection);
    /* EV_READ or EV_WRITE: what the last STREAM_RETRY waits for. */
    int (*wants)(const void *connection);
    /* The class of the last STREAM_ERROR. */
    enum load_error (*why)(const void *connection);
    /* After the handshake, before the connection is closed. */
    void (*facts)(void *connection, struct engine_facts *facts);
    void (*close)(void *connection);
    /* The same, but the socket stays open, and is the caller's: it is returned. */
    int (*release)(void *connection);

    bool (*session_single_use)(const void *session); /* TLS 1.3 tickets, RFC 8446 C.4 */
    void (*session_free)(void *session);
};

/*
 * NULL and *engine set, or one line that says which option's value is refused and why ("--cipher: X: ..."), valid until
 * the next call.
 */
const char *engine_openssl_new(struct engine **engine, const struct engine_config *config);

/* The same; the reason may also be that it does not speak what is asked: engine_openssl_new may. */
const char *engine_light_new(struct engine **engine, const struct engine_config *config);

/* No TLS at all, for http:// targets. Its handshake is always done. */
struct engine *engine_plain_new(void);

#endif
