/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_H
#define TLSDYNO_LIGHT_H
/*
 * What the parts of the light engine share: its state and that of a connection.
 *
 * A connection of this engine has NO SECRECY AT ALL: whoever sees its packets can read it. It exists to put on a server
 * the work of a handshake, at next to no cost here.
 *
 * A connection that waits holds little: keys, and what is at hand of a record or a message that is not complete. What
 * only a handshake needs lies in a struct handshake, taken from a pool and given back. Bytes are read into and built in
 * buffers of the process.
 */
#include "../engine.h"
#include "alert.h"
#include "certificate.h"
#include "chunk.h"
#include "group.h"
#include "key_schedule.h"
#include "record.h"
#include "session.h"
#include "sigalg.h"

#include <stdbool.h>
#include <stdint.h>

#define SCRATCH_BYTES       (80 * 1024)
#define GROUPS_MAX          4
#define MESSAGE_BYTES_MAX   (256 * 1024) /* of one handshake message: a chain of certificates */
#define HANDSHAKE_BYTES_MAX (512 * 1024) /* of all messages of a handshake */
#define POOLED_MAX          256          /* handshakes kept for the next, some 3 KiB each */
#define EMPTY_RECORDS_MAX   32           /* in a row; as OpenSSL */
#define WARNINGS_MAX        5            /* of a connection; as OpenSSL, but there in a row */

/* What the handshake waits for. */
enum expect {
    EXPECT_SERVER_HELLO,
    /* TLS 1.3 */
    EXPECT_ENCRYPTED_EXTENSIONS,
    EXPECT_CERTIFICATE_OR_REQUEST,
    EXPECT_CERTIFICATE,
    EXPECT_CERTIFICATE_VERIFY,
    EXPECT_FINISHED,
    /* Before */
    EXPECT_CERTIFICATE12,
    EXPECT_SERVER_KEY_EXCHANGE,
    EXPECT_REQUEST_OR_DONE,
    EXPECT_HELLO_DONE,
    EXPECT_TICKET_OR_CCS,
    EXPECT_CCS,
    EXPECT_FINISHED12,
};

/* A handshake at work. */
struct handshake {
    struct handshake *next; /* in the pool */
    enum expect expect;
    uint32_t received_bytes; /* of messages */
    uint8_t client_random[32], server_random[32];
    uint8_t session_id[32]; /* ours */
    uint8_t session_id_bytes;

    /* The ClientHello, with room for its record's header before it: its hash must wait until the suite is known. */
    uint8_t *hello;
    size_t hello_bytes, hello_size; /* without, with that room */
    bool hello_sent;
    struct hash transcript;
    bool retried; /* HelloRetryRequest */
    bool certificate_requested;

    const struct key_share *share; /* that was sent */
    struct key_share own_share;    /* KEY_SHARE_FRESH: share points here */

    /* The session that is offered; offered_suite NULL: none is. */
    const struct suite *offered_suite;
    int offered_version;
    bool offered_ticket, offered_extended_master_secret;
    uint8_t offered_secret[HASH_BYTES_MAX];

    bool extended_master_secret, ticket_expected; /* before TLS 1.3 */
    struct session *new_session;                  /* before TLS 1.3: with its ticket, until Finished */

    /* A ClientHello may offer both; a PSK's early secret is of no more use when the server has chosen an older one. */
    union {
        struct { /* TLS 1.3 */
            struct key_schedule early, schedule;
            uint8_t server_secret[HASH_BYTES_MAX], client_secret[HASH_BYTES_MAX];
        };
        struct { /* before */
            uint8_t master[48];
            uint8_t server_id[32];
            uint8_t server_id_bytes;
            const uint8_t *premaster; /* RSA key exchange: the engine's; else own_premaster */
            size_t premaster_bytes;
            uint8_t own_premaster[GROUP_SECRET_MAX];
            struct prf prf;                     /* of the master secret */
            struct direction next_in, next_out; /* that ChangeCipherSpec puts in use */
        };
    };
};

struct light_connection {
    struct light_engine *engine;
    void *owner;
    int fd;
    int wants;
    enum load_error error;
    struct handshake *handshake; /* NULL: done, or failed */
    struct direction in, out;

    struct chunk received; /* records, the last one not complete */
    struct chunk message;  /* a handshake message that is not complete */
    struct chunk plain;    /* application data that did not fit the reader's buffer */
    uint32_t plain_at;
    struct chunk unsent; /* records */
    size_t unsent_taken; /* of the writer's bytes, those in unsent; 0: none, or it has been told */

    bool established;
    bool received_end;
    bool sent_end;   /* close_notify, or a fatal alert either way: no more is said */
    bool shut;       /* FIN */
    bool drained;    /* the last recv() took all there was */
    bool key_update; /* one of ours must come before the next application data */
    uint8_t empty_records, warnings;

    uint8_t resumption_secret[HASH_BYTES_MAX]; /* TLS 1.3 */

    /* For facts. */
    bool resumed, offered;
    uint16_t sigalg;
    const uint8_t *alpn; /* in the engine's list: a length, and a name; NULL: none was agreed */
    const struct suite *suite;
    const struct group *group; /* NULL: no key was exchanged (psk_ke too), or by RSA */
    int version;
    const struct certificate_seen *certificate; /* NULL: none came */
    uint32_t chain_bytes;
};

struct light_engine {
    struct engine engine;
    struct engine_config config;
    int min_version, max_version;
    const struct suite *suites[SUITES_MAX];
    int suite_count;
    const struct group *groups[GROUPS_MAX];
    struct key_share shares[GROUPS_MAX]; /* base or reuse */
    int group_count;
    uint16_t sigalgs[SIGALGS_MAX];
    int sigalg_count;
    uint8_t alpn[256]; /* protocol names as on the wire */
    size_t alpn_bytes;
    uint8_t extensions[512]; /* those that are the same in every ClientHello */
    size_t extensions_bytes;

    struct certificates certificates;
    struct handshake *pool;
    int pooled;
    uint8_t in[SCRATCH_BYTES]; /* what the connection at work has received */
    size_t in_at, in_end;
    uint8_t out[SCRATCH_BYTES]; /* what the connection at work is about to send */
};

#endif
