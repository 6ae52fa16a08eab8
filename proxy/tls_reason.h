/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TLS_REASON_H
#define PROXY_TLS_REASON_H
/* One line that names an option or a file and says why it is refused. */

/* The line, valid until the next call. */
const char *tls_reason(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "--OPTION: VALUE: " and OpenSSL's own word on why it refused that, the first it said. Clears its error queue. */
const char *tls_reason_of_library(const char *option, const char *value);

#endif
