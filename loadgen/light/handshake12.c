/* SPDX-License-Identifier: MIT */
/* The handshake of TLS 1.2, 1.1 and 1.0: RFC 5246, 7; ECDHE of RFC 8422, tickets of RFC 5077, extended master secret of
 * RFC 7627. */
#include "connection.h"
#include "handshake.h"

#include <openssl/ssl.h>

#define FINISHED_BYTES 12
#define KEY_BLOCK_MAX  (2 * (HASH_BYTES_MAX + 32 + 16))

/* ---- Keys ---- */

/* From the master secret on. Ours are put in use by send_finished, the server's by its ChangeCipherSpec. */
static void make_keys(struct light_connection *connection) {
    struct handshake *handshake = connection->handshake;
    const struct suite *suite = connection->suite;
    struct key_block_lengths lengths = key_block_lengths(suite);
    uint8_t block[KEY_BLOCK_MAX], *at = block;

    prf_set_secret(&handshake->prf, suite_hash(suite, connection->version), handshake->master,
                   sizeof handshake->master);
    prf_make(&handshake->prf, "key expansion", handshake->server_random, 32, handshake->client_random, 32, block,
             2 * (lengths.mac + lengths.key + lengths.iv));
    const uint8_t *client_mac = at, *server_mac = at + lengths.mac;
    at += 2 * lengths.mac;
    const uint8_t *client_key = at, *server_key = at + lengths.key;
    at += 2 * lengths.key;
    direction_begin(&handshake->next_out, connection->version);
    direction_begin(&handshake->next_in, connection->version);
    direction_set_keys(&handshake->next_out, suite, connection->version, client_mac, client_key, at);
    direction_set_keys(&handshake->next_in, suite, connection->version, server_mac, server_key, at + lengths.iv);
}

static void make_master(struct light_connection *connection) {
    struct handshake *handshake = connection->handshake;
    enum hash_kind hash = suite_hash(connection->suite, connection->version);
    uint8_t session_hash[HASH_BYTES_MAX];
    struct prf premaster;

    prf_set_secret(&premaster, hash, handshake->premaster, handshake->premaster_bytes);
    if (!handshake->extended_master_secret) {
        prf_make(&premaster, "master secret", handshake->client_random, 32, handshake->server_random, 32,
                 handshake->master, sizeof handshake->master);
        return;
    }
    hash_peek(&handshake->transcript, session_hash);
    prf_make(&premaster, "extended master secret", session_hash, hash_bytes(hash), NULL, 0, handshake->master,
             sizeof handshake->master);
}

static void make_finished(struct handshake *handshake, const char *label, uint8_t verify_data[FINISHED_BYTES]) {
    uint8_t transcript[HASH_BYTES_MAX];

    hash_peek(&handshake->transcript, transcript);
    prf_make(&handshake->prf, label, transcript, hash_bytes(handshake->transcript.kind), NULL, 0, verify_data,
             FINISHED_BYTES);
}

/* ChangeCipherSpec and Finished. */
static bool send_finished(struct light_connection *connection) {
    static const uint8_t change[] = {1};
    uint8_t finished[MESSAGE_HEADER_BYTES + FINISHED_BYTES] = {MESSAGE_FINISHED, 0, 0, FINISHED_BYTES};

    if (!connection_queue(connection, CONTENT_CHANGE_CIPHER_SPEC, change, sizeof change))
        return false;
    connection->out = connection->handshake->next_out;
    make_finished(connection->handshake, "client finished", finished + MESSAGE_HEADER_BYTES);
    return handshake_send(connection, finished, sizeof finished);
}

/* ---- ServerHello ---- */

static bool is_resumed(const struct handshake *handshake, const struct server_hello *hello) {
    return handshake->offered_suite && handshake->offered_version < TLS1_3_VERSION && hello->session_id.left > 0 &&
           hello->session_id.left == handshake->session_id_bytes &&
           memcmp(hello->session_id.at, handshake->session_id, handshake->session_id_bytes) == 0;
}

enum alert handshake12_server_hello(struct light_connection *connection, const struct server_hello *hello,
                                    const struct message *message) {
    struct handshake *handshake = connection->handshake;
    const struct suite *suite = connection->suite;
    enum alert alert = hello->alpn.left > 0 ? handshake_alpn(connection, hello->alpn) : NO_ALERT;

    if (alert != NO_ALERT)
        return alert;
    transcript_begin(handshake, suite_hash(suite, connection->version));
    transcript_add(handshake, message);
    handshake->extended_master_secret = hello->extended_master_secret;
    handshake->ticket_expected = hello->ticket;
    handshake->server_id_bytes = (uint8_t)hello->session_id.left;
    memcpy(handshake->server_id, hello->session_id.at, hello->session_id.left);
    if (!is_resumed(handshake, hello)) {
        handshake->expect = EXPECT_CERTIFICATE12;
        return NO_ALERT;
    }
    if (suite != handshake->offered_suite || connection->version != handshake->offered_version)
        return ALERT_ILLEGAL_PARAMETER;
    if (hello->extended_master_secret != handshake->offered_extended_master_secret)
        return ALERT_HANDSHAKE_FAILURE; /* RFC 7627, 5.3 */
    connection->resumed = true;
    memcpy(handshake->master, handshake->offered_secret, sizeof handshake->master);
    make_keys(connection);
    handshake->expect = EXPECT_TICKET_OR_CCS;
    return NO_ALERT;
}

/* ---- The server's flight ---- */

static enum alert receive_certificate(struct light_connection *connection, struct reader body) {
    struct reader list = reader_vector(&body, 3);

    return reader_is_done(&body) ? handshake_certificate(connection, list, false) : ALERT_DECODE_ERROR;
}

/* The share is taken, the signature is not looked at. */
static enum alert receive_server_key_exchange(struct light_connection *connection, struct reader body) {
    struct light_engine *engine = connection->engine;
    struct handshake *handshake = connection->handshake;
    uint8_t curve_type = reader_u8(&body);
    uint16_t id = reader_u16(&body);
    struct reader point = reader_vector(&body, 1);

    if (connection->version >= TLS1_2_VERSION)
        connection->sigalg = reader_u16(&body);
    else
        connection->sigalg =
            connection->suite->key_exchange == KEY_EXCHANGE_ECDHE_RSA ? SIGALG_RSA_MD5_SHA1 : SIGALG_ECDSA_SHA1;
    reader_vector(&body, 2);
    if (!reader_is_done(&body) || curve_type != 3)
        return ALERT_DECODE_ERROR;
    const struct key_share *share = NULL;
    for (int i = 0; i < engine->group_count && !share; i++)
        if (engine->groups[i]->id == id)
            share = &engine->shares[i];
    if (!share || point.left != share->group->public_bytes)
        return ALERT_ILLEGAL_PARAMETER;
    if (engine->config.key_share == KEY_SHARE_FRESH) {
        const struct group *group = share->group;
        key_share_free(&handshake->own_share);
        if (!key_share_make(&handshake->own_share, group, false))
            return ALERT_INTERNAL_ERROR;
        share = &handshake->own_share;
    }
    if (!key_share_agree(share, point.at, handshake->own_premaster))
        return ALERT_ILLEGAL_PARAMETER;
    handshake->share = share;
    handshake->premaster = handshake->own_premaster;
    handshake->premaster_bytes = share->group->secret_bytes;
    connection->group = share->group;
    return NO_ALERT;
}

static bool send_client_key_exchange(struct light_connection *connection) {
    struct light_engine *engine = connection->engine;
    struct handshake *handshake = connection->handshake;
    uint8_t message[2100]; /* a key of 16384 bits, and more than any point */
    struct writer writer = writer_of(message, sizeof message);

    writer_u8(&writer, MESSAGE_CLIENT_KEY_EXCHANGE);
    size_t body = writer_begin(&writer, 3);
    if (connection->group) {
        size_t point = writer_begin(&writer, 1);
        writer_bytes(&writer, handshake->share->bytes, handshake->share->group->public_bytes);
        writer_end(&writer, point, 1);
    } else {
        const struct certificate_seen *seen = connection->certificate;
        size_t block = writer_begin(&writer, 2);
        writer_bytes(&writer, seen->premaster_block, seen->premaster_block_bytes);
        writer_end(&writer, block, 2);
        handshake->premaster = engine->certificates.premaster;
        handshake->premaster_bytes = PREMASTER_BYTES;
    }
    writer_end(&writer, body, 3);
    return !writer.full && handshake_send(connection, message, writer.length);
}

/* Our only flight of a full handshake: all of it goes out at once. */
static enum alert send_flight(struct light_connection *connection) {
    static const uint8_t no_certificate[] = {MESSAGE_CERTIFICATE, 0, 0, 3, 0, 0, 0};

    if (connection->handshake->certificate_requested &&
        !handshake_send(connection, no_certificate, sizeof no_certificate))
        return ALERT_INTERNAL_ERROR;
    if (!send_client_key_exchange(connection))
        return ALERT_INTERNAL_ERROR;
    make_master(connection);
    make_keys(connection);
    return send_finished(connection) ? NO_ALERT : ALERT_INTERNAL_ERROR;
}

static enum alert receive_hello_done(struct light_connection *connection, const struct message *message) {
    struct light_engine *engine = connection->engine;

    if (message->body.left > 0)
        return ALERT_DECODE_ERROR;
    if (!connection->group) {
        /* The entry has not changed since the Certificate unless so many others came between. */
        struct certificate_seen *seen = &engine->certificates.seen[connection->certificate - engine->certificates.seen];
        if (!certificates_encrypt_premaster(&engine->certificates, seen, engine_hello_version(engine)))
            return ALERT_BAD_CERTIFICATE;
    }
    transcript_add(connection->handshake, message);
    connection->handshake->expect = EXPECT_TICKET_OR_CCS;
    return send_flight(connection);
}

/* ---- Its end ---- */

static enum alert receive_ticket(struct light_connection *connection, struct reader body) {
    struct handshake *handshake = connection->handshake;

    reader_uint(&body, 4); /* a hint of its lifetime: a server that does not like it any more says so */
    struct reader ticket = reader_vector(&body, 2);
    if (!reader_is_done(&body))
        return ALERT_DECODE_ERROR;
    if (ticket.left > 0 && connection->engine->config.resume)
        handshake->new_session = session_new(ticket.at, ticket.left);
    handshake->expect = EXPECT_CCS;
    return NO_ALERT;
}

static void deliver_session(struct light_connection *connection) {
    struct handshake *handshake = connection->handshake;
    struct session *session = handshake->new_session;

    handshake->new_session = NULL;
    if (!session && (connection->resumed || handshake->server_id_bytes == 0 || !connection->engine->config.resume))
        return; /* the old one is as good as before, or there is none */
    if (!session && !(session = session_new(NULL, 0)))
        return;
    session->version = connection->version;
    session->suite = connection->suite;
    session->extended_master_secret = handshake->extended_master_secret;
    memcpy(session->secret, handshake->master, sizeof handshake->master);
    session->id_bytes = handshake->server_id_bytes;
    memcpy(session->id, handshake->server_id, handshake->server_id_bytes);
    handshake_deliver_session(connection, session);
}

static enum alert receive_finished(struct light_connection *connection, const struct message *message) {
    struct handshake *handshake = connection->handshake;
    uint8_t expected[FINISHED_BYTES];

    make_finished(handshake, "server finished", expected);
    if (!message->is_last)
        return ALERT_UNEXPECTED_MESSAGE;
    if (message->body.left != FINISHED_BYTES || memcmp(message->body.at, expected, FINISHED_BYTES) != 0)
        return ALERT_DECRYPT_ERROR;
    transcript_add(handshake, message);
    if (connection->resumed && !send_finished(connection))
        return ALERT_INTERNAL_ERROR;
    deliver_session(connection);
    handshake_done(connection);
    return NO_ALERT;
}

enum alert handshake12_receive(struct light_connection *connection, const struct message *message) {
    struct handshake *handshake = connection->handshake;
    enum alert alert = NO_ALERT;

    if (message->type == MESSAGE_HELLO_REQUEST)
        return message->body.left == 0 ? NO_ALERT : ALERT_DECODE_ERROR; /* RFC 5246, 7.4.1.1: we are at it */
    switch (handshake->expect) {
    case EXPECT_CERTIFICATE12:
        if (message->type != MESSAGE_CERTIFICATE)
            return ALERT_UNEXPECTED_MESSAGE;
        alert = receive_certificate(connection, message->body);
        handshake->expect =
            connection->suite->key_exchange == KEY_EXCHANGE_RSA ? EXPECT_REQUEST_OR_DONE : EXPECT_SERVER_KEY_EXCHANGE;
        break;
    case EXPECT_SERVER_KEY_EXCHANGE:
        if (message->type != MESSAGE_SERVER_KEY_EXCHANGE)
            return ALERT_UNEXPECTED_MESSAGE;
        alert = receive_server_key_exchange(connection, message->body);
        handshake->expect = EXPECT_REQUEST_OR_DONE;
        break;
    case EXPECT_REQUEST_OR_DONE:
        if (message->type == MESSAGE_CERTIFICATE_REQUEST) {
            handshake->certificate_requested = true;
            handshake->expect = EXPECT_HELLO_DONE;
            break;
        }
        /* fallthrough */
    case EXPECT_HELLO_DONE:
        return message->type == MESSAGE_SERVER_HELLO_DONE ? receive_hello_done(connection, message)
                                                          : ALERT_UNEXPECTED_MESSAGE;
    case EXPECT_TICKET_OR_CCS:
        if (message->type != MESSAGE_NEW_SESSION_TICKET || !handshake->ticket_expected)
            return ALERT_UNEXPECTED_MESSAGE;
        alert = receive_ticket(connection, message->body);
        break;
    case EXPECT_FINISHED12:
        return message->type == MESSAGE_FINISHED ? receive_finished(connection, message) : ALERT_UNEXPECTED_MESSAGE;
    default:
        return ALERT_UNEXPECTED_MESSAGE;
    }
    if (alert == NO_ALERT)
        transcript_add(handshake, message);
    return alert;
}

/* A server that wants to renegotiate is told that we do not. */
enum alert handshake12_receive_late(struct light_connection *connection, const struct message *message) {
    if (message->type != MESSAGE_HELLO_REQUEST)
        return ALERT_UNEXPECTED_MESSAGE;
    if (message->body.left > 0)
        return ALERT_DECODE_ERROR;
    return connection_warn(connection, ALERT_NO_RENEGOTIATION);
}
