/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_HANDSHAKE_H
#define TLSDYNO_LIGHT_HANDSHAKE_H
/* Handshake messages: what came is judged by the state, and what is to be said is put in connection->unsent. */
#include "bytes.h"
#include "hello.h"

enum message_type {
    MESSAGE_HELLO_REQUEST = 0,
    MESSAGE_CLIENT_HELLO = 1,
    MESSAGE_SERVER_HELLO = 2,
    MESSAGE_NEW_SESSION_TICKET = 4,
    MESSAGE_ENCRYPTED_EXTENSIONS = 8,
    MESSAGE_CERTIFICATE = 11,
    MESSAGE_SERVER_KEY_EXCHANGE = 12,
    MESSAGE_CERTIFICATE_REQUEST = 13,
    MESSAGE_SERVER_HELLO_DONE = 14,
    MESSAGE_CERTIFICATE_VERIFY = 15,
    MESSAGE_CLIENT_KEY_EXCHANGE = 16,
    MESSAGE_FINISHED = 20,
    MESSAGE_KEY_UPDATE = 24,
    MESSAGE_HASH = 254,
};

#define MESSAGE_HEADER_BYTES 4

/* One whole message. */
struct message {
    uint8_t type;
    const uint8_t *bytes; /* with its header */
    size_t length;
    struct reader body;
    bool is_last; /* of its record: no byte follows. Keys change only after such a one. */
};

/* legacy_version of its ClientHellos. */
int engine_hello_version(const struct light_engine *engine);

bool engine_offers_suite(const struct light_engine *engine, const struct suite *suite);

/* A handshake to begin with; NULL: no memory. Given back by handshake_give. */
struct handshake *handshake_take(struct light_engine *engine);
void handshake_give(struct light_engine *engine, struct handshake *handshake);
void handshakes_free(struct light_engine *engine);

/* Any message, during the handshake and after. NO_ALERT, or what is wrong with it. */
enum alert handshake_receive(struct light_connection *connection, const struct message *message);

/* ChangeCipherSpec of TLS 1.2 and before. */
enum alert handshake_change_cipher_spec(struct light_connection *connection);

/* ---- For handshake12.c and handshake13.c ---- */

enum alert handshake12_server_hello(struct light_connection *connection, const struct server_hello *hello,
                                    const struct message *message);
enum alert handshake12_receive(struct light_connection *connection, const struct message *message);
enum alert handshake13_server_hello(struct light_connection *connection, const struct server_hello *hello,
                                    const struct message *message);
enum alert handshake13_receive(struct light_connection *connection, const struct message *message);
/* After the handshake. */
enum alert handshake12_receive_late(struct light_connection *connection, const struct message *message);
enum alert handshake13_receive_late(struct light_connection *connection, const struct message *message);

/* Begins the transcript: with the ClientHello. */
void transcript_begin(struct handshake *handshake, enum hash_kind hash);
void transcript_add(struct handshake *handshake, const struct message *message);

/* The Certificate's list: what there is to know about it. */
enum alert handshake_certificate(struct light_connection *connection, struct reader list, bool has_extensions);

/* The body of the server's ALPN extension (RFC 7301, 3.1): one of the names that were offered. */
enum alert handshake_alpn(struct light_connection *connection, struct reader body);

/* A handshake message of ours: to the transcript and to unsent. */
bool handshake_send(struct light_connection *connection, const uint8_t *message, size_t length);

/* All is agreed and checked: the struct handshake is given back. */
void handshake_done(struct light_connection *connection);

/* Hands a new session over, if it is wanted (takes it in any case). */
void handshake_deliver_session(struct light_connection *connection, struct session *session);

#endif
