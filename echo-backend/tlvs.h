/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_TLVS_H
#define TLSDYNO_ECHO_TLVS_H
/* What version 2 of a PROXY header says after the addresses (proxy-protocol.txt, section 2.2). */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True if they fill their space to the last byte, and so do those within the one of type SSL. */
bool tlvs_are_whole(const uint8_t *bytes, size_t length);

/*
 * As a JSON object, for bytes that are whole: {"alpn": "h2", "ssl_version": "TLSv1.3", "0xe0": {"bytes": 12}}. A value
 * that is no text or is long, or whose type has no name, is told by its length; of one type, the first is told, and of
 * types without a name TLVS_UNNAMED_MAX.
 */
#define TLVS_UNNAMED_MAX 32
json_t *tlvs_tell(const uint8_t *bytes, size_t length);

#endif
