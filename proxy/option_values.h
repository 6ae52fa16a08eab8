/* SPDX-License-Identifier: MIT */
#ifndef PROXY_OPTION_VALUES_H
#define PROXY_OPTION_VALUES_H
/* What values of options may be that the table of options and its blocks have in common: see option_spec.parse. */

/* int: a protocol number. */
const char *parse_version(void *target, const char *value);
const char *format_version(const void *target, char *text);

/* unsigned: bits of tls_versions.protos. */
const char *parse_protos(void *target, const char *value);

/* enum client_verify */
const char *parse_client_verify(void *target, const char *value);

/* enum toggle */
const char *parse_toggle(void *target, const char *value);

#endif
