/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_MESSAGE_H
#define PROXY_SYNC_MESSAGE_H
/*
 * What hosts tell each other, inside a sealed datagram: in one of SYNC_TO_ONE first the addressee, as it calls itself
 * when it sends, 16 bytes; then any number of messages, each
 *
 *   kind, 1 byte | length, 2 | body
 *
 * A kind that is not known is passed over, so that a later version may add some.
 */
#include "bytes.h"
#include "sync_packet.h"
#include "sync_session.h"
#include "ticket_key_file.h"

enum sync_kind {
    SYNC_CHALLENGE = 1, /* to one: prove that you are alive. nonce */
    SYNC_PROOF,         /* the answer. nonce, number: the next of SYNC_TO_ALL */
    SYNC_NEW,           /* expires_ms, session (sync_session.h), length of id, its place in session, or none and id */
    SYNC_DEL,           /* expires_ms: until when it is to be remembered; id */
    SYNC_GET,           /* id: whoever has it is asked for it */
    SYNC_CATCH_UP,      /* to one: what do you have from here on? number: 0 at first, then what SYNC_CAUGHT_UP says */
    SYNC_CAUGHT_UP,     /* the answer, before sessions. number: as asked; next: where to go on, 0 at the end */
    SYNC_TICKET_KEY,    /* expires_ms, key_use, key */
};

enum sync_key_use { SYNC_KEY_NEXT, SYNC_KEY_SEALS, SYNC_KEY_OPENS };

/* Fields that the kind does not name are not read or written. Dates are of the sender's clock. */
struct sync_message {
    uint8_t kind;
    uint64_t expires_ms;
    const uint8_t *id; /* 1..32 bytes */
    size_t id_length;
    const uint8_t *session;
    size_t session_length;
    const uint8_t *nonce;
    uint64_t number, next;
    uint8_t key_use;
    struct ticket_key key; /* the reader's to wipe */
};

#define SYNC_NONCE_BYTES 16

/*
 * True: it is written. False: no room; nothing was. before: the session before this message in the same datagram, of
 * length 0 at its beginning, and then this function's own; NULL where no other session is written to it.
 */
bool sync_message_write(struct writer *writer, struct sync_session *before, const struct sync_message *message);

/*
 * True: the next message that is known, which points into what is read, and into before, which is as above. False:
 * there is no other, and reader->failed if what is there is none.
 */
bool sync_message_read(struct reader *reader, struct sync_session *before, struct sync_message *message);

#endif
