/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TICKET_KEY_FILE_H
#define PROXY_TICKET_KEY_FILE_H
/*
 * Ticket keys that the operator chose, so that several proxies take each other's tickets. The file is either
 *
 *   one key a line in base64 (as HAProxy has it): 64 or 108 characters that stand for 48 or 80 bytes; empty lines and
 *   those that begin with # do not count. The first key seals new tickets, all open old ones, and a ticket that another
 *   than the first opened is replaced.
 *
 *   one key of 48 or 80 bytes as it is (as nginx has it)
 *
 * A key is a name of 16 bytes and two secrets: of 16 bytes each, for AES-128 and then for HMAC-SHA256, or of 32 bytes
 * each, for HMAC-SHA256 and then for AES-256.
 */
#include <stddef.h>
#include <stdint.h>

#define TICKET_KEY_NAME_BYTES 16
#define TICKET_KEYS_MAX       16

struct ticket_key {
    uint8_t name[TICKET_KEY_NAME_BYTES]; /* goes in clear at the head of each ticket */
    uint8_t cipher_secret[32], mac_secret[32];
    size_t secret_bytes; /* of each: 16 or 32 */
};

struct ticket_key_list {
    int count;
    struct ticket_key key[TICKET_KEYS_MAX];
};

/* NULL, or why not; the text is valid until the next call. */
const char *ticket_key_file_parse(struct ticket_key_list *list, const char *bytes, size_t length);

/* The same of a file: one line that names it. */
const char *ticket_key_file_read(struct ticket_key_list *list, const char *path);

#endif
