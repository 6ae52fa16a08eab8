/* SPDX-License-Identifier: MIT */
#include "stream.h"

#include "socket_bio.h"

#include <errno.h>
#include <ev.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

void stream_open_plain(struct stream *stream, int fd) {
    *stream = (struct stream){.fd = fd};
}

bool stream_open_tls(struct stream *stream, int fd, SSL_CTX *context, bool as_server) {
    BIO *bio;

    *stream = (struct stream){.fd = fd, .ssl = SSL_new(context)};
    bio = stream->ssl ? socket_bio_new(fd) : NULL;
    if (!bio) {
        stream_close(stream);
        return false;
    }
    SSL_set_bio(stream->ssl, bio, bio);
    if (as_server)
        SSL_set_accept_state(stream->ssl);
    else
        SSL_set_connect_state(stream->ssl);
    return true;
}

static enum stream_result system_result(struct stream *stream, int direction) {
    if (errno == EAGAIN || errno == EINTR) {
        stream->wants = direction;
        return STREAM_RETRY;
    }
    stream->error = errno;
    stream->tls_error = 0;
    return STREAM_ERROR;
}

/* What a return value <= 0 of the TLS library means. The error queue was cleared before the call that gave it. */
static enum stream_result tls_result(struct stream *stream, int returned) {
    int saved_errno = errno;

    switch (SSL_get_error(stream->ssl, returned)) {
    case SSL_ERROR_WANT_READ:
        stream->wants = EV_READ;
        return STREAM_RETRY;
    case SSL_ERROR_WANT_WRITE:
        stream->wants = EV_WRITE;
        return STREAM_RETRY;
    case SSL_ERROR_WANT_CLIENT_HELLO_CB:
        stream->wants = 0;
        return STREAM_RETRY;
    case SSL_ERROR_ZERO_RETURN:
        /* With SSL_OP_IGNORE_UNEXPECTED_EOF this is a close_notify or a FIN: the BIO knows if it has met the FIN. */
        stream->hung_up = BIO_eof(SSL_get_rbio(stream->ssl));
        stream->wants_close = SSL_version(stream->ssl) < TLS1_3_VERSION;
        return STREAM_EOF;
    case SSL_ERROR_SYSCALL:
        /* A FIN without close_notify is STREAM_EOF through SSL_OP_IGNORE_UNEXPECTED_EOF, where that is set. */
        stream->error = saved_errno;
        stream->tls_error = 0;
        return STREAM_ERROR;
    default:
        stream->error = 0;
        stream->tls_error = ERR_peek_error();
        return STREAM_ERROR;
    }
}

/*
 * A server of TLS 1.3 whose flight is out has only tickets left to send, for which nobody waits: they leave with the
 * first answer. After a HelloRetryRequest it is in the same state, but the flight, and its Finished, are still to come.
 */
static bool only_tickets_are_left(const SSL *ssl) {
    char finished;

    return SSL_is_server(ssl) && SSL_get_state(ssl) == TLS_ST_EARLY_DATA &&
           SSL_get_finished(ssl, &finished, sizeof finished) > 0;
}

/* Closing a socket in which something is unread would throw away what waits for more: tcp(7) has this send it. */
static void send_what_waits(const struct stream *stream) {
    const int one = 1;

    setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

enum stream_result stream_handshake(struct stream *stream) {
    enum stream_result result;
    bool more;
    int done;

    if (!stream->ssl)
        return STREAM_OK;
    ERR_clear_error();
    errno = 0;
    more = only_tickets_are_left(stream->ssl);
    socket_bio_more(SSL_get_wbio(stream->ssl), more);
    done = SSL_do_handshake(stream->ssl);
    result = done == 1 ? STREAM_OK : tls_result(stream, done);
    if (more && result == STREAM_ERROR) /* an alert went instead */
        send_what_waits(stream);
    socket_bio_more(SSL_get_wbio(stream->ssl), false);
    return result;
}

enum stream_result stream_read(struct stream *stream, char *bytes, size_t size, size_t *got) {
    ssize_t count;

    if (stream->ssl) {
        ERR_clear_error();
        errno = 0;
        int done = SSL_read_ex(stream->ssl, bytes, size, got);
        return done == 1 ? STREAM_OK : tls_result(stream, done);
    }
    count = recv(stream->fd, bytes, size, 0);
    if (count == 0)
        return STREAM_EOF;
    if (count < 0)
        return system_result(stream, EV_READ);
    *got = (size_t)count;
    return STREAM_OK;
}

enum stream_result stream_write(struct stream *stream, const char *bytes, size_t length, size_t *put) {
    ssize_t count;

    if (stream->ssl) {
        ERR_clear_error();
        errno = 0;
        /* Three records are what the kernel sends as one segment; more of them would only wait for each other. */
        socket_bio_more(SSL_get_wbio(stream->ssl),
                        length > SSL3_RT_MAX_PLAIN_LENGTH && length <= 3 * SSL3_RT_MAX_PLAIN_LENGTH);
        int done = SSL_write_ex(stream->ssl, bytes, length, put);
        return done == 1 ? STREAM_OK : tls_result(stream, done);
    }
    count = send(stream->fd, bytes, length, MSG_NOSIGNAL);
    if (count < 0)
        return system_result(stream, EV_WRITE);
    *put = (size_t)count;
    return STREAM_OK;
}

enum stream_result stream_say_end(struct stream *stream) {
    int done;

    if (stream->said_end)
        return STREAM_OK;
    if (stream->ssl && !stream->hung_up) {
        ERR_clear_error();
        errno = 0;
        socket_bio_more(SSL_get_wbio(stream->ssl), true); /* the FIN */
        done = SSL_shutdown(stream->ssl);
        if (done < 0)
            return tls_result(stream, done);
    }
    stream->said_end = true;
    return STREAM_OK;
}

enum stream_result stream_end(struct stream *stream) {
    enum stream_result result = stream_say_end(stream);

    if (result != STREAM_OK || stream->sent_end)
        return result;
    stream->sent_end = true;
    if (shutdown(stream->fd, SHUT_WR) != 0)
        return system_result(stream, EV_WRITE);
    return STREAM_OK;
}

bool stream_has_pending(const struct stream *stream) {
    return stream->ssl && SSL_has_pending(stream->ssl);
}

void stream_close(struct stream *stream) {
    if (stream->ssl) {
        /*
         * An SSL freed without a close_notify takes its session out of the cache: right after an error, wrong for a
         * client that merely hung up first.
         */
        if (!stream->error && !stream->tls_error)
            SSL_set_shutdown(stream->ssl, SSL_get_shutdown(stream->ssl) | SSL_SENT_SHUTDOWN);
        SSL_free(stream->ssl);
    }
    if (stream->fd >= 0)
        close(stream->fd);
    *stream = (struct stream){.fd = -1};
}

int stream_release(struct stream *stream) {
    int fd = stream->fd;

    stream->fd = -1;
    stream_close(stream);
    return fd;
}
