/* SPDX-License-Identifier: MIT */
#include "connection.h"

#include "bytes.h"
#include "handshake.h"

#include <errno.h>
#include <ev.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

/* recv() calls in a step: one peer that never stops sending must not keep all others waiting. */
#define RECEIVES_MAX 8
/* Application data that is sealed and sent at once. */
#define WRITE_BYTES_MAX (4 * RECORD_PLAIN_MAX)

_Static_assert(SCRATCH_BYTES >= WRITE_BYTES_MAX + 4 * RECORD_OVERHEAD_MAX + 4096, "room for a write and what is held");
_Static_assert(SCRATCH_BYTES >= 2 * (RECORD_HEADER_BYTES + RECORD_SEALED_MAX), "room for a record and what follows");

/* ---- Ways to fail ---- */

static enum stream_result fail_with(struct light_connection *connection, enum load_error error) {
    connection->error = error;
    return STREAM_ERROR;
}

static enum stream_result fail_io(struct light_connection *connection, int error_number) {
    return fail_with(connection, load_error_of_io(error_number));
}

/* The peer broke the protocol: it is told so, if that is possible at once, and that is the end. */
static enum stream_result abort_with(struct light_connection *connection, enum alert alert) {
    uint8_t message[2] = {ALERT_LEVEL_FATAL, (uint8_t)alert}, record[sizeof message + RECORD_OVERHEAD_MAX];

    if (!connection->unsent.bytes && !connection->sent_end) {
        size_t length = record_seal(&connection->out, CONTENT_ALERT, message, sizeof message, record);
        if (length > 0)
            (void)!send(connection->fd, record, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    connection->sent_end = true;
    return fail_with(connection, LOAD_TLS_PROTOCOL);
}

/* ---- Sending ---- */

bool connection_queue(struct light_connection *connection, enum content_type type, const uint8_t *bytes,
                      size_t length) {
    uint8_t *record = connection->engine->out;
    size_t sealed = record_seal(&connection->out, type, bytes, length, record);

    return sealed > 0 && chunk_append(&connection->unsent, record, sealed);
}

enum alert connection_warn(struct light_connection *connection, enum alert alert) {
    uint8_t message[2] = {ALERT_LEVEL_WARNING, (uint8_t)alert};

    if (++connection->warnings > WARNINGS_MAX)
        return ALERT_UNEXPECTED_MESSAGE;
    return connection_queue(connection, CONTENT_ALERT, message, sizeof message) ? NO_ALERT : ALERT_INTERNAL_ERROR;
}

/* How many were sent (0: none can be now); -1: never. */
static ssize_t send_some(struct light_connection *connection, const uint8_t *bytes, size_t length, int flags) {
    ssize_t count;

    do
        count = send(connection->fd, bytes, length, MSG_NOSIGNAL | flags);
    while (count < 0 && errno == EINTR);
    if (count >= 0)
        return count;
    if (errno == EAGAIN) {
        connection->wants = EV_WRITE;
        return 0;
    }
    fail_io(connection, errno);
    return -1;
}

/* Sends bytes that are in no chunk; what cannot be sent is kept in unsent, which must be empty. */
static enum stream_result send_or_keep(struct light_connection *connection, const uint8_t *bytes, size_t length) {
    ssize_t count = send_some(connection, bytes, length, 0);

    if (count < 0)
        return STREAM_ERROR;
    if ((size_t)count == length)
        return STREAM_OK;
    connection->wants = EV_WRITE;
    if (!chunk_append(&connection->unsent, bytes + count, length - (size_t)count))
        return fail_with(connection, LOAD_FD_UNAVAILABLE);
    return STREAM_RETRY;
}

static enum stream_result flush_with(struct light_connection *connection, int flags) {
    struct chunk *unsent = &connection->unsent;

    if (!unsent->bytes)
        return STREAM_OK;
    ssize_t count = send_some(connection, unsent->bytes, unsent->length, flags);
    if (count < 0)
        return STREAM_ERROR;
    if (count > 0)
        chunk_drop(unsent, (size_t)count);
    if (!unsent->bytes)
        return STREAM_OK;
    connection->wants = EV_WRITE;
    return STREAM_RETRY;
}

static enum stream_result flush(struct light_connection *connection) {
    return flush_with(connection, 0);
}

/* ---- Receiving: records ---- */

/* What is left of the last time comes first in the process's buffer. */
static void begin_input(struct light_connection *connection) {
    struct light_engine *engine = connection->engine;

    engine->in_at = 0;
    engine->in_end = connection->received.length;
    if (connection->received.bytes) {
        memcpy(engine->in, connection->received.bytes, connection->received.length);
        chunk_free(&connection->received);
    }
}

/* And what is left now is kept. result, unless there is no memory. */
static enum stream_result end_input(struct light_connection *connection, enum stream_result result) {
    struct light_engine *engine = connection->engine;
    size_t left = engine->in_end - engine->in_at;

    if (left > 0 && result != STREAM_ERROR && !chunk_append(&connection->received, engine->in + engine->in_at, left))
        return fail_with(connection, LOAD_FD_UNAVAILABLE);
    return result;
}

/*
 * There is no complete record: gets more. STREAM_RETRY also where the last recv() took all that there was: epoll says
 * when there is more, and another recv() would most often say EAGAIN.
 */
static enum stream_result receive_more(struct light_connection *connection) {
    struct light_engine *engine = connection->engine;
    ssize_t count;
    size_t room;

    if (connection->drained) {
        connection->drained = false;
        connection->wants = EV_READ;
        return STREAM_RETRY;
    }
    if (engine->in_at > 0) {
        memmove(engine->in, engine->in + engine->in_at, engine->in_end - engine->in_at);
        engine->in_end -= engine->in_at;
        engine->in_at = 0;
    }
    room = sizeof engine->in - engine->in_end;
    do
        count = recv(connection->fd, engine->in + engine->in_end, room, 0);
    while (count < 0 && errno == EINTR);
    if (count < 0) {
        connection->wants = EV_READ;
        return errno == EAGAIN ? STREAM_RETRY : fail_io(connection, errno);
    }
    if (count == 0) {
        connection->received_end = true;
        return STREAM_EOF;
    }
    engine->in_end += (size_t)count;
    connection->drained = (size_t)count < room;
    return STREAM_OK;
}

struct record {
    uint8_t *header;
    size_t length; /* after the header */
};

static size_t longest_record(const struct direction *in) {
    if (!in->suite)
        return RECORD_PLAIN_MAX;
    return in->version >= TLS1_3_VERSION ? RECORD_PLAIN_MAX + 256 : RECORD_SEALED_MAX;
}

/* The next complete record, if there is one: header NULL if not. It is still to be taken. */
static enum alert look_at_record(const struct light_connection *connection, struct record *record) {
    struct light_engine *engine = connection->engine;
    uint8_t *header = engine->in + engine->in_at;
    size_t left = engine->in_end - engine->in_at;

    *record = (struct record){0};
    if (left < RECORD_HEADER_BYTES)
        return NO_ALERT;
    if (header[0] < CONTENT_CHANGE_CIPHER_SPEC || header[0] > CONTENT_APPLICATION_DATA)
        return ALERT_UNEXPECTED_MESSAGE;
    if (header[1] != 3)
        return ALERT_PROTOCOL_VERSION;
    record->length = (size_t)header[3] << 8 | header[4];
    if (record->length > longest_record(&connection->in))
        return ALERT_RECORD_OVERFLOW;
    if (left >= RECORD_HEADER_BYTES + record->length)
        record->header = header;
    return NO_ALERT;
}

/* A record that brings nothing forward. */
static enum alert count_empty(struct light_connection *connection) {
    return ++connection->empty_records > EMPTY_RECORDS_MAX ? ALERT_UNEXPECTED_MESSAGE : NO_ALERT;
}

/* Takes the record and opens it. length 0 and type CHANGE_CIPHER_SPEC: one to be passed over. */
static enum alert open_record(struct light_connection *connection, const struct record *record, uint8_t *into,
                              struct plaintext *plaintext) {
    struct direction *in = &connection->in;
    uint8_t *body = record->header + RECORD_HEADER_BYTES;
    enum alert alert;

    connection->engine->in_at += RECORD_HEADER_BYTES + record->length;
    if (in->suite && in->version >= TLS1_3_VERSION && record->header[0] != CONTENT_APPLICATION_DATA) {
        /* RFC 8446, 5: one of these, not encrypted, may come at any time until Finished. */
        if (connection->established || record->header[0] != CONTENT_CHANGE_CIPHER_SPEC || record->length != 1 ||
            *body != 1)
            return ALERT_UNEXPECTED_MESSAGE;
        *plaintext = (struct plaintext){.type = CONTENT_CHANGE_CIPHER_SPEC, .bytes = body};
        return count_empty(connection);
    }
    alert = record_open(in, record->header, body, record->length, into, plaintext);
    if (alert != NO_ALERT)
        return alert;
    if (plaintext->length > 0) {
        connection->empty_records = 0;
        return NO_ALERT;
    }
    /* Only application data may be empty: before TLS 1.1 there is such a record before each that is not. */
    return plaintext->type == CONTENT_APPLICATION_DATA ? count_empty(connection) : ALERT_UNEXPECTED_MESSAGE;
}

/* ---- Receiving: what is in the records ---- */

static enum alert take_messages(struct light_connection *connection, const uint8_t *bytes, size_t length) {
    struct chunk *held = &connection->message;
    struct reader reader = reader_of(bytes, length);
    bool is_held = held->bytes != NULL;

    if (is_held) {
        if (!chunk_append(held, bytes, length))
            return ALERT_INTERNAL_ERROR;
        reader = reader_of(held->bytes, held->length);
    }
    while (reader.left >= MESSAGE_HEADER_BYTES) {
        struct message message = {.bytes = reader.at, .type = reader.at[0]};
        struct reader look = reader;
        reader_u8(&look);
        size_t body_length = reader_uint(&look, 3);
        if (body_length > MESSAGE_BYTES_MAX)
            return ALERT_ILLEGAL_PARAMETER;
        if (body_length > look.left)
            break;
        message.length = MESSAGE_HEADER_BYTES + body_length;
        message.body = reader_of(look.at, body_length);
        message.is_last = body_length == look.left;
        enum alert alert = handshake_receive(connection, &message);
        if (alert != NO_ALERT)
            return alert;
        reader_take(&reader, message.length);
    }
    if (is_held)
        chunk_drop(held, held->length - reader.left);
    else if (reader.left > 0 && !chunk_append(held, reader.at, reader.left))
        return ALERT_INTERNAL_ERROR;
    return NO_ALERT;
}

static enum alert take_change_cipher_spec(struct light_connection *connection, const struct plaintext *plaintext) {
    const struct handshake *handshake = connection->handshake;

    if (plaintext->length == 0)
        return NO_ALERT; /* passed over, and counted */
    if (plaintext->length != 1 || plaintext->bytes[0] != 1 || connection->message.bytes)
        return ALERT_UNEXPECTED_MESSAGE;
    /* After a HelloRetryRequest nothing is encrypted yet. */
    if (handshake && handshake->retried && handshake->expect == EXPECT_SERVER_HELLO)
        return count_empty(connection);
    return handshake_change_cipher_spec(connection);
}

/* *ended: this was the peer's last word, good (STREAM_EOF) or bad (STREAM_ERROR). */
static enum alert take_alert(struct light_connection *connection, const struct plaintext *plaintext,
                             enum stream_result *ended) {
    if (plaintext->length != 2)
        return ALERT_DECODE_ERROR;
    uint8_t level = plaintext->bytes[0], description = plaintext->bytes[1];
    if (description == ALERT_CLOSE_NOTIFY) {
        connection->received_end = true;
        *ended = STREAM_EOF;
        return NO_ALERT;
    }
    bool is_warning =
        connection->version >= TLS1_3_VERSION ? description == ALERT_USER_CANCELED : level == ALERT_LEVEL_WARNING;
    if (is_warning)
        return ++connection->warnings > WARNINGS_MAX ? ALERT_UNEXPECTED_MESSAGE : NO_ALERT;
    connection->sent_end = true; /* there is nobody left to be told anything */
    *ended = fail_with(connection, LOAD_TLS_ALERT);
    return NO_ALERT;
}

/* All but application data. STREAM_OK: go on. */
static enum stream_result take_record(struct light_connection *connection, const struct plaintext *plaintext) {
    enum stream_result ended = STREAM_OK;
    enum alert alert;

    if (connection->message.bytes && plaintext->type != CONTENT_HANDSHAKE && plaintext->length > 0)
        return abort_with(connection, ALERT_UNEXPECTED_MESSAGE); /* in the middle of a message */
    switch (plaintext->type) {
    case CONTENT_CHANGE_CIPHER_SPEC:
        alert = take_change_cipher_spec(connection, plaintext);
        break;
    case CONTENT_ALERT:
        alert = take_alert(connection, plaintext, &ended);
        break;
    case CONTENT_HANDSHAKE:
        alert = take_messages(connection, plaintext->bytes, plaintext->length);
        break;
    default:
        alert = ALERT_UNEXPECTED_MESSAGE;
    }
    return alert == NO_ALERT ? ended : abort_with(connection, alert);
}

/* ---- Handshake ---- */

static enum stream_result send_hello(struct light_connection *connection) {
    struct handshake *handshake = connection->handshake;
    uint8_t *record = handshake->hello;
    size_t length = handshake->hello_bytes;

    /* Its record's version is 1.0 for servers that are older than the choice, RFC 8446, D. */
    record[0] = CONTENT_HANDSHAKE;
    record[1] = 3;
    record[2] = 1;
    record[3] = (uint8_t)(length >> 8);
    record[4] = (uint8_t)length;
    handshake->hello_sent = true;
    enum stream_result result = send_or_keep(connection, record, RECORD_HEADER_BYTES + length);
    if (result != STREAM_OK)
        return result;
    connection->wants = EV_READ; /* the answer cannot be there yet */
    return STREAM_RETRY;
}

/* The records at hand, until the handshake is done or there are no more. STREAM_RETRY: no more. */
static enum stream_result shake_hands(struct light_connection *connection) {
    for (;;) {
        struct record record;
        struct plaintext plaintext;
        enum alert alert = look_at_record(connection, &record);
        if (alert == NO_ALERT && !record.header)
            return STREAM_RETRY;
        if (alert == NO_ALERT)
            alert = open_record(connection, &record, NULL, &plaintext);
        if (alert != NO_ALERT)
            return abort_with(connection, alert);
        enum stream_result result = take_record(connection, &plaintext);
        if (result != STREAM_OK || connection->established)
            return result;
    }
}

enum stream_result connection_handshake(struct light_connection *connection) {
    enum stream_result result;

    if (connection->established)
        return connection->engine->config.flush_handshake ? flush(connection) : STREAM_OK;
    if (connection->error != LOAD_NO_ERROR)
        return STREAM_ERROR;
    if (!connection->handshake->hello_sent)
        return send_hello(connection);
    result = flush(connection);
    if (result != STREAM_OK)
        return result;
    begin_input(connection);
    for (int i = 0; i < RECEIVES_MAX; i++) {
        result = receive_more(connection);
        if (result != STREAM_OK)
            break;
        result = shake_hands(connection);
        if (result != STREAM_RETRY)
            break;
        if (connection->unsent.bytes) {
            result = flush(connection);
            if (result == STREAM_OK) {
                connection->wants = EV_READ; /* as after the ClientHello */
                connection->drained = false;
                result = STREAM_RETRY;
            }
            break;
        }
    }
    result = end_input(connection, result);
    if (result == STREAM_OK && connection->engine->config.flush_handshake)
        return flush(connection);
    return result;
}

/* ---- Data ---- */

static enum stream_result read_plain(struct light_connection *connection, uint8_t *bytes, size_t size, size_t *got) {
    size_t left = connection->plain.length - connection->plain_at;

    *got = left < size ? left : size;
    memcpy(bytes, connection->plain.bytes + connection->plain_at, *got);
    connection->plain_at += (uint32_t)*got;
    if (*got == left)
        chunk_free(&connection->plain);
    return STREAM_OK;
}

/*
 * The records at hand. STREAM_OK: *got bytes were read. A record that surely fits what is left of the reader's buffer
 * is decrypted there; one that does not is left for the next time, or, if it comes first, is kept in the clear.
 */
static enum stream_result read_records(struct light_connection *connection, uint8_t *bytes, size_t size, size_t *got) {
    *got = 0;
    for (;;) {
        struct record record;
        struct plaintext plaintext;
        enum alert alert = look_at_record(connection, &record);
        if (alert == NO_ALERT && !record.header)
            return *got > 0 ? STREAM_OK : STREAM_RETRY;
        bool fits = record.length <= size - *got;
        if (alert == NO_ALERT && !fits && *got > 0)
            return STREAM_OK;
        if (alert == NO_ALERT)
            alert = open_record(connection, &record, fits ? bytes + *got : NULL, &plaintext);
        if (alert != NO_ALERT)
            return abort_with(connection, alert);
        if (plaintext.type == CONTENT_APPLICATION_DATA) {
            if (fits) {
                *got += plaintext.length;
                continue;
            }
            if (plaintext.length == 0)
                continue;
            if (!chunk_append(&connection->plain, plaintext.bytes, plaintext.length))
                return fail_with(connection, LOAD_FD_UNAVAILABLE);
            connection->plain_at = 0;
            return read_plain(connection, bytes, size, got);
        }
        enum stream_result result = take_record(connection, &plaintext);
        if (result == STREAM_EOF && *got > 0)
            return STREAM_OK; /* the end is told next time */
        if (result != STREAM_OK)
            return result;
    }
}

enum stream_result connection_read(struct light_connection *connection, uint8_t *bytes, size_t size, size_t *got) {
    enum stream_result result;

    if (connection->error != LOAD_NO_ERROR)
        return STREAM_ERROR;
    if (connection->plain.bytes)
        return read_plain(connection, bytes, size, got);
    if (connection->received_end)
        return STREAM_EOF;
    if (connection->unsent.bytes && connection->unsent_taken == 0 && flush(connection) == STREAM_ERROR)
        return STREAM_ERROR;
    begin_input(connection);
    result = read_records(connection, bytes, size, got);
    for (int i = 0; i < RECEIVES_MAX && result == STREAM_RETRY; i++) {
        result = receive_more(connection);
        if (result != STREAM_OK)
            break;
        result = read_records(connection, bytes, size, got);
    }
    if (result == STREAM_RETRY)
        connection->wants = connection->unsent.bytes ? EV_READ | EV_WRITE : EV_READ;
    return end_input(connection, result);
}

/* What is held back and a KeyUpdate that is due, to the process's buffer. Returns its length; 0 may mean no memory. */
static size_t begin_output(struct light_connection *connection) {
    static const uint8_t update[] = {MESSAGE_KEY_UPDATE, 0, 0, 1, 0};
    uint8_t *out = connection->engine->out;
    size_t used = connection->unsent.length;

    if (connection->unsent.bytes) {
        memcpy(out, connection->unsent.bytes, used);
        chunk_free(&connection->unsent);
    }
    if (connection->key_update) {
        used += record_seal(&connection->out, CONTENT_HANDSHAKE, update, sizeof update, out + used);
        direction_update(&connection->out);
        connection->key_update = false;
    }
    return used;
}

enum stream_result connection_write(struct light_connection *connection, const uint8_t *bytes, size_t length,
                                    size_t *put) {
    uint8_t *out = connection->engine->out;
    size_t used, taken = 0;
    enum stream_result result;

    if (connection->error != LOAD_NO_ERROR)
        return STREAM_ERROR;
    connection->drained = false;
    if (connection->unsent_taken > 0 || connection->unsent.length > 4096 - RECORD_OVERHEAD_MAX) {
        result = flush(connection);
        if (result != STREAM_OK)
            return result;
        *put = connection->unsent_taken;
        connection->unsent_taken = 0;
        if (*put > 0)
            return STREAM_OK;
    }
    used = begin_output(connection);
    while (taken < length && taken < WRITE_BYTES_MAX) {
        size_t piece = length - taken < RECORD_PLAIN_MAX ? length - taken : RECORD_PLAIN_MAX;
        size_t sealed = record_seal(&connection->out, CONTENT_APPLICATION_DATA, bytes + taken, piece, out + used);
        if (sealed == 0)
            return fail_with(connection, LOAD_FD_UNAVAILABLE);
        used += sealed;
        taken += piece;
    }
    result = send_or_keep(connection, out, used);
    if (result == STREAM_RETRY)
        connection->unsent_taken = taken;
    else if (result == STREAM_OK)
        *put = taken;
    return result;
}

enum stream_result connection_end(struct light_connection *connection) {
    static const uint8_t notify[2] = {ALERT_LEVEL_WARNING, ALERT_CLOSE_NOTIFY};
    enum stream_result result;

    if (connection->shut)
        return STREAM_OK;
    if (connection->error != LOAD_NO_ERROR)
        return STREAM_ERROR;
    connection->drained = false;
    if (!connection->sent_end) {
        if (!connection_queue(connection, CONTENT_ALERT, notify, sizeof notify))
            return fail_with(connection, LOAD_FD_UNAVAILABLE);
        connection->sent_end = true;
    }
    /* Not sent until shutdown() adds the FIN: one packet for both. */
    result = flush_with(connection, MSG_MORE);
    if (result != STREAM_OK)
        return result;
    connection->shut = true;
    return shutdown(connection->fd, SHUT_WR) == 0 ? STREAM_OK : fail_io(connection, errno);
}

/* ---- Life ---- */

static bool choose_share(struct light_connection *connection) {
    struct light_engine *engine = connection->engine;
    struct handshake *handshake = connection->handshake;

    handshake->share = &engine->shares[0];
    if (engine->config.key_share != KEY_SHARE_FRESH || engine->max_version < TLS1_3_VERSION)
        return true;
    handshake->share = &handshake->own_share;
    return key_share_make(&handshake->own_share, engine->groups[0], false);
}

bool connection_open(struct light_connection *connection, struct light_engine *engine, int fd, const char *server_name,
                     const struct session *session, void *owner) {
    *connection = (struct light_connection){.engine = engine, .owner = owner, .fd = fd, .error = LOAD_NO_ERROR};
    direction_begin(&connection->in, TLS1_VERSION);
    direction_begin(&connection->out, TLS1_VERSION);
    connection->handshake = handshake_take(engine);
    if (connection->handshake && choose_share(connection) && hello_write(connection, server_name, session))
        return true;
    connection_close(connection);
    return false;
}

int connection_release(struct light_connection *connection) {
    int fd = connection->fd;

    direction_end(&connection->in);
    direction_end(&connection->out);
    if (connection->handshake) {
        handshake_give(connection->engine, connection->handshake);
        connection->handshake = NULL;
    }
    chunk_free(&connection->received);
    chunk_free(&connection->message);
    chunk_free(&connection->plain);
    chunk_free(&connection->unsent);
    connection->fd = -1;
    return fd;
}

void connection_close(struct light_connection *connection) {
    if (connection->fd >= 0)
        close(connection->fd);
    connection_release(connection);
}
