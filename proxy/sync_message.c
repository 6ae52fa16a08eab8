/* SPDX-License-Identifier: MIT */
#include "sync_message.h"

/* Where the ID is in its session: most have it in them. */
#define NOWHERE UINT16_MAX

static void write_id(struct writer *writer, const struct sync_message *message) {
    writer_u8(writer, (uint8_t)message->id_length);
    writer_bytes(writer, message->id, message->id_length);
}

/* NULL: it is not in its session. */
static const uint8_t *find_id(const struct sync_message *message) {
    for (size_t at = 0; at + message->id_length <= message->session_length; at++)
        if (memcmp(message->session + at, message->id, message->id_length) == 0)
            return message->session + at;
    return NULL;
}

static void write_new(struct writer *writer, const struct sync_session *before, const struct sync_message *message) {
    const uint8_t *inside = find_id(message);

    writer_u64(writer, message->expires_ms);
    sync_session_write(writer, before, message->session, message->session_length);
    writer_u8(writer, (uint8_t)message->id_length);
    writer_u16(writer, inside ? (uint16_t)(inside - message->session) : NOWHERE);
    if (!inside)
        writer_bytes(writer, message->id, message->id_length);
}

static void write_body(struct writer *writer, const struct sync_session *before, const struct sync_message *message) {
    switch (message->kind) {
    case SYNC_CHALLENGE:
    case SYNC_PROOF:
        writer_bytes(writer, message->nonce, SYNC_NONCE_BYTES);
        if (message->kind == SYNC_PROOF)
            writer_u64(writer, message->number);
        break;
    case SYNC_NEW:
        write_new(writer, before, message);
        break;
    case SYNC_DEL:
        writer_u64(writer, message->expires_ms);
        write_id(writer, message);
        break;
    case SYNC_GET:
        write_id(writer, message);
        break;
    case SYNC_CATCH_UP:
        writer_u64(writer, message->number);
        break;
    case SYNC_CAUGHT_UP:
        writer_u64(writer, message->number);
        writer_u64(writer, message->next);
        break;
    case SYNC_TICKET_KEY:
        writer_u64(writer, message->expires_ms);
        writer_u8(writer, message->key_use);
        writer_bytes(writer, message->key.name, TICKET_KEY_NAME_BYTES);
        writer_bytes(writer, message->key.cipher_secret, message->key.secret_bytes);
        writer_bytes(writer, message->key.mac_secret, message->key.secret_bytes);
    }
}

bool sync_message_write(struct writer *writer, struct sync_session *before, const struct sync_message *message) {
    struct writer attempt = *writer;
    size_t begin;

    writer_u8(&attempt, message->kind);
    begin = writer_begin(&attempt, 2);
    write_body(&attempt, before, message);
    writer_end(&attempt, begin, 2);
    if (attempt.full)
        return false;
    *writer = attempt;
    if (message->kind == SYNC_NEW && before) {
        before->length = message->session_length;
        memcpy(before->bytes, message->session, message->session_length);
    }
    return true;
}

static void check_id(struct reader *body, const struct sync_message *message) {
    if (message->id_length < 1 || message->id_length > SESSION_ID_MAX)
        body->failed = true;
}

static void read_id(struct reader *body, struct sync_message *message) {
    message->id_length = reader_u8(body);
    message->id = reader_take(body, message->id_length);
    check_id(body, message);
}

static void read_new(struct reader *body, struct sync_session *before, struct sync_message *message) {
    size_t place;

    message->expires_ms = reader_u64(body);
    sync_session_read(body, before);
    message->session = before->bytes;
    message->session_length = before->length;
    message->id_length = reader_u8(body);
    place = reader_u16(body);
    check_id(body, message);
    if (place == NOWHERE)
        message->id = reader_take(body, message->id_length);
    else if (place + message->id_length <= before->length)
        message->id = before->bytes + place;
    else
        body->failed = true;
}

static void read_key(struct reader *body, struct sync_message *message) {
    struct ticket_key *key = &message->key;
    const uint8_t *name;

    message->key_use = reader_u8(body);
    name = reader_take(body, sizeof key->name);
    key->secret_bytes = body->left / 2;
    if (message->key_use > SYNC_KEY_OPENS || !name || (key->secret_bytes != 16 && key->secret_bytes != 32)) {
        body->failed = true;
        return;
    }
    memcpy(key->name, name, sizeof key->name);
    memcpy(key->cipher_secret, reader_take(body, key->secret_bytes), key->secret_bytes);
    memcpy(key->mac_secret, reader_take(body, key->secret_bytes), key->secret_bytes);
}

/* False: the kind is not known. body->failed, or something left over: the message is broken. */
static bool read_body(struct reader *body, struct sync_session *before, struct sync_message *message) {
    switch (message->kind) {
    case SYNC_CHALLENGE:
    case SYNC_PROOF:
        message->nonce = reader_take(body, SYNC_NONCE_BYTES);
        if (message->kind == SYNC_PROOF)
            message->number = reader_u64(body);
        return true;
    case SYNC_NEW:
        read_new(body, before, message);
        return true;
    case SYNC_DEL:
        message->expires_ms = reader_u64(body);
        read_id(body, message);
        return true;
    case SYNC_GET:
        read_id(body, message);
        return true;
    case SYNC_CATCH_UP:
        message->number = reader_u64(body);
        return true;
    case SYNC_CAUGHT_UP:
        message->number = reader_u64(body);
        message->next = reader_u64(body);
        return true;
    case SYNC_TICKET_KEY:
        message->expires_ms = reader_u64(body);
        read_key(body, message);
        return true;
    default:
        return false;
    }
}

bool sync_message_read(struct reader *reader, struct sync_session *before, struct sync_message *message) {
    while (reader->left && !reader->failed) {
        struct reader body;

        *message = (struct sync_message){.kind = reader_u8(reader)};
        body = reader_vector(reader, 2);
        if (body.failed || reader->failed) {
            reader->failed = true;
            return false;
        }
        if (!read_body(&body, before, message))
            continue;
        if (reader_is_done(&body))
            return true;
        reader->failed = true;
    }
    return false;
}
