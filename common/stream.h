/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_STREAM_H
#define TLSDYNO_STREAM_H
/*
 * A non-blocking stream of bytes over a socket, in the clear or in TLS, with one way to say what happened. Callers do
 * not know which it is, except that a TLS stream must shake hands first.
 */
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

enum stream_result {
    STREAM_OK,
    STREAM_RETRY, /* not now: wait until the socket is ready for stream.wants, or somebody says so where that is 0 */
    STREAM_EOF,   /* the peer will send no more (FIN, close_notify); writing may still work */
    STREAM_ERROR, /* the stream is of no more use: error and tls_error say why */
};

struct stream {
    int fd;        /* -1: no stream */
    SSL *ssl;      /* NULL: in the clear */
    int wants;     /* after STREAM_RETRY: EV_READ or EV_WRITE; 0: whoever has the ClientHello wait says when */
    bool said_end; /* close_notify is out, or there is none to send */
    bool sent_end; /* and the FIN */
    bool hung_up;  /* after STREAM_EOF on TLS: the peer went without a close_notify, so it is not listening any more */
    bool wants_close;        /* after STREAM_EOF on TLS before 1.3: to be closed both ways at once, RFC 5246, 7.2.1 */
    int error;               /* errno of STREAM_ERROR, 0 if it was TLS's */
    unsigned long tls_error; /* OpenSSL's code of STREAM_ERROR, 0 if none */
};

/* The stream owns fd from here on. */
void stream_open_plain(struct stream *stream, int fd);

/* The stream owns fd and a new SSL of context; false if that could not be made (fd is closed then). */
bool stream_open_tls(struct stream *stream, int fd, SSL_CTX *context, bool as_server);

/* TLS handshake, RFC 8446 / RFC 5246; at once STREAM_OK on a plain stream. */
enum stream_result stream_handshake(struct stream *stream);

/* *got is set to the bytes read, 1..size, with STREAM_OK only. */
enum stream_result stream_read(struct stream *stream, char *bytes, size_t size, size_t *got);

/*
 * *put is set to the bytes taken, 1..length, with STREAM_OK only: what TLS takes is a record at most, and where there
 * was more the record may wait in the kernel for the next, so the rest must be written at once. After STREAM_RETRY the
 * same bytes must come again. The context of a TLS stream has SSL_MODE_ENABLE_PARTIAL_WRITE.
 */
enum stream_result stream_write(struct stream *stream, const char *bytes, size_t length, size_t *put);

/* Says that no more will be sent (close_notify, then FIN); reading goes on. Idempotent; STREAM_RETRY as for a write. */
enum stream_result stream_end(struct stream *stream);

/*
 * The same for a stream that is to be closed next: close_notify only, as closing sends the FIN. Nothing is done on a
 * plain stream, nor where the peer has hung up.
 */
enum stream_result stream_say_end(struct stream *stream);

/* Bytes that were received and are held in the TLS library, which no poll can see. */
bool stream_has_pending(const struct stream *stream);

/* Closes and forgets everything. A TLS session that ended in an error is not kept for resumption. Idempotent. */
void stream_close(struct stream *stream);

/* The same, but for the socket, which is the caller's again: it is returned. */
int stream_release(struct stream *stream);

#endif
