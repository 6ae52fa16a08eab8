/* SPDX-License-Identifier: MIT */
#include "socket_bio.h"

#include <errno.h>
#include <stdint.h>
#include <sys/socket.h>

/* A flag of ours among BIO_set_flags's, none of which the library has. */
#define MORE_FOLLOWS 0x100000

static int fd_of(BIO *bio) {
    return (int)(intptr_t)BIO_get_data(bio);
}

static bool try_again(void) {
    return errno == EAGAIN || errno == EINTR;
}

static int bio_read(BIO *bio, char *bytes, int size) {
    ssize_t got = recv(fd_of(bio), bytes, (size_t)size, 0);

    BIO_clear_retry_flags(bio);
    if (got < 0 && try_again())
        BIO_set_retry_read(bio);
    else if (got == 0)
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    return (int)got;
}

static int bio_write(BIO *bio, const char *bytes, int length) {
    int more = BIO_test_flags(bio, MORE_FOLLOWS) ? MSG_MORE : 0;
    ssize_t put = send(fd_of(bio), bytes, (size_t)length, MSG_NOSIGNAL | more);

    BIO_clear_retry_flags(bio);
    if (put < 0 && try_again())
        BIO_set_retry_write(bio);
    return (int)put;
}

static long bio_control(BIO *bio, int command, long number, void *pointer) {
    (void)number;
    switch (command) {
    case BIO_C_GET_FD: /* of SSL_get_fd */
        if (pointer)
            *(int *)pointer = fd_of(bio);
        return fd_of(bio);
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    default:
        return 0;
    }
}

static int bio_created(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

/* Made once a process; it is never freed. */
static const BIO_METHOD *socket_method(void) {
    static BIO_METHOD *method;
    BIO_METHOD *made;

    if (method)
        return method;
    made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR, "socket");
    if (!made || !BIO_meth_set_read(made, bio_read) || !BIO_meth_set_write(made, bio_write) ||
        !BIO_meth_set_ctrl(made, bio_control) || !BIO_meth_set_create(made, bio_created)) {
        BIO_meth_free(made);
        return NULL;
    }
    return method = made;
}

BIO *socket_bio_new(int fd) {
    const BIO_METHOD *method = socket_method();
    BIO *bio = method ? BIO_new(method) : NULL;

    if (bio)
        BIO_set_data(bio, (void *)(intptr_t)fd);
    return bio;
}

void socket_bio_more(BIO *bio, bool more) {
    if (more)
        BIO_set_flags(bio, MORE_FOLLOWS);
    else
        BIO_clear_flags(bio, MORE_FOLLOWS);
}
