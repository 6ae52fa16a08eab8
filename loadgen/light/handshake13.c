/* SPDX-License-Identifier: MIT */
/* The TLS 1.3 handshake, RFC 8446, 4. To resume, the PSK modes of psk_mode are offered; early data is not. */
#include "connection.h"
#include "handshake.h"

#include <openssl/ssl.h>

/* ---- HelloRetryRequest ---- */

static const struct key_share *share_of_group(struct light_connection *connection, const struct group *group) {
    struct light_engine *engine = connection->engine;
    struct handshake *handshake = connection->handshake;

    for (int i = 0; i < engine->group_count; i++) {
        if (engine->groups[i] != group)
            continue;
        if (engine->config.key_share != KEY_SHARE_FRESH)
            return &engine->shares[i];
        key_share_free(&handshake->own_share);
        return key_share_make(&handshake->own_share, group, false) ? &handshake->own_share : NULL;
    }
    return NULL;
}

/* RFC 8446, 4.4.1: the first ClientHello is replaced by its hash. */
static void fold_transcript(struct handshake *handshake, const struct suite *suite) {
    uint8_t folded[MESSAGE_HEADER_BYTES + HASH_BYTES_MAX] = {MESSAGE_HASH, 0, 0};
    size_t length = hash_bytes(suite->hash);

    folded[3] = (uint8_t)length;
    transcript_begin(handshake, suite->hash);
    hash_end(&handshake->transcript, folded + MESSAGE_HEADER_BYTES);
    hash_begin(&handshake->transcript, suite->hash);
    hash_add(&handshake->transcript, folded, MESSAGE_HEADER_BYTES + length);
}

static enum alert retry(struct light_connection *connection, const struct server_hello *hello,
                        const struct message *message) {
    struct handshake *handshake = connection->handshake;
    const struct group *group = hello->group ? group_by_id(hello->group) : handshake->share->group;

    if (handshake->retried)
        return ALERT_UNEXPECTED_MESSAGE;
    /* It must change something. */
    if (!group || (group == handshake->share->group && (hello->group || hello->cookie.left == 0)))
        return ALERT_ILLEGAL_PARAMETER;
    handshake->retried = true;
    if (handshake->offered_suite && handshake->offered_version >= TLS1_3_VERSION &&
        handshake->offered_suite->hash != connection->suite->hash)
        handshake->offered_suite = NULL;
    if (group != handshake->share->group && !(handshake->share = share_of_group(connection, group)))
        return ALERT_ILLEGAL_PARAMETER;
    fold_transcript(handshake, connection->suite);
    transcript_add(handshake, message);
    if (!hello_rewrite(handshake, hello->cookie))
        return ALERT_INTERNAL_ERROR;
    static const uint8_t change[] = {1};
    if (!connection_queue(connection, CONTENT_CHANGE_CIPHER_SPEC, change, sizeof change) ||
        !connection_queue(connection, CONTENT_HANDSHAKE, handshake->hello + RECORD_HEADER_BYTES,
                          handshake->hello_bytes))
        return ALERT_INTERNAL_ERROR;
    return NO_ALERT;
}

/* ---- ServerHello ---- */

static void begin_keys(struct light_connection *connection, bool with_psk, const uint8_t *shared, size_t length) {
    struct handshake *handshake = connection->handshake;
    const struct suite *suite = connection->suite;
    uint8_t transcript[HASH_BYTES_MAX];

    hash_peek(&handshake->transcript, transcript);
    key_schedule_handshake(&handshake->schedule, suite->hash, with_psk ? &handshake->early : NULL, shared, length);
    key_schedule_derive(&handshake->schedule, "c hs traffic", transcript, handshake->client_secret);
    key_schedule_derive(&handshake->schedule, "s hs traffic", transcript, handshake->server_secret);
    key_schedule_main(&handshake->schedule);
    direction_set_traffic_secret(&connection->in, suite, handshake->server_secret, NULL);
}

/*
 * What the key exchange gives; *group is NULL where there is none, and what there is instead are Hash.length zeros
 * (7.1). Whether there is one must be among what was offered: a PSK that is accepted with a share is psk_dhe_ke,
 * without one psk_ke, and without PSK there is always a share.
 */
static enum alert exchange_keys(const struct light_connection *connection, const struct server_hello *hello,
                                const struct group **group, uint8_t *shared, size_t *length) {
    const struct key_share *share = connection->handshake->share;
    enum psk_mode mode = connection->engine->config.psk_mode;

    *group = NULL;
    if (hello->group == 0) {
        if (!hello->has_psk || mode == PSK_MODE_DHE_KE)
            return ALERT_MISSING_EXTENSION;
        *length = hash_bytes(connection->suite->hash);
        memset(shared, 0, *length);
        return NO_ALERT;
    }
    if (hello->group != share->group->id || hello->share.left != share->group->public_bytes ||
        (hello->has_psk && mode == PSK_MODE_KE) || !key_share_agree(share, hello->share.at, shared))
        return ALERT_ILLEGAL_PARAMETER;
    *group = share->group;
    *length = share->group->secret_bytes;
    return NO_ALERT;
}

enum alert handshake13_server_hello(struct light_connection *connection, const struct server_hello *hello,
                                    const struct message *message) {
    struct handshake *handshake = connection->handshake;
    uint8_t shared[GROUP_SECRET_MAX];
    size_t shared_length;
    enum alert alert;

    if (!message->is_last)
        return ALERT_UNEXPECTED_MESSAGE;
    connection->out.version = TLS1_2_VERSION; /* of the record's header, from here on */
    if (hello->session_id.left != handshake->session_id_bytes ||
        memcmp(hello->session_id.at, handshake->session_id, handshake->session_id_bytes) != 0)
        return ALERT_ILLEGAL_PARAMETER;
    if (hello->is_retry)
        return retry(connection, hello, message);
    if (hello->has_psk &&
        (hello->psk != 0 || !handshake->offered_suite || handshake->offered_version < TLS1_3_VERSION ||
         handshake->offered_suite->hash != connection->suite->hash))
        return ALERT_ILLEGAL_PARAMETER;
    alert = exchange_keys(connection, hello, &connection->group, shared, &shared_length);
    if (alert != NO_ALERT)
        return alert;
    connection->resumed = hello->has_psk;
    if (!handshake->retried)
        transcript_begin(handshake, connection->suite->hash);
    transcript_add(handshake, message);
    begin_keys(connection, hello->has_psk, shared, shared_length);
    handshake->expect = EXPECT_ENCRYPTED_EXTENSIONS;
    return NO_ALERT;
}

/* ---- The encrypted messages ---- */

static enum alert receive_extensions(struct light_connection *connection, struct reader body) {
    struct reader extensions = reader_vector(&body, 2);
    enum alert alert = reader_is_done(&body) ? NO_ALERT : ALERT_DECODE_ERROR;

    while (alert == NO_ALERT && extensions.left > 0) {
        uint16_t type = reader_u16(&extensions);
        struct reader extension = reader_vector(&extensions, 2);
        if (extensions.failed)
            alert = ALERT_DECODE_ERROR;
        else if (type == EXTENSION_ALPN)
            alert = handshake_alpn(connection, extension);
    }
    return alert;
}

static enum alert receive_certificate(struct light_connection *connection, struct reader body) {
    if (reader_vector(&body, 1).left > 0)
        return ALERT_ILLEGAL_PARAMETER; /* a request context: it is no answer to a request */
    struct reader list = reader_vector(&body, 3);
    return reader_is_done(&body) ? handshake_certificate(connection, list, true) : ALERT_DECODE_ERROR;
}

static bool send_no_certificate(struct light_connection *connection) {
    static const uint8_t empty[] = {MESSAGE_CERTIFICATE, 0, 0, 4, 0, 0, 0, 0};

    return handshake_send(connection, empty, sizeof empty);
}

/* Our last flight. It is held back until there is something to send with it, or until it is asked for. */
static enum alert send_finished(struct light_connection *connection, const struct hmac *secret) {
    struct handshake *handshake = connection->handshake;
    size_t length = hash_bytes(connection->suite->hash);
    uint8_t finished[MESSAGE_HEADER_BYTES + HASH_BYTES_MAX] = {MESSAGE_FINISHED, 0, 0, (uint8_t)length};
    uint8_t transcript[HASH_BYTES_MAX];

    if (handshake->certificate_requested && !send_no_certificate(connection))
        return ALERT_INTERNAL_ERROR;
    hash_peek(&handshake->transcript, transcript);
    finished_of(secret, transcript, finished + MESSAGE_HEADER_BYTES);
    return handshake_send(connection, finished, MESSAGE_HEADER_BYTES + length) ? NO_ALERT : ALERT_INTERNAL_ERROR;
}

static enum alert receive_finished(struct light_connection *connection, const struct message *message) {
    static const uint8_t change[] = {1};
    struct handshake *handshake = connection->handshake;
    const struct suite *suite = connection->suite;
    size_t length = hash_bytes(suite->hash);
    uint8_t transcript[HASH_BYTES_MAX], expected[HASH_BYTES_MAX], client[HASH_BYTES_MAX], server[HASH_BYTES_MAX];
    struct hmac secret;
    enum alert alert;

    if (!message->is_last)
        return ALERT_UNEXPECTED_MESSAGE;
    hash_peek(&handshake->transcript, transcript);
    hmac_set_key(&secret, suite->hash, handshake->server_secret, length);
    finished_of(&secret, transcript, expected);
    if (message->body.left != length || memcmp(message->body.at, expected, length) != 0)
        return ALERT_DECRYPT_ERROR;
    transcript_add(handshake, message);
    hash_peek(&handshake->transcript, transcript);
    key_schedule_derive(&handshake->schedule, "c ap traffic", transcript, client);
    key_schedule_derive(&handshake->schedule, "s ap traffic", transcript, server);
    /* For middleboxes, once, in the clear (D.4). */
    if (!handshake->retried && !connection_queue(connection, CONTENT_CHANGE_CIPHER_SPEC, change, sizeof change))
        return ALERT_INTERNAL_ERROR;
    direction_set_traffic_secret(&connection->out, suite, handshake->client_secret, &secret);
    alert = send_finished(connection, &secret);
    if (alert != NO_ALERT)
        return alert;
    if (connection->engine->config.resume) {
        hash_peek(&handshake->transcript, transcript);
        key_schedule_derive(&handshake->schedule, "res master", transcript, connection->resumption_secret);
    }
    direction_set_traffic_secret(&connection->in, suite, server, NULL);
    direction_set_traffic_secret(&connection->out, suite, client, NULL);
    handshake_done(connection);
    return NO_ALERT;
}

enum alert handshake13_receive(struct light_connection *connection, const struct message *message) {
    struct handshake *handshake = connection->handshake;
    enum alert alert = NO_ALERT;

    switch (handshake->expect) {
    case EXPECT_ENCRYPTED_EXTENSIONS:
        if (message->type != MESSAGE_ENCRYPTED_EXTENSIONS)
            return ALERT_UNEXPECTED_MESSAGE;
        alert = receive_extensions(connection, message->body);
        handshake->expect = connection->resumed ? EXPECT_FINISHED : EXPECT_CERTIFICATE_OR_REQUEST;
        break;
    case EXPECT_CERTIFICATE_OR_REQUEST:
        if (message->type == MESSAGE_CERTIFICATE_REQUEST) {
            handshake->certificate_requested = true;
            handshake->expect = EXPECT_CERTIFICATE;
            break;
        }
        /* fallthrough */
    case EXPECT_CERTIFICATE:
        if (message->type != MESSAGE_CERTIFICATE)
            return ALERT_UNEXPECTED_MESSAGE;
        alert = receive_certificate(connection, message->body);
        handshake->expect = EXPECT_CERTIFICATE_VERIFY;
        break;
    case EXPECT_CERTIFICATE_VERIFY: {
        struct reader body = message->body;
        if (message->type != MESSAGE_CERTIFICATE_VERIFY)
            return ALERT_UNEXPECTED_MESSAGE;
        connection->sigalg = reader_u16(&body);
        reader_vector(&body, 2);
        alert = reader_is_done(&body) ? NO_ALERT : ALERT_DECODE_ERROR;
        handshake->expect = EXPECT_FINISHED;
        break;
    }
    case EXPECT_FINISHED:
        return message->type == MESSAGE_FINISHED ? receive_finished(connection, message) : ALERT_UNEXPECTED_MESSAGE;
    default:
        return ALERT_UNEXPECTED_MESSAGE;
    }
    if (alert == NO_ALERT)
        transcript_add(handshake, message);
    return alert;
}

/* ---- After the handshake ---- */

static enum alert receive_ticket(struct light_connection *connection, struct reader body) {
    const struct suite *suite = connection->suite;
    uint32_t lifetime_s = reader_uint(&body, 4), age_add = reader_uint(&body, 4);
    struct reader nonce = reader_vector(&body, 1), ticket = reader_vector(&body, 2);
    struct session *session;
    struct hmac secret;

    reader_vector(&body, 2); /* extensions: early data */
    if (!reader_is_done(&body) || ticket.left == 0)
        return ALERT_DECODE_ERROR;
    if (!connection->engine->config.resume || lifetime_s == 0 || nonce.left > 64)
        return NO_ALERT;
    session = session_new(ticket.at, ticket.left);
    if (!session)
        return NO_ALERT;
    session->version = TLS1_3_VERSION;
    session->suite = suite;
    session->lifetime_s = lifetime_s;
    session->age_add = age_add;
    hmac_set_key(&secret, suite->hash, connection->resumption_secret, hash_bytes(suite->hash));
    expand_label(&secret, "resumption", nonce.at, nonce.left, session->secret, hash_bytes(suite->hash));
    handshake_deliver_session(connection, session);
    return NO_ALERT;
}

enum alert handshake13_receive_late(struct light_connection *connection, const struct message *message) {
    struct reader body = message->body;

    switch (message->type) {
    case MESSAGE_NEW_SESSION_TICKET:
        return receive_ticket(connection, body);
    case MESSAGE_KEY_UPDATE: {
        uint8_t requested = reader_u8(&body);
        if (!reader_is_done(&body))
            return ALERT_DECODE_ERROR;
        if (requested > 1)
            return ALERT_ILLEGAL_PARAMETER;
        if (!message->is_last)
            return ALERT_UNEXPECTED_MESSAGE;
        direction_update(&connection->in);
        if (requested)
            connection->key_update = true;
        return NO_ALERT;
    }
    default:
        return ALERT_UNEXPECTED_MESSAGE;
    }
}
