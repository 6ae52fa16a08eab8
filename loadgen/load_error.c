/* SPDX-License-Identifier: MIT */
#include "load_error.h"

#include <errno.h>

static const char *const names[LOAD_ERRORS] = {
    [LOAD_CONNECT_REFUSED] = "connect_refused",
    [LOAD_CONNECT_TIMEOUT] = "connect_timeout",
    [LOAD_ADDRESS_UNAVAILABLE] = "address_unavailable",
    [LOAD_FD_UNAVAILABLE] = "fd_unavailable",
    [LOAD_TLS_ALERT] = "tls_alert",
    [LOAD_TLS_PROTOCOL] = "tls_protocol",
    [LOAD_TLS_TIMEOUT] = "tls_timeout",
    [LOAD_RESET] = "reset",
    [LOAD_UNEXPECTED_EOF] = "unexpected_eof",
    [LOAD_IO_TIMEOUT] = "io_timeout",
    [LOAD_HTTP_STATUS] = "http_status",
    [LOAD_PAYLOAD_MISMATCH] = "payload_mismatch",
};

const char *load_error_name(enum load_error error) {
    return error < LOAD_ERRORS ? names[error] : "";
}

enum load_error load_error_of_connect(int error_number) {
    switch (error_number) {
    case ETIMEDOUT:
        return LOAD_CONNECT_TIMEOUT;
    case EADDRNOTAVAIL:
        return LOAD_ADDRESS_UNAVAILABLE;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return LOAD_FD_UNAVAILABLE;
    case ECONNRESET:
        return LOAD_RESET;
    default:
        return LOAD_CONNECT_REFUSED;
    }
}

enum load_error load_error_of_io(int error_number) {
    switch (error_number) {
    case 0:
        return LOAD_UNEXPECTED_EOF;
    case ETIMEDOUT:
        return LOAD_IO_TIMEOUT;
    default:
        return LOAD_RESET;
    }
}
