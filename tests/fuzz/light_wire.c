/* SPDX-License-Identifier: MIT */
#include "light_wire.h"

#include "light/connection.h"
#include "light/engine_light.h"
#include "light/handshake.h"

#include <errno.h>
#include <ev.h>
#include <openssl/ssl.h>
#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define OUR_FD    1000000 /* of no file */
#define STEPS_MAX 100000  /* calls without an end: it spins */

static struct wire *at_work;

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* ---- What the engine calls: see --wrap in the Makefile ---- */

ssize_t __wrap_recv(int fd, void *bytes, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t length, int flags);
int __wrap_shutdown(int fd, int how);
int __wrap_close(int fd);
void __wrap_light_random(uint8_t *bytes, size_t length);
uint64_t __wrap_session_age_ms(const struct session *session);

static uint64_t random_state;

ssize_t __wrap_recv(int fd, void *bytes, size_t size, int flags) {
    size_t left = at_work->in_length - at_work->in_at;

    (void)flags;
    MUST(fd == OUR_FD && size > 0);
    ASAN_UNPOISON_MEMORY_REGION(bytes, size);
    if (left == 0 && at_work->fin)
        return 0;
    if (left == 0) {
        errno = EAGAIN;
        return -1;
    }
    if (left > size)
        left = size;
    if (at_work->piece > 0 && left > at_work->piece)
        left = at_work->piece;
    memcpy(bytes, at_work->in + at_work->in_at, left);
    /* What lies behind it in the engine's buffer is not to be looked at: until the next step. */
    ASAN_POISON_MEMORY_REGION((uint8_t *)bytes + left, size - left);
    at_work->in_at += left;
    return (ssize_t)left;
}

ssize_t __wrap_send(int fd, const void *bytes, size_t length, int flags) {
    (void)flags;
    MUST(fd == OUR_FD);
    if (at_work->room == 0) {
        errno = EAGAIN;
        return -1;
    }
    if (length > at_work->room)
        length = at_work->room;
    at_work->room -= length;
    if (at_work->sink)
        at_work->sink(at_work->user, bytes, length);
    return (ssize_t)length;
}

int __wrap_shutdown(int fd, int how) {
    (void)how;
    MUST(fd == OUR_FD);
    return 0;
}

int __wrap_close(int fd) {
    MUST(fd == OUR_FD);
    return 0;
}

void __wrap_light_random(uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        random_state = random_state * 6364136223846793005U + 1442695040888963407U;
        bytes[i] = (uint8_t)(random_state >> 56);
    }
}

uint64_t __wrap_session_age_ms(const struct session *session) {
    (void)session;
    return 1000;
}

/* ---- Engines ---- */

static void session_arrived(void *owner, void *session) {
    struct wire *wire = owner;

    session_free(wire->session);
    wire->session = session;
}

struct light_engine *wire_engine(unsigned setting) {
    static struct engine *engines[SETTINGS];
    static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION, 0, TLS1_1_VERSION};
    static const char *const ciphers[] = {NULL, "ECDHE-RSA-AES128-SHA256:AES128-SHA", NULL, NULL};
    static const enum psk_mode psk_modes[] = {PSK_MODE_KE, PSK_MODE_DHE_KE, PSK_MODE_ANY, PSK_MODE_DHE_KE};

    setting %= SETTINGS;
    if (!engines[setting]) {
        struct engine_config config = {
            .tls_version = versions[setting % 4],
            .cipher = ciphers[setting % 4 == 1 && setting & 4 ? 1 : 0],
            .groups = "X25519:P-256",
            .alpn = "http/1.1",
            .resume = !(setting & 8),
            .resume_with = setting % 4 == 1 && setting & 16 ? RESUME_WITH_ID : RESUME_WITH_ANY,
            .key_share = (setting & 48) == 48 ? KEY_SHARE_FRESH : KEY_SHARE_BASE,
            .psk_mode = setting & 4 ? psk_modes[setting % 4] : PSK_MODE_DHE_KE,
            .flush_handshake = (setting & 32) != 0,
            .session_arrived = session_arrived,
        };
        const char *reason = engine_light_new(&engines[setting], &config);
        if (reason)
            fprintf(stderr, "%s\n", reason);
        MUST(!reason);
    }
    return (struct light_engine *)engines[setting];
}

/* ---- Life ---- */

static void check(const struct wire *wire) {
    const struct light_connection *connection = wire->connection;

    MUST(wire->last >= STREAM_OK && wire->last <= STREAM_ERROR);
    MUST(wire->last != STREAM_ERROR || connection->error < LOAD_ERRORS);
    MUST(connection->message.length <= MESSAGE_BYTES_MAX + RECORD_PLAIN_MAX + 4);
    MUST(connection->received.length <= SCRATCH_BYTES);
    MUST(connection->plain.length <= RECORD_PLAIN_MAX);
    MUST(!connection->established || !connection->handshake);
    MUST(!connection->established || connection->suite);
}

void wire_begin(struct wire *wire, unsigned setting) {
    *wire = (struct wire){.engine = wire_engine(setting), .room = SIZE_MAX, .reads = setting & 32 ? 16 : 0};
    wire->connection = calloc(1, sizeof *wire->connection);
    /* Nothing of the last input is left but the engine's arrangements. */
    certificates_free(&wire->engine->certificates);
    memset(&wire->engine->certificates, 0, sizeof wire->engine->certificates);
    handshakes_free(wire->engine);
    wire->engine->pooled = 0;
    at_work = wire;
    wire_open(wire);
}

void wire_open(struct wire *wire) {
    struct engine *engine = &wire->engine->engine;

    wire->in_at = wire->in_length = 0;
    wire->fin = false;
    random_state = 1;
    MUST(engine->open(engine, wire->connection, OUR_FD, "localhost", NULL, wire->session, wire));
    wire->last = engine->handshake(wire->connection);
    check(wire);
}

void wire_reopen(struct wire *wire) {
    wire->engine->engine.close(wire->connection);
    memset(wire->connection, 0, sizeof *wire->connection);
    wire_open(wire);
}

void wire_end(struct wire *wire) {
    wire->engine->engine.close(wire->connection);
    free(wire->connection);
    session_free(wire->session);
    free(wire->in);
    at_work = NULL;
}

void wire_give(struct wire *wire, const uint8_t *bytes, size_t length) {
    if (length == 0)
        return;
    /* In memory of its own size, so that a byte too far is seen. */
    size_t left = wire->in_length - wire->in_at;
    uint8_t *grown = malloc(left + length);
    MUST(grown);
    if (left > 0)
        memcpy(grown, wire->in + wire->in_at, left);
    memcpy(grown + left, bytes, length);
    free(wire->in);
    wire->in = grown;
    wire->in_at = 0;
    wire->in_length = left + length;
}

static enum stream_result step_once(struct wire *wire) {
    struct engine *engine = &wire->engine->engine;
    struct engine_facts facts;
    static char bytes[4096]; /* smaller than a record may be */
    size_t got = 0, size;

    if (!wire->connection->established || wire->connection->unsent.bytes) {
        enum stream_result result = engine->handshake(wire->connection);
        if (result != STREAM_OK || !wire->connection->established)
            return result;
        engine->facts(wire->connection, &facts);
        MUST(*facts.tls_version && *facts.cipher);
    }
    size = wire->reads > 0 ? wire->reads : sizeof bytes;
    enum stream_result result = engine->read(wire->connection, bytes, size, &got);
    MUST(result != STREAM_OK || (got > 0 && got <= size));
    return result;
}

void wire_step(struct wire *wire) {
    struct engine *engine = &wire->engine->engine;
    bool again = true;

    for (int i = 0; again; i++) {
        size_t before = wire->in_at;
        MUST(i < STEPS_MAX);
        wire->last = step_once(wire);
        ASAN_UNPOISON_MEMORY_REGION(wire->engine->in, sizeof wire->engine->in);
        check(wire);
        /* As an event loop would: again as long as what it waits for is there. */
        again = wire->last == STREAM_OK ||
                (wire->last == STREAM_RETRY &&
                 (before != wire->in_at ||
                  (engine->wants(wire->connection) & EV_READ && (wire->in_at < wire->in_length || wire->fin)) ||
                  (engine->wants(wire->connection) & EV_WRITE && wire->room > 0)));
    }
    if (wire->last == STREAM_ERROR) {
        /* And so it stays. */
        enum load_error why = wire->connection->error;
        if (!wire->connection->established)
            MUST(engine->handshake(wire->connection) == STREAM_ERROR);
        MUST(wire->connection->error == why);
    }
}

void wire_write(struct wire *wire, size_t length) {
    static const char bytes[65536];
    size_t put = 0, done = 0;

    if (!wire->connection->established)
        return;
    while (done < length) {
        enum stream_result result = wire->engine->engine.write(wire->connection, bytes + done, length - done, &put);
        if (result != STREAM_OK)
            break;
        MUST(put > 0 && put <= length - done);
        done += put;
    }
    /* The same bytes must come again: where there is no room, there is nothing more to be said by this connection. */
    if (done < length)
        wire->room = SIZE_MAX;
    while (done < length) {
        if (wire->engine->engine.write(wire->connection, bytes + done, length - done, &put) != STREAM_OK)
            break;
        done += put;
    }
}

void wire_finish(struct wire *wire) {
    if (wire->connection->established)
        wire->engine->engine.end(wire->connection);
}

/* ---- The peer ---- */

void wire_give_record(struct wire *wire, uint8_t type, const uint8_t *bytes, size_t length) {
    static uint8_t record[RECORD_PLAIN_MAX + RECORD_OVERHEAD_MAX];
    struct direction peer = wire->connection->in;

    if (length > RECORD_PLAIN_MAX)
        length = RECORD_PLAIN_MAX;
    peer.key_id = 0; /* the cache's context is for decryption */
    size_t sealed = record_seal(&peer, type, bytes, length, record);
    direction_end(&peer);
    MUST(sealed > 0);
    wire_give(wire, record, sealed);
}

void wire_give_finished(struct wire *wire) {
    const struct light_connection *connection = wire->connection;
    const struct handshake *handshake = connection->handshake;
    uint8_t message[MESSAGE_HEADER_BYTES + HASH_BYTES_MAX] = {MESSAGE_FINISHED}, transcript[HASH_BYTES_MAX];

    if (!handshake || (handshake->expect != EXPECT_FINISHED && handshake->expect != EXPECT_FINISHED12))
        return;
    hash_peek(&handshake->transcript, transcript);
    if (connection->version >= TLS1_3_VERSION) {
        struct hmac secret;
        message[3] = (uint8_t)hash_bytes(connection->suite->hash);
        hmac_set_key(&secret, connection->suite->hash, handshake->server_secret, message[3]);
        finished_of(&secret, transcript, message + MESSAGE_HEADER_BYTES);
    } else {
        message[3] = 12;
        prf_make(&handshake->prf, "server finished", transcript, hash_bytes(handshake->transcript.kind), NULL, 0,
                 message + MESSAGE_HEADER_BYTES, 12);
    }
    wire_give_record(wire, CONTENT_HANDSHAKE, message, (size_t)MESSAGE_HEADER_BYTES + message[3]);
}
