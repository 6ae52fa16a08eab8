/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer on all that the light engine receives, also behind the keys.
 *
 * The input is a script for a server: raw bytes, records sealed under the very keys that the connection expects, and
 * right messages in between, so that what is wrong is met in every state of the handshake and after it. The server has
 * no keys of its own: it uses those of the connection.
 *
 *   byte 0       version and suite
 *   then, again and again: a command (see run), and for those with bytes, their length (1 byte) and the bytes
 */
#include "light/cipher_cache.h"
#include "light/connection.h"
#include "light/engine_light.h"
#include "light/handshake.h"

#include <openssl/ssl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    int version;
    const char *cipher;
} kinds[] = {
    {TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256"},
    {TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"},
    {TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256"},
    {TLS1_2_VERSION, "AES128-SHA256"},
    {TLS1_VERSION, "ECDHE-RSA-AES128-SHA"},
    {0, NULL},
};

#define KINDS (sizeof kinds / sizeof *kinds)

static struct engine *engines[KINDS];
static void *sessions[KINDS];

static void session_arrived(void *owner, void *session) {
    size_t kind = *(size_t *)owner;

    session_free(sessions[kind]);
    sessions[kind] = session;
}

struct server {
    struct light_connection *connection;
    int fd;
    bool ended; /* the connection is at its end */
};

static void send_bytes(struct server *server, const uint8_t *bytes, size_t length) {
    (void)!send(server->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Under the keys that the connection will open it with. */
static void send_record(struct server *server, enum content_type type, const uint8_t *bytes, size_t length) {
    struct direction direction = server->connection->in;
    uint8_t record[RECORD_PLAIN_MAX + RECORD_OVERHEAD_MAX];

    direction.key_id = 0;
    size_t sealed = record_seal(&direction, type, bytes, length, record);
    direction_end(&direction);
    send_bytes(server, record, sealed);
}

static void send_server_hello(struct server *server, bool resumed) {
    const struct light_engine *engine = server->connection->engine;
    const struct handshake *handshake = server->connection->handshake;
    bool is_13 = engine->max_version >= TLS1_3_VERSION;
    uint8_t bytes[400];
    struct writer writer = writer_of(bytes, sizeof bytes);

    if (!handshake || !handshake->share)
        return;
    writer_u8(&writer, MESSAGE_SERVER_HELLO);
    size_t message = writer_begin(&writer, 3);
    writer_u16(&writer, is_13 ? TLS1_2_VERSION : (uint16_t)engine->max_version);
    for (int i = 0; i < 32; i++)
        writer_u8(&writer, (uint8_t)i);
    size_t id = writer_begin(&writer, 1);
    if (is_13 || resumed)
        writer_bytes(&writer, handshake->session_id, handshake->session_id_bytes);
    else
        writer_bytes(&writer, "an id", 5);
    writer_end(&writer, id, 1);
    writer_u16(&writer, engine->suites[0]->id);
    writer_u8(&writer, 0);
    size_t extensions = writer_begin(&writer, 2);
    if (is_13) {
        writer_bytes(&writer, (const uint8_t[]){0, 43, 0, 2, 3, 4, 0, 51}, 8);
        size_t extension = writer_begin(&writer, 2);
        writer_u16(&writer, handshake->share->group->id);
        size_t share = writer_begin(&writer, 2);
        writer_bytes(&writer, handshake->share->bytes, handshake->share->group->public_bytes);
        writer_end(&writer, share, 2);
        writer_end(&writer, extension, 2);
        if (resumed)
            writer_bytes(&writer, (const uint8_t[]){0, 41, 0, 2, 0, 0}, 6);
    } else {
        writer_bytes(&writer, (const uint8_t[]){0, 23, 0, 0, 0, 35, 0, 0}, 8);
    }
    writer_end(&writer, extensions, 2);
    writer_end(&writer, message, 3);
    send_record(server, CONTENT_HANDSHAKE, bytes, writer.length);
}

/* Asks for the other group. */
static void send_retry(struct server *server) {
    static const uint8_t random[32] = {0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c,
                                       0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb,
                                       0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c};
    const struct light_engine *engine = server->connection->engine;
    const struct handshake *handshake = server->connection->handshake;
    uint8_t bytes[200];
    struct writer writer = writer_of(bytes, sizeof bytes);

    if (!handshake)
        return;
    writer_u8(&writer, MESSAGE_SERVER_HELLO);
    size_t message = writer_begin(&writer, 3);
    writer_u16(&writer, TLS1_2_VERSION);
    writer_bytes(&writer, random, sizeof random);
    size_t id = writer_begin(&writer, 1);
    writer_bytes(&writer, handshake->session_id, handshake->session_id_bytes);
    writer_end(&writer, id, 1);
    writer_u16(&writer, engine->suites[0]->id);
    writer_u8(&writer, 0);
    writer_bytes(&writer,
                 (const uint8_t[]){0, 21, 0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 23, 0, 44, 0, 5, 0, 3, 'c', 'k', 'e'}, 23);
    writer_end(&writer, message, 3);
    send_record(server, CONTENT_HANDSHAKE, bytes, writer.length);
}

static void send_finished13(struct server *server) {
    struct handshake *handshake = server->connection->handshake;
    const struct suite *suite = server->connection->suite;
    uint8_t finished[MESSAGE_HEADER_BYTES + HASH_BYTES_MAX] = {MESSAGE_FINISHED}, transcript[HASH_BYTES_MAX];
    struct hmac secret;

    if (!handshake || !server->connection->in.suite)
        return;
    finished[3] = (uint8_t)hash_bytes(suite->hash);
    hash_peek(&handshake->transcript, transcript);
    hmac_set_key(&secret, suite->hash, handshake->server_secret, hash_bytes(suite->hash));
    finished_of(&secret, transcript, finished + MESSAGE_HEADER_BYTES);
    send_record(server, CONTENT_HANDSHAKE, finished, MESSAGE_HEADER_BYTES + hash_bytes(suite->hash));
}

static void send_finished12(struct server *server) {
    struct handshake *handshake = server->connection->handshake;
    uint8_t finished[MESSAGE_HEADER_BYTES + 12] = {MESSAGE_FINISHED, 0, 0, 12}, transcript[HASH_BYTES_MAX];

    if (!handshake || handshake->expect != EXPECT_FINISHED12)
        return;
    hash_peek(&handshake->transcript, transcript);
    prf_make(&handshake->prf, "server finished", transcript, hash_bytes(handshake->transcript.kind), NULL, 0,
             finished + MESSAGE_HEADER_BYTES, 12);
    send_record(server, CONTENT_HANDSHAKE, finished, sizeof finished);
}

static void step(struct server *server, size_t size) {
    struct light_connection *connection = server->connection;
    static uint8_t bytes[65536], drained[65536];
    enum stream_result result = STREAM_RETRY;
    size_t done;

    /* Twice: after a short read the first one does not read. */
    for (int i = 0; i < 2 && result == STREAM_RETRY; i++)
        result = connection->established ? connection_read(connection, bytes, 1 + size * 64, &done)
                                         : connection_handshake(connection);
    if (result == STREAM_EOF || result == STREAM_ERROR)
        server->ended = true;
    while (recv(server->fd, drained, sizeof drained, MSG_DONTWAIT) > 0)
        ;
}

enum command {
    COMMAND_RAW,
    COMMAND_HANDSHAKE,
    COMMAND_ALERT,
    COMMAND_DATA,
    COMMAND_ANY_TYPE,
    COMMAND_SERVER_HELLO,
    COMMAND_SERVER_HELLO_RESUMED,
    COMMAND_FINISHED13,
    COMMAND_CHANGE_CIPHER_SPEC,
    COMMAND_FINISHED12,
    COMMAND_STEP,
    COMMAND_WRITE,
    COMMAND_END,
    COMMAND_SHUT,
    COMMAND_RETRY,
    COMMANDS
};

static void run(struct server *server, struct reader script) {
    while (script.left > 0 && !server->ended) {
        enum command command = (enum command)(reader_u8(&script) % COMMANDS);
        struct reader bytes = {.at = script.at};
        size_t put;
        if (command <= COMMAND_ANY_TYPE || command == COMMAND_WRITE)
            bytes = reader_vector(&script, 1);
        switch (command) {
        case COMMAND_RAW:
            send_bytes(server, bytes.at, bytes.left);
            break;
        case COMMAND_HANDSHAKE:
            send_record(server, CONTENT_HANDSHAKE, bytes.at, bytes.left);
            break;
        case COMMAND_ALERT:
            send_record(server, CONTENT_ALERT, bytes.at, bytes.left);
            break;
        case COMMAND_DATA:
            send_record(server, CONTENT_APPLICATION_DATA, bytes.at, bytes.left);
            break;
        case COMMAND_ANY_TYPE:
            if (bytes.left > 0)
                send_record(server, (enum content_type)bytes.at[0], bytes.at + 1, bytes.left - 1);
            break;
        case COMMAND_SERVER_HELLO:
        case COMMAND_SERVER_HELLO_RESUMED:
            send_server_hello(server, command == COMMAND_SERVER_HELLO_RESUMED);
            break;
        case COMMAND_FINISHED13:
            send_finished13(server);
            break;
        case COMMAND_CHANGE_CIPHER_SPEC:
            send_record(server, CONTENT_CHANGE_CIPHER_SPEC, (const uint8_t[]){1}, 1);
            break;
        case COMMAND_FINISHED12:
            send_finished12(server);
            break;
        case COMMAND_STEP:
            break;
        case COMMAND_WRITE:
            if (server->connection->established && bytes.left > 0)
                connection_write(server->connection, bytes.at, bytes.left, &put);
            break;
        case COMMAND_END:
            if (server->connection->established)
                connection_end(server->connection);
            break;
        case COMMAND_SHUT:
            shutdown(server->fd, SHUT_WR);
            break;
        case COMMAND_RETRY:
            send_retry(server);
            break;
        case COMMANDS:
            break;
        }
        step(server, bytes.left);
    }
}

static struct engine *engine_of(size_t kind) {
    if (!engines[kind]) {
        struct engine_config config = {.tls_version = kinds[kind].version,
                                       .cipher = kinds[kind].cipher,
                                       .groups = "X25519:P-256",
                                       .resume = true,
                                       .session_arrived = session_arrived};
        if (engine_light_new(&engines[kind], &config))
            abort();
    }
    return engines[kind];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct reader script = reader_of(data, size);
    size_t kind = reader_u8(&script) % KINDS;
    struct light_engine *engine = (struct light_engine *)engine_of(kind);
    struct light_connection connection;
    int pair[2];

    if (size < 2 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) != 0)
        return 0;
    if (connection_open(&connection, engine, pair[1], "localhost", sessions[kind], &kind)) {
        struct server server = {.connection = &connection, .fd = pair[0]};
        step(&server, 0);
        run(&server, script);
        connection_close(&connection);
    }
    close(pair[0]);
    return 0;
}
