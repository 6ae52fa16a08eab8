/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LOAD_ERROR_H
#define TLSDYNO_LOAD_ERROR_H
/* What can go wrong with a connection: the classes of the JSON result's "errors", each counted once a connection. */

enum load_error {
    LOAD_CONNECT_REFUSED,     /* nobody listens, or the target's queue is full (UNIX sockets) */
    LOAD_CONNECT_TIMEOUT,     /* not connected within --timeout */
    LOAD_ADDRESS_UNAVAILABLE, /* no local port is left */
    LOAD_FD_UNAVAILABLE,      /* no descriptor is left */
    LOAD_TLS_ALERT,           /* the target sent a fatal alert */
    LOAD_TLS_PROTOCOL,        /* what came is not the TLS that was expected */
    LOAD_TLS_TIMEOUT,         /* no handshake within --timeout */
    LOAD_RESET,               /* RST before the work was done */
    LOAD_UNEXPECTED_EOF,      /* FIN or close_notify before the work was done */
    LOAD_IO_TIMEOUT,          /* no progress of a transaction within --timeout */
    LOAD_HTTP_STATUS,         /* 400 or above */
    LOAD_PAYLOAD_MISMATCH,    /* not HTTP, more than the response, or not the bytes expected */
    LOAD_ERRORS,              /* how many classes there are */
    LOAD_NO_ERROR = LOAD_ERRORS,
};

/* As in the JSON result; "" for LOAD_NO_ERROR. */
const char *load_error_name(enum load_error error);

/* The class of an errno of socket() or connect(). */
enum load_error load_error_of_connect(int error_number);

/* The class of an errno of a connected socket. */
enum load_error load_error_of_io(int error_number);

#endif
