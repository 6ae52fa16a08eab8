/* SPDX-License-Identifier: MIT */
#include "hello.h"

#include "handshake.h"
#include "random.h"

#include <openssl/ssl.h>
#include <stdlib.h>

#define PSK_KE     0
#define PSK_DHE_KE 1
/* Of a ClientHello without its ticket: some 90 for what is no extension, suites, constant extensions, name, share. */
#define HELLO_BYTES (128 + 2 * SUITES_MAX + 512 + 300 + GROUP_PUBLIC_MAX + 64)

/* ---- The extensions that are always the same ---- */

static void write_groups(struct writer *writer, const struct light_engine *engine) {
    writer_u16(writer, EXTENSION_SUPPORTED_GROUPS);
    size_t extension = writer_begin(writer, 2), list = writer_begin(writer, 2);
    for (int i = 0; i < engine->group_count; i++)
        writer_u16(writer, engine->groups[i]->id);
    writer_end(writer, list, 2);
    writer_end(writer, extension, 2);
}

static void write_sigalgs(struct writer *writer, const struct light_engine *engine) {
    writer_u16(writer, EXTENSION_SIGNATURE_ALGORITHMS);
    size_t extension = writer_begin(writer, 2), list = writer_begin(writer, 2);
    for (int i = 0; i < engine->sigalg_count; i++)
        writer_u16(writer, engine->sigalgs[i]);
    writer_end(writer, list, 2);
    writer_end(writer, extension, 2);
}

static void write_alpn(struct writer *writer, const struct light_engine *engine) {
    writer_u16(writer, EXTENSION_ALPN);
    size_t extension = writer_begin(writer, 2), list = writer_begin(writer, 2);
    writer_bytes(writer, engine->alpn, engine->alpn_bytes);
    writer_end(writer, list, 2);
    writer_end(writer, extension, 2);
}

static void write_versions(struct writer *writer, const struct light_engine *engine) {
    writer_u16(writer, EXTENSION_SUPPORTED_VERSIONS);
    size_t extension = writer_begin(writer, 2), list = writer_begin(writer, 1);
    for (int version = engine->max_version; version >= engine->min_version; version--)
        writer_u16(writer, (uint16_t)version);
    writer_end(writer, list, 1);
    writer_end(writer, extension, 2);
}

static void write_psk_modes(struct writer *writer, const struct light_engine *engine) {
    enum psk_mode mode = engine->config.psk_mode;

    writer_u16(writer, EXTENSION_PSK_KEY_EXCHANGE_MODES);
    size_t extension = writer_begin(writer, 2), list = writer_begin(writer, 1);
    if (mode != PSK_MODE_KE)
        writer_u8(writer, PSK_DHE_KE);
    if (mode != PSK_MODE_DHE_KE)
        writer_u8(writer, PSK_KE);
    writer_end(writer, list, 1);
    writer_end(writer, extension, 2);
}

bool hello_prepare(struct light_engine *engine) {
    struct writer writer = writer_of(engine->extensions, sizeof engine->extensions);

    write_groups(&writer, engine);
    if (engine->max_version >= TLS1_2_VERSION)
        write_sigalgs(&writer, engine);
    if (engine->alpn_bytes > 0)
        write_alpn(&writer, engine);
    if (engine->min_version <= TLS1_2_VERSION) {
        writer_bytes(&writer, (const uint8_t[]){0, EXTENSION_EC_POINT_FORMATS, 0, 2, 1, 0}, 6);
        writer_bytes(&writer, (const uint8_t[]){0, EXTENSION_EXTENDED_MASTER_SECRET, 0, 0}, 4);
        writer_u16(&writer, EXTENSION_RENEGOTIATION_INFO);
        writer_bytes(&writer, (const uint8_t[]){0, 1, 0}, 3);
    }
    if (engine->max_version >= TLS1_3_VERSION) {
        write_versions(&writer, engine);
        /* Also where no session is wanted: a server makes tickets for OpenSSL's clients then, too. */
        write_psk_modes(&writer, engine);
    }
    engine->extensions_bytes = writer.length;
    return !writer.full;
}

/* ---- ClientHello ---- */

static void write_server_name(struct writer *writer, const char *name) {
    writer_u16(writer, EXTENSION_SERVER_NAME);
    size_t extension = writer_begin(writer, 2), list = writer_begin(writer, 2);
    writer_u8(writer, 0);
    size_t host = writer_begin(writer, 2);
    writer_bytes(writer, name, strlen(name));
    writer_end(writer, host, 2);
    writer_end(writer, list, 2);
    writer_end(writer, extension, 2);
}

static void write_key_share(struct writer *writer, const struct key_share *share) {
    writer_u16(writer, EXTENSION_KEY_SHARE);
    size_t extension = writer_begin(writer, 2), list = writer_begin(writer, 2);
    writer_u16(writer, share->group->id);
    size_t bytes = writer_begin(writer, 2);
    writer_bytes(writer, share->bytes, share->group->public_bytes);
    writer_end(writer, bytes, 2);
    writer_end(writer, list, 2);
    writer_end(writer, extension, 2);
}

/* The last extension of all; its binder, the last bytes of the ClientHello, is still to be filled in. */
static void write_pre_shared_key(struct writer *writer, const struct session *session) {
    writer_u16(writer, EXTENSION_PRE_SHARED_KEY);
    size_t extension = writer_begin(writer, 2), identities = writer_begin(writer, 2), ticket = writer_begin(writer, 2);
    writer_bytes(writer, session->ticket, session->ticket_bytes);
    writer_end(writer, ticket, 2);
    writer_uint(writer, (uint32_t)session_age_ms(session) + session->age_add, 4);
    writer_end(writer, identities, 2);
    size_t binders = writer_begin(writer, 2), binder = writer_begin(writer, 1);
    writer_room(writer, hash_bytes(session->suite->hash));
    writer_end(writer, binder, 1);
    writer_end(writer, binders, 2);
    writer_end(writer, extension, 2);
}

/* The hash of what the transcript has and of this ClientHello without its binders. */
static void fill_binder(struct handshake *handshake, const struct hash *transcript) {
    size_t length = hash_bytes(handshake->offered_suite->hash), binders = 2 + 1 + length;
    uint8_t *hello = handshake->hello + RECORD_HEADER_BYTES, digest[HASH_BYTES_MAX];
    struct hash truncated = *transcript;

    hash_add(&truncated, hello, handshake->hello_bytes - binders);
    hash_end(&truncated, digest);
    binder_of(&handshake->early, digest, hello + handshake->hello_bytes - length);
}

static bool is_offered(const struct light_engine *engine, const struct session *session) {
    if (session->version < engine->min_version || session->version > engine->max_version ||
        !engine_offers_suite(engine, session->suite))
        return false;
    return session->version < TLS1_3_VERSION || session_age_ms(session) <= (uint64_t)session->lifetime_s * 1000;
}

static void choose_session_id(struct light_connection *connection, const struct session *session) {
    struct handshake *handshake = connection->handshake;

    handshake->session_id_bytes = 0;
    if (session && session->version < TLS1_3_VERSION && session->ticket_bytes == 0) {
        handshake->session_id_bytes = session->id_bytes;
        memcpy(handshake->session_id, session->id, session->id_bytes);
    } else if (connection->engine->max_version >= TLS1_3_VERSION || session) {
        /* TLS 1.3: for middleboxes, as everybody does (D.4). Before, with a ticket: to see that it is echoed. */
        handshake->session_id_bytes = sizeof handshake->session_id;
        light_random(handshake->session_id, sizeof handshake->session_id);
    }
}

static bool make_room(struct handshake *handshake, size_t bytes) {
    if (handshake->hello_size >= bytes)
        return true;
    free(handshake->hello);
    handshake->hello = malloc(bytes);
    handshake->hello_size = handshake->hello ? bytes : 0;
    return handshake->hello != NULL;
}

static bool begin_session(struct light_connection *connection, const struct session *session) {
    struct handshake *handshake = connection->handshake;

    handshake->offered_suite = NULL;
    if (!session || !is_offered(connection->engine, session))
        return false;
    connection->offered = true;
    handshake->offered_suite = session->suite;
    handshake->offered_version = session->version;
    handshake->offered_ticket = session->ticket_bytes > 0;
    handshake->offered_extended_master_secret = session->extended_master_secret;
    memcpy(handshake->offered_secret, session->secret, sizeof session->secret);
    if (session->version >= TLS1_3_VERSION)
        key_schedule_begin(&handshake->early, session->suite->hash, session->secret, hash_bytes(session->suite->hash));
    return true;
}

static void write_extensions(struct writer *writer, const struct light_connection *connection, const char *server_name,
                             const struct session *session) {
    const struct light_engine *engine = connection->engine;
    bool is_psk = session && session->version >= TLS1_3_VERSION;

    if (server_name && *server_name)
        write_server_name(writer, server_name);
    writer_bytes(writer, engine->extensions, engine->extensions_bytes);
    if (engine->min_version <= TLS1_2_VERSION && engine->config.resume &&
        engine->config.resume_with != RESUME_WITH_ID) {
        writer_u16(writer, EXTENSION_SESSION_TICKET);
        size_t ticket = writer_begin(writer, 2);
        if (session && !is_psk)
            writer_bytes(writer, session->ticket, session->ticket_bytes);
        writer_end(writer, ticket, 2);
    }
    if (engine->max_version >= TLS1_3_VERSION)
        write_key_share(writer, connection->handshake->share);
    if (is_psk)
        write_pre_shared_key(writer, session);
}

bool hello_write(struct light_connection *connection, const char *server_name, const struct session *session) {
    const struct light_engine *engine = connection->engine;
    struct handshake *handshake = connection->handshake;

    if (!begin_session(connection, session))
        session = NULL;
    if (!make_room(handshake, RECORD_HEADER_BYTES + HELLO_BYTES + (session ? session->ticket_bytes : 0)))
        return false;
    struct writer writer =
        writer_of(handshake->hello + RECORD_HEADER_BYTES, handshake->hello_size - RECORD_HEADER_BYTES);
    light_random(handshake->client_random, sizeof handshake->client_random);
    choose_session_id(connection, session);

    writer_u8(&writer, MESSAGE_CLIENT_HELLO);
    size_t message = writer_begin(&writer, 3);
    writer_u16(&writer, (uint16_t)engine_hello_version(engine));
    writer_bytes(&writer, handshake->client_random, sizeof handshake->client_random);
    size_t id = writer_begin(&writer, 1);
    writer_bytes(&writer, handshake->session_id, handshake->session_id_bytes);
    writer_end(&writer, id, 1);
    size_t suites = writer_begin(&writer, 2);
    for (int i = 0; i < engine->suite_count; i++)
        writer_u16(&writer, engine->suites[i]->id);
    writer_end(&writer, suites, 2);
    writer_u16(&writer, 0x0100); /* one compression method: none */
    size_t extensions = writer_begin(&writer, 2);
    write_extensions(&writer, connection, server_name, session);
    writer_end(&writer, extensions, 2);
    writer_end(&writer, message, 3);
    handshake->hello_bytes = writer.length;
    if (session && session->version >= TLS1_3_VERSION && !writer.full) {
        struct hash nothing;
        hash_begin(&nothing, session->suite->hash);
        fill_binder(handshake, &nothing);
    }
    return !writer.full && writer.length <= RECORD_PLAIN_MAX;
}

/* All of the first ClientHello's extensions, but for the share and the PSK that do not fit any more, and the cookie. */
static void copy_extensions(struct writer *writer, struct reader extensions, const struct handshake *handshake,
                            struct reader cookie) {
    while (extensions.left > 0) {
        uint16_t type = reader_u16(&extensions);
        struct reader body = reader_vector(&extensions, 2);
        if (type == EXTENSION_KEY_SHARE) {
            if (cookie.left > 0) {
                writer_u16(writer, EXTENSION_COOKIE);
                size_t extension = writer_begin(writer, 2), bytes = writer_begin(writer, 2);
                writer_bytes(writer, cookie.at, cookie.left);
                writer_end(writer, bytes, 2);
                writer_end(writer, extension, 2);
            }
            write_key_share(writer, handshake->share);
        } else if (type != EXTENSION_PRE_SHARED_KEY || handshake->offered_suite) {
            writer_u16(writer, type);
            size_t copy = writer_begin(writer, 2);
            writer_bytes(writer, body.at, body.left);
            writer_end(writer, copy, 2);
        }
    }
}

bool hello_rewrite(struct handshake *handshake, struct reader cookie) {
    uint8_t *first = handshake->hello;
    struct reader reader = reader_of(first + RECORD_HEADER_BYTES, handshake->hello_bytes);
    struct reader head = reader;
    size_t head_length;

    handshake->hello = NULL;
    handshake->hello_size = 0;
    if (!make_room(handshake, RECORD_HEADER_BYTES + HELLO_BYTES + reader.left + cookie.left)) {
        free(first);
        return false;
    }
    reader_take(&reader, 4 + 2 + 32);
    reader_vector(&reader, 1);
    reader_vector(&reader, 2);
    reader_vector(&reader, 1);
    head_length = head.left - reader.left;
    struct writer writer =
        writer_of(handshake->hello + RECORD_HEADER_BYTES, handshake->hello_size - RECORD_HEADER_BYTES);
    writer_u8(&writer, MESSAGE_CLIENT_HELLO);
    size_t message = writer_begin(&writer, 3);
    writer_bytes(&writer, head.at + 4, head_length - 4);
    size_t extensions = writer_begin(&writer, 2);
    copy_extensions(&writer, reader_vector(&reader, 2), handshake, cookie);
    writer_end(&writer, extensions, 2);
    writer_end(&writer, message, 3);
    free(first);
    handshake->hello_bytes = writer.length;
    if (writer.full || writer.length > RECORD_PLAIN_MAX)
        return false;
    if (handshake->offered_suite)
        fill_binder(handshake, &handshake->transcript);
    hash_add(&handshake->transcript, handshake->hello + RECORD_HEADER_BYTES, handshake->hello_bytes);
    return true;
}

/* ---- ServerHello ---- */

/* RFC 8446, 4.1.3: the hash of "HelloRetryRequest". */
static const uint8_t retry_random[32] = {0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c,
                                         0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb,
                                         0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c};

static bool read_extension(struct server_hello *hello, uint16_t type, struct reader body) {
    switch (type) {
    case EXTENSION_SUPPORTED_VERSIONS:
        hello->version = reader_u16(&body);
        return reader_is_done(&body);
    case EXTENSION_KEY_SHARE:
        hello->group = reader_u16(&body);
        if (!hello->is_retry)
            hello->share = reader_vector(&body, 2);
        return reader_is_done(&body) && hello->group != 0; /* which is reserved, and means none to us */
    case EXTENSION_COOKIE:
        hello->cookie = reader_vector(&body, 2);
        return reader_is_done(&body);
    case EXTENSION_PRE_SHARED_KEY:
        hello->has_psk = true;
        hello->psk = reader_u16(&body);
        return reader_is_done(&body);
    case EXTENSION_EXTENDED_MASTER_SECRET:
        hello->extended_master_secret = true;
        return reader_is_done(&body);
    case EXTENSION_SESSION_TICKET:
        hello->ticket = true;
        return reader_is_done(&body);
    case EXTENSION_ALPN:
        hello->alpn = body;
        return body.left > 0;
    default:
        return true; /* server name, point formats, renegotiation: nothing here depends on them */
    }
}

enum alert server_hello_read(struct server_hello *hello, struct reader body) {
    const uint8_t *random;

    *hello = (struct server_hello){
        .share = reader_of(body.at, 0), .cookie = reader_of(body.at, 0), .alpn = reader_of(body.at, 0)};
    hello->version = reader_u16(&body);
    random = reader_take(&body, 32);
    hello->session_id = reader_vector(&body, 1);
    hello->suite = reader_u16(&body);
    if (reader_u8(&body) != 0)
        return ALERT_ILLEGAL_PARAMETER; /* compression */
    if (body.failed || hello->session_id.left > 32)
        return ALERT_DECODE_ERROR;
    hello->random = random;
    hello->is_retry = memcmp(random, retry_random, sizeof retry_random) == 0;
    if (body.left == 0)
        return NO_ALERT; /* TLS 1.2 and before may have none */
    struct reader extensions = reader_vector(&body, 2);
    if (!reader_is_done(&body))
        return ALERT_DECODE_ERROR;
    while (extensions.left > 0) {
        uint16_t type = reader_u16(&extensions);
        struct reader extension = reader_vector(&extensions, 2);
        if (extensions.failed || !read_extension(hello, type, extension))
            return ALERT_DECODE_ERROR;
    }
    return NO_ALERT;
}
