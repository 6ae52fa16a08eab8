/* SPDX-License-Identifier: MIT */
#include "tls_reason.h"

#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>

const char *tls_reason(const char *format, ...) {
    static char text[768];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return text;
}

const char *tls_reason_of_library(const char *option, const char *value) {
    const char *why = ERR_reason_error_string(ERR_peek_error());

    ERR_clear_error();
    return tls_reason("--%s: %s: %s", option, value, why ? why : "unknown to the TLS library");
}
