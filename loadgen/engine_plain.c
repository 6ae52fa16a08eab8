/* SPDX-License-Identifier: MIT */
#include "engine.h"

static bool plain_open(struct engine *engine, void *connection, int fd, const char *server_name, const char *address,
                       void *session, void *owner) {
    (void)engine, (void)server_name, (void)address, (void)session, (void)owner;
    stream_open_plain(connection, fd);
    return true;
}

static enum stream_result plain_handshake(void *connection) {
    (void)connection;
    return STREAM_OK;
}

static enum stream_result plain_read(void *connection, char *bytes, size_t size, size_t *got) {
    return stream_read(connection, bytes, size, got);
}

static enum stream_result plain_write(void *connection, const char *bytes, size_t length, size_t *put) {
    return stream_write(connection, bytes, length, put);
}

static enum stream_result plain_end(void *connection) {
    return stream_end(connection);
}

static int plain_wants(const void *connection) {
    return ((const struct stream *)connection)->wants;
}

static enum load_error plain_why(const void *connection) {
    return load_error_of_io(((const struct stream *)connection)->error);
}

static void plain_facts(void *connection, struct engine_facts *facts) {
    (void)connection;
    *facts = (struct engine_facts){
        .tls_version = "", .cipher = "", .group = "", .sigalg = "", .alpn = "", .certificate_key = ""};
}

static void plain_close(void *connection) {
    stream_close(connection);
}

static int plain_release(void *connection) {
    return stream_release(connection);
}

static bool plain_session_single_use(const void *session) {
    (void)session;
    return false;
}

static void plain_session_free(void *session) {
    (void)session;
}

struct engine *engine_plain_new(void) {
    static struct engine engine = {
        .name = "plain",
        .connection_bytes = sizeof(struct stream),
        .open = plain_open,
        .handshake = plain_handshake,
        .read = plain_read,
        .write = plain_write,
        .end = plain_end,
        .wants = plain_wants,
        .why = plain_why,
        .facts = plain_facts,
        .close = plain_close,
        .release = plain_release,
        .session_single_use = plain_session_single_use,
        .session_free = plain_session_free,
    };

    return &engine;
}
