/* SPDX-License-Identifier: MIT */
#include "flight_bio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* A last flight is a ChangeCipherSpec and a Finished record, 100 bytes or so; what is longer is not kept. */
#define FLIGHT_BYTES_MAX 256

struct flight {
    SSL *ssl;
    int fd;
    int length; /* kept so far */
    char bytes[FLIGHT_BYTES_MAX];
};

/* Nothing of this handshake comes after the flight that is being flushed: the server will not answer it with any. */
static bool is_last_flight(SSL *ssl) {
    return SSL_get_state(ssl) == TLS_ST_CW_FINISHED &&
           (SSL_version(ssl) >= TLS1_3_VERSION || SSL_session_reused(ssl) == 1);
}

/* What was kept, and then the bytes. Returns how much of the bytes was sent; -1 as sendmsg. */
static int send_both(struct flight *flight, const char *bytes, int length) {
    struct iovec parts[2] = {{.iov_base = flight->bytes, .iov_len = (size_t)flight->length},
                             {.iov_base = (void *)(uintptr_t)bytes, .iov_len = (size_t)length}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent = sendmsg(flight->fd, &message, MSG_NOSIGNAL);

    if (sent < 0)
        return -1;
    if (sent < flight->length) {
        memmove(flight->bytes, flight->bytes + sent, (size_t)(flight->length - sent));
        flight->length -= (int)sent;
        errno = EAGAIN;
        return -1;
    }
    sent -= flight->length;
    flight->length = 0;
    if (sent == 0 && length > 0) {
        errno = EAGAIN;
        return -1;
    }
    return (int)sent;
}

static int flight_write(BIO *bio, const char *bytes, int length) {
    struct flight *flight = BIO_get_data(bio);
    ssize_t sent;

    BIO_clear_retry_flags(bio);
    if (length <= FLIGHT_BYTES_MAX - flight->length && is_last_flight(flight->ssl)) {
        memcpy(flight->bytes + flight->length, bytes, (size_t)length);
        flight->length += length;
        return length;
    }
    sent =
        flight->length > 0 ? send_both(flight, bytes, length) : send(flight->fd, bytes, (size_t)length, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_write(bio);
    return (int)sent;
}

static long flight_control(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP ? 1 : 0;
}

static int flight_destroy(BIO *bio) {
    free(BIO_get_data(bio));
    return 1;
}

static BIO_METHOD *flight_method(void) {
    static BIO_METHOD *method;

    if (method)
        return method;
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "flight");
    if (!method)
        return NULL;
    BIO_meth_set_write(method, flight_write);
    BIO_meth_set_ctrl(method, flight_control);
    BIO_meth_set_destroy(method, flight_destroy);
    return method;
}

bool flight_bio_attach(SSL *ssl, int fd) {
    BIO_METHOD *method = flight_method();
    struct flight *flight = malloc(sizeof *flight);
    BIO *bio = method && flight ? BIO_new(method) : NULL;

    if (!bio) {
        free(flight);
        return false;
    }
    flight->ssl = ssl;
    flight->fd = fd;
    flight->length = 0;
    BIO_set_data(bio, flight);
    BIO_set_init(bio, 1);
    SSL_set0_wbio(ssl, bio);
    return true;
}
