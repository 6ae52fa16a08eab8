/* SPDX-License-Identifier: MIT */
/*
 * Resumes COUNT times, TLS 1.2, one of so many sessions that were made up, drawn at random each time, and needs them
 * all to be there. The ID of each is the SHA-256 of a zero byte and its number, eight bytes, and its master secret the
 * SHA-384 of a one and the same: so a client can have a million of them and take no room. What else a session has is
 * that of one that it gets from the server first.
 *
 *   session-resumer HOST:PORT SESSIONS COUNT
 */
#include "address.h"

#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES    8 /* so that the server always has something to do */
#define NUMBER_BYTES 8
#define SECRET_BYTES 48
#define ID_BYTES     32

static bool digest_number(uint8_t kind, uint64_t number, const EVP_MD *kind_of_digest, uint8_t *digest) {
    uint8_t bytes[1 + NUMBER_BYTES] = {kind};

    for (int i = 0; i < NUMBER_BYTES; i++)
        bytes[1 + i] = (uint8_t)(number >> (8 * (NUMBER_BYTES - 1 - i)));
    return EVP_Digest(bytes, sizeof bytes, digest, NULL, kind_of_digest, NULL) == 1;
}

/* A copy of the session, with ID and secret of this number. */
static SSL_SESSION *make_session(const SSL_SESSION *like, uint64_t number) {
    uint8_t id[ID_BYTES], secret[SECRET_BYTES];
    SSL_SESSION *session = SSL_SESSION_dup(like);

    if (session && digest_number(0, number, EVP_sha256(), id) && digest_number(1, number, EVP_sha384(), secret) &&
        SSL_SESSION_set1_id(session, id, sizeof id) && SSL_SESSION_set1_master_key(session, secret, sizeof secret))
        return session;
    SSL_SESSION_free(session);
    return NULL;
}

/* One handshake; with a session, it must be resumed. Returns the session of a full one, to be freed. */
static bool visit(SSL_CTX *context, const struct address *server, SSL_SESSION *offered, SSL_SESSION **got) {
    int fd = socket(server->sockaddr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SSL *ssl = SSL_new(context);
    bool done = fd >= 0 && ssl && connect(fd, &server->sockaddr.any, server->length) == 0 && SSL_set_fd(ssl, fd) &&
                (!offered || SSL_set_session(ssl, offered)) && SSL_connect(ssl) == 1 &&
                (!offered || SSL_session_reused(ssl));

    if (done && got)
        *got = SSL_get1_session(ssl);
    if (ssl) /* or the session would count as broken */
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
    close(fd);
    return done;
}

static bool resume_some(SSL_CTX *context, const struct address *server, const SSL_SESSION *like, uint64_t sessions,
                        uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number;
        SSL_SESSION *session;
        bool done;

        RAND_bytes((uint8_t *)&number, sizeof number);
        session = make_session(like, number % sessions);
        done = session && visit(context, server, session, NULL);
        SSL_SESSION_free(session);
        if (!done)
            return false;
    }
    return true;
}

int main(int argc, char **argv) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    uint64_t sessions = argc == 4 ? strtoull(argv[2], NULL, 10) : 0,
             count = argc == 4 ? strtoull(argv[3], NULL, 10) : 0;
    SSL_SESSION *like = NULL;
    struct address server;
    int failed = 0, status;

    if (!sessions || address_parse(&server, argv[1])) {
        fprintf(stderr, "session-resumer HOST:PORT SESSIONS COUNT\n");
        return 2;
    }
    SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    if (!visit(context, &server, NULL, &like)) {
        fprintf(stderr, "session-resumer: no handshake\n");
        return 1;
    }
    for (uint64_t i = 0; i < PROCESSES; i++)
        if (fork() == 0)
            _exit(!resume_some(context, &server, like, sessions, (count + i) / PROCESSES));
    while (wait(&status) > 0)
        failed |= status != 0;
    if (failed)
        fprintf(stderr, "session-resumer: a session was not resumed\n");
    SSL_SESSION_free(like);
    SSL_CTX_free(context);
    return failed;
}
