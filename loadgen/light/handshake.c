/* SPDX-License-Identifier: MIT */
#include "handshake.h"

#include "connection.h"

#include <openssl/ssl.h>
#include <stdlib.h>

int engine_hello_version(const struct light_engine *engine) {
    return engine->max_version >= TLS1_3_VERSION ? TLS1_2_VERSION : engine->max_version;
}

bool engine_offers_suite(const struct light_engine *engine, const struct suite *suite) {
    for (int i = 0; i < engine->suite_count; i++)
        if (engine->suites[i] == suite)
            return true;
    return false;
}

/* ---- The pool ---- */

struct handshake *handshake_take(struct light_engine *engine) {
    struct handshake *handshake = engine->pool;

    if (!handshake)
        return calloc(1, sizeof *handshake);
    engine->pool = handshake->next;
    engine->pooled--;
    return handshake;
}

static void free_handshake(struct handshake *handshake) {
    free(handshake->hello);
    free(handshake);
}

/* What the next one begins with: not all of it is cleared, as most is written before it is read. */
void handshake_give(struct light_engine *engine, struct handshake *handshake) {
    key_share_free(&handshake->own_share);
    session_free(handshake->new_session);
    handshake->new_session = NULL;
    handshake->expect = EXPECT_SERVER_HELLO;
    handshake->received_bytes = 0;
    handshake->hello_sent = handshake->retried = handshake->certificate_requested = false;
    handshake->extended_master_secret = handshake->ticket_expected = false;
    if (engine->pooled == POOLED_MAX) {
        free_handshake(handshake);
        return;
    }
    engine->pooled++;
    handshake->next = engine->pool;
    engine->pool = handshake;
}

void handshakes_free(struct light_engine *engine) {
    while (engine->pool) {
        struct handshake *handshake = engine->pool;
        engine->pool = handshake->next;
        free_handshake(handshake);
    }
}

/* ---- For both kinds ---- */

void transcript_begin(struct handshake *handshake, enum hash_kind hash) {
    hash_begin(&handshake->transcript, hash);
    hash_add(&handshake->transcript, handshake->hello + RECORD_HEADER_BYTES, handshake->hello_bytes);
}

void transcript_add(struct handshake *handshake, const struct message *message) {
    hash_add(&handshake->transcript, message->bytes, message->length);
}

enum alert handshake_certificate(struct light_connection *connection, struct reader list, bool has_extensions) {
    connection->certificate =
        certificates_look(&connection->engine->certificates, list, has_extensions, &connection->chain_bytes);
    return connection->certificate ? NO_ALERT : ALERT_DECODE_ERROR;
}

enum alert handshake_alpn(struct light_connection *connection, struct reader body) {
    const struct light_engine *engine = connection->engine;
    struct reader list = reader_vector(&body, 2), name = reader_vector(&list, 1);

    if (!reader_is_done(&body) || !reader_is_done(&list) || name.left == 0)
        return ALERT_DECODE_ERROR;
    if (engine->alpn_bytes == 0)
        return ALERT_UNSUPPORTED_EXTENSION;
    for (const uint8_t *at = engine->alpn; at < engine->alpn + engine->alpn_bytes; at += 1 + *at)
        if (*at == name.left && memcmp(at + 1, name.at, name.left) == 0)
            connection->alpn = at;
    return connection->alpn ? NO_ALERT : ALERT_ILLEGAL_PARAMETER;
}

bool handshake_send(struct light_connection *connection, const uint8_t *message, size_t length) {
    hash_add(&connection->handshake->transcript, message, length);
    return connection_queue(connection, CONTENT_HANDSHAKE, message, length);
}

void handshake_done(struct light_connection *connection) {
    handshake_give(connection->engine, connection->handshake);
    connection->handshake = NULL;
    connection->established = true;
}

void handshake_deliver_session(struct light_connection *connection, struct session *session) {
    const struct engine_config *config = &connection->engine->config;
    bool wanted = config->resume;

    if (!session)
        return;
    if (session->version < TLS1_3_VERSION &&
        ((config->resume_with == RESUME_WITH_TICKET && session->ticket_bytes == 0) ||
         (config->resume_with == RESUME_WITH_ID && session->ticket_bytes > 0)))
        wanted = false;
    if (wanted)
        config->session_arrived(connection->owner, session);
    else
        session_free(session);
}

/* ---- What comes ---- */

/* RFC 8446, 4.1.3: a server that could speak TLS 1.3 says so at the end of its random bytes. */
static bool is_downgrade(const uint8_t *random) {
    static const uint8_t mark[7] = {'D', 'O', 'W', 'N', 'G', 'R', 'D'};

    return memcmp(random + 32 - 8, mark, sizeof mark) == 0 && random[31] <= 1;
}

static enum alert receive_server_hello(struct light_connection *connection, const struct message *message) {
    const struct light_engine *engine = connection->engine;
    struct server_hello hello;
    enum alert alert;

    if (message->type != MESSAGE_SERVER_HELLO)
        return ALERT_UNEXPECTED_MESSAGE;
    alert = server_hello_read(&hello, message->body);
    if (alert != NO_ALERT)
        return alert;
    if (hello.version < engine->min_version || hello.version > engine->max_version ||
        (hello.is_retry && hello.version < TLS1_3_VERSION))
        return ALERT_PROTOCOL_VERSION;
    if (connection->handshake->retried && hello.version < TLS1_3_VERSION)
        return ALERT_ILLEGAL_PARAMETER;
    const struct suite *suite = suite_by_id(hello.suite);
    if (!suite || !engine_offers_suite(engine, suite) || !suite_speaks(suite, hello.version))
        return ALERT_ILLEGAL_PARAMETER;
    /* RFC 8446, 4.1.4: what a HelloRetryRequest chose stays chosen. */
    if (connection->handshake->retried && suite != connection->suite)
        return ALERT_ILLEGAL_PARAMETER;
    if (hello.version < TLS1_3_VERSION && engine->max_version >= TLS1_3_VERSION && is_downgrade(hello.random))
        return ALERT_ILLEGAL_PARAMETER;
    connection->version = hello.version;
    connection->suite = suite;
    memcpy(connection->handshake->server_random, hello.random, 32);
    if (hello.version >= TLS1_3_VERSION)
        return handshake13_server_hello(connection, &hello, message);
    connection->in.version = connection->out.version = hello.version;
    return handshake12_server_hello(connection, &hello, message);
}

enum alert handshake_receive(struct light_connection *connection, const struct message *message) {
    struct handshake *handshake = connection->handshake;

    if (connection->established)
        return connection->version >= TLS1_3_VERSION ? handshake13_receive_late(connection, message)
                                                     : handshake12_receive_late(connection, message);
    if (!handshake)
        return ALERT_UNEXPECTED_MESSAGE;
    handshake->received_bytes += (uint32_t)message->length;
    if (handshake->received_bytes > HANDSHAKE_BYTES_MAX)
        return ALERT_ILLEGAL_PARAMETER;
    if (handshake->expect == EXPECT_SERVER_HELLO)
        return receive_server_hello(connection, message);
    return connection->version >= TLS1_3_VERSION ? handshake13_receive(connection, message)
                                                 : handshake12_receive(connection, message);
}

enum alert handshake_change_cipher_spec(struct light_connection *connection) {
    struct handshake *handshake = connection->handshake;

    if (!handshake || (handshake->expect != EXPECT_CCS && handshake->expect != EXPECT_TICKET_OR_CCS))
        return ALERT_UNEXPECTED_MESSAGE;
    direction_end(&connection->in);
    connection->in = handshake->next_in;
    handshake->expect = EXPECT_FINISHED12;
    return NO_ALERT;
}
