/* SPDX-License-Identifier: MIT */
#include "ticket_key_file.h"

#include "regular_file.h"
#include "tls_reason.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define FILE_BYTES_MAX 16384

#define SHORT_KEY_BYTES (TICKET_KEY_NAME_BYTES + 2 * 16)
#define LONG_KEY_BYTES  (TICKET_KEY_NAME_BYTES + 2 * 32)
/* In base64: the long one ends with one '='. */
#define SHORT_KEY_CHARS 64
#define LONG_KEY_CHARS  108

#define BASE64 "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

static const char *add_key(struct ticket_key_list *list, const uint8_t *bytes, size_t length) {
    struct ticket_key *key = &list->key[list->count];

    if (list->count == TICKET_KEYS_MAX)
        return "more than 16 keys";
    for (int i = 0; i < list->count; i++)
        if (memcmp(list->key[i].name, bytes, TICKET_KEY_NAME_BYTES) == 0)
            return "its name, the first 16 bytes, is that of another key";
    memcpy(key->name, bytes, sizeof key->name);
    key->secret_bytes = (length - sizeof key->name) / 2;
    if (length == LONG_KEY_BYTES) {
        memcpy(key->mac_secret, bytes + sizeof key->name, 32);
        memcpy(key->cipher_secret, bytes + sizeof key->name + 32, 32);
    } else {
        memcpy(key->cipher_secret, bytes + sizeof key->name, 16);
        memcpy(key->mac_secret, bytes + sizeof key->name + 16, 16);
    }
    list->count++;
    return NULL;
}

static const char *add_line(struct ticket_key_list *list, const char *line, size_t length) {
    char text[LONG_KEY_CHARS + 1];
    uint8_t bytes[LONG_KEY_CHARS];
    const char *reason;
    size_t digits;

    if (length != SHORT_KEY_CHARS && length != LONG_KEY_CHARS)
        return "a key has 64 or 108 characters, 48 or 80 bytes in base64";
    memcpy(text, line, length);
    text[length] = '\0';
    digits = strspn(text, BASE64);
    /* What follows is checked here because EVP_DecodeBlock takes '=' anywhere, as zeros. */
    if (length == SHORT_KEY_CHARS ? digits != length : digits != length - 1 || text[digits] != '=')
        return "not base64 of 48 or 80 bytes";
    EVP_DecodeBlock(bytes, (const uint8_t *)text, (int)length);
    reason = add_key(list, bytes, length == SHORT_KEY_CHARS ? SHORT_KEY_BYTES : LONG_KEY_BYTES);
    OPENSSL_cleanse(text, sizeof text);
    OPENSSL_cleanse(bytes, sizeof bytes);
    return reason;
}

static bool is_text(const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        if ((bytes[i] < ' ' || bytes[i] > '~') && !strchr("\t\r\n", bytes[i] ? bytes[i] : 'x'))
            return false;
    return true;
}

const char *ticket_key_file_parse(struct ticket_key_list *list, const char *bytes, size_t length) {
    const char *end = bytes + length;

    list->count = 0;
    if (!is_text(bytes, length)) {
        if (length != SHORT_KEY_BYTES && length != LONG_KEY_BYTES)
            return "neither text nor one key of 48 or 80 bytes";
        return add_key(list, (const uint8_t *)bytes, length);
    }
    for (int number = 1; bytes < end; number++) {
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes)), *last = newline ? newline : end;
        const char *next = newline ? newline + 1 : end, *reason;

        while (bytes < last && strchr(" \t\r", *bytes))
            bytes++;
        while (bytes < last && strchr(" \t\r", last[-1]))
            last--;
        if (bytes < last && *bytes != '#') {
            reason = add_line(list, bytes, (size_t)(last - bytes));
            if (reason)
                return tls_reason("line %d: %s", number, reason);
        }
        bytes = next;
    }
    return list->count ? NULL : "no key in it";
}

const char *ticket_key_file_read(struct ticket_key_list *list, const char *path) {
    char bytes[FILE_BYTES_MAX + 1];
    const char *reason = NULL, *unreadable;
    FILE *stream = regular_file_open(path, &unreadable);
    char why[160];
    size_t length;

    if (!stream)
        return tls_reason("--ticket-keys: %s: cannot be read: %s", path, unreadable);
    setvbuf(stream, NULL, _IONBF, 0); /* no copy of the keys is left in a buffer of stdio's */
    errno = 0;
    length = fread(bytes, 1, sizeof bytes, stream);
    if (ferror(stream))
        reason = tls_reason("cannot be read: %s", strerror(errno));
    else if (length > FILE_BYTES_MAX)
        reason = "larger than 16 KiB";
    else
        reason = ticket_key_file_parse(list, bytes, length);
    fclose(stream);
    OPENSSL_cleanse(bytes, sizeof bytes);
    if (!reason)
        return NULL;
    OPENSSL_cleanse(list, sizeof *list);
    /* It may be in the very buffer that the line is written to. */
    snprintf(why, sizeof why, "%s", reason);
    return tls_reason("--ticket-keys: %s: %s", path, why);
}
