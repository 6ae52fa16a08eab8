/* SPDX-License-Identifier: MIT */
#include "record.h"

#include "bytes.h"
#include "cipher_cache.h"
#include "key_schedule.h"
#include "random.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

#define TAG_BYTES            16
#define NONCE_BYTES          12
#define EXPLICIT_NONCE_BYTES 8 /* GCM of TLS 1.2 */
#define CBC_BLOCK_BYTES      16

void direction_begin(struct direction *direction, int version) {
    *direction = (struct direction){.version = version};
}

void direction_end(struct direction *direction) {
    cipher_cache_release(direction);
}

void direction_set_traffic_secret(struct direction *direction, const struct suite *suite, const uint8_t *secret,
                                  struct hmac *hmac) {
    struct hmac own;

    if (!hmac)
        hmac = &own;
    direction_end(direction);
    direction->suite = suite;
    direction->version = TLS1_3_VERSION;
    direction->sequence = 0;
    memmove(direction->secret, secret, hash_bytes(suite->hash));
    hmac_set_key(hmac, suite->hash, direction->secret, hash_bytes(suite->hash));
    expand_label(hmac, "key", NULL, 0, direction->key, suite->key_bytes);
    expand_label(hmac, "iv", NULL, 0, direction->iv, NONCE_BYTES);
}

void direction_update(struct direction *direction) {
    size_t length = hash_bytes(direction->suite->hash);
    uint8_t next[HASH_BYTES_MAX];
    struct hmac hmac;

    hmac_set_key(&hmac, direction->suite->hash, direction->secret, length);
    expand_label(&hmac, "traffic upd", NULL, 0, next, length);
    direction_set_traffic_secret(direction, direction->suite, next, NULL);
}

struct key_block_lengths key_block_lengths(const struct suite *suite) {
    switch (suite->cipher_kind) {
    case CIPHER_GCM:
        return (struct key_block_lengths){0, suite->key_bytes, NONCE_BYTES - EXPLICIT_NONCE_BYTES};
    case CIPHER_CHACHA20_POLY1305:
        return (struct key_block_lengths){0, suite->key_bytes, NONCE_BYTES};
    case CIPHER_CBC:
        break;
    }
    return (struct key_block_lengths){hash_bytes(suite->mac), suite->key_bytes, CBC_BLOCK_BYTES};
}

void direction_set_keys(struct direction *direction, const struct suite *suite, int version, const uint8_t *mac,
                        const uint8_t *key, const uint8_t *iv) {
    struct key_block_lengths lengths = key_block_lengths(suite);

    direction_end(direction);
    direction->suite = suite;
    direction->version = version;
    direction->sequence = 0;
    memcpy(direction->secret, mac, lengths.mac);
    memcpy(direction->key, key, lengths.key);
    memcpy(direction->iv, iv, lengths.iv);
}

static void write_sequence(uint8_t out[8], uint64_t sequence) {
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(sequence >> 8 * (7 - i));
}

static void write_header(uint8_t out[RECORD_HEADER_BYTES], uint8_t type, int version, size_t length) {
    /* TLS 1.3 calls itself 1.2 here. */
    int named = version >= TLS1_3_VERSION ? TLS1_2_VERSION : version;

    out[0] = type;
    out[1] = (uint8_t)(named >> 8);
    out[2] = (uint8_t)named;
    out[3] = (uint8_t)(length >> 8);
    out[4] = (uint8_t)length;
}

/* ---- AEAD ---- */

static bool has_explicit_nonce(const struct direction *direction) {
    return direction->suite->cipher_kind == CIPHER_GCM && direction->version < TLS1_3_VERSION;
}

static void make_nonce(const struct direction *direction, const uint8_t *explicit_nonce, uint8_t nonce[NONCE_BYTES]) {
    uint8_t sequence[8];

    memcpy(nonce, direction->iv, NONCE_BYTES);
    if (explicit_nonce) {
        memcpy(nonce + NONCE_BYTES - EXPLICIT_NONCE_BYTES, explicit_nonce, EXPLICIT_NONCE_BYTES);
        return;
    }
    write_sequence(sequence, direction->sequence);
    for (size_t i = 0; i < sizeof sequence; i++)
        nonce[NONCE_BYTES - sizeof sequence + i] ^= sequence[i];
}

/* What is authenticated and not encrypted. plain_length: as TLS 1.2 wants it. Returns its length. */
static size_t make_associated(const struct direction *direction, const uint8_t *header, size_t plain_length,
                              uint8_t associated[13]) {
    if (direction->version >= TLS1_3_VERSION) {
        memcpy(associated, header, RECORD_HEADER_BYTES);
        return RECORD_HEADER_BYTES;
    }
    write_sequence(associated, direction->sequence);
    memcpy(associated + 8, header, 3);
    associated[11] = (uint8_t)(plain_length >> 8);
    associated[12] = (uint8_t)plain_length;
    return 13;
}

static size_t seal_aead(struct direction *direction, uint8_t type, const uint8_t *bytes, size_t length, uint8_t *out) {
    bool is_13 = direction->version >= TLS1_3_VERSION;
    struct keyed_cipher *keyed = cipher_cache_get(direction, true);
    uint8_t nonce[NONCE_BYTES], associated[13];
    uint8_t *at = out + RECORD_HEADER_BYTES, *explicit_nonce = NULL;
    size_t body = length + TAG_BYTES, associated_length;
    int done = 0, last = 0;

    if (!keyed)
        return 0;
    if (is_13)
        body++;
    if (has_explicit_nonce(direction)) {
        explicit_nonce = at;
        write_sequence(at, direction->sequence);
        at += EXPLICIT_NONCE_BYTES;
        body += EXPLICIT_NONCE_BYTES;
    }
    write_header(out, is_13 ? CONTENT_APPLICATION_DATA : type, direction->version, body);
    make_nonce(direction, explicit_nonce, nonce);
    associated_length = make_associated(direction, out, length, associated);
    if (EVP_EncryptInit_ex(keyed->context, NULL, NULL, NULL, nonce) != 1 ||
        EVP_EncryptUpdate(keyed->context, NULL, &done, associated, (int)associated_length) != 1)
        return 0;
    if (length > 0 && EVP_EncryptUpdate(keyed->context, at, &done, bytes, (int)length) != 1)
        return 0;
    at += length;
    if (is_13) {
        if (EVP_EncryptUpdate(keyed->context, at, &done, &type, 1) != 1)
            return 0;
        at++;
    }
    if (EVP_EncryptFinal_ex(keyed->context, at, &last) != 1 ||
        EVP_CIPHER_CTX_ctrl(keyed->context, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, at) != 1)
        return 0;
    return RECORD_HEADER_BYTES + body;
}

static enum alert open_aead(struct direction *direction, const uint8_t *header, uint8_t *body, size_t length,
                            uint8_t *into, struct plaintext *plaintext) {
    uint8_t nonce[NONCE_BYTES], associated[13], *explicit_nonce = NULL;
    size_t associated_length;
    int done = 0, last = 0;

    if (has_explicit_nonce(direction)) {
        if (length < EXPLICIT_NONCE_BYTES)
            return ALERT_BAD_RECORD_MAC;
        explicit_nonce = body;
        body += EXPLICIT_NONCE_BYTES;
        length -= EXPLICIT_NONCE_BYTES;
    }
    if (length < TAG_BYTES)
        return ALERT_BAD_RECORD_MAC;
    length -= TAG_BYTES;
    struct keyed_cipher *keyed = cipher_cache_get(direction, false);
    if (!keyed)
        return ALERT_INTERNAL_ERROR;
    if (!into)
        into = body;
    make_nonce(direction, explicit_nonce, nonce);
    associated_length = make_associated(direction, header, length, associated);
    if (EVP_DecryptInit_ex(keyed->context, NULL, NULL, NULL, nonce) != 1 ||
        EVP_CIPHER_CTX_ctrl(keyed->context, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, body + length) != 1 ||
        EVP_DecryptUpdate(keyed->context, NULL, &done, associated, (int)associated_length) != 1)
        return ALERT_INTERNAL_ERROR;
    if (length > 0 && EVP_DecryptUpdate(keyed->context, into, &done, body, (int)length) != 1)
        return ALERT_BAD_RECORD_MAC;
    if (EVP_DecryptFinal_ex(keyed->context, into + length, &last) != 1)
        return ALERT_BAD_RECORD_MAC;
    plaintext->bytes = into;
    plaintext->length = length;
    return NO_ALERT;
}

/* The content type is the last byte that is not zero (RFC 8446, 5.4). */
static enum alert strip_padding13(struct plaintext *plaintext) {
    while (plaintext->length > 0 && plaintext->bytes[plaintext->length - 1] == 0)
        plaintext->length--;
    if (plaintext->length == 0)
        return ALERT_UNEXPECTED_MESSAGE;
    plaintext->type = plaintext->bytes[--plaintext->length];
    return NO_ALERT;
}

/* ---- CBC: MAC, pad, encrypt (RFC 5246, 6.2.3.2). encrypt_then_mac is never offered. ---- */

static void make_mac(const struct direction *direction, const struct keyed_cipher *keyed, const uint8_t *header,
                     const uint8_t *bytes, size_t length, uint8_t *mac) {
    uint8_t associated[13];
    struct hash state;

    make_associated(direction, header, length, associated);
    hmac_begin(&keyed->mac, &state);
    hash_add(&state, associated, sizeof associated);
    hash_add(&state, bytes, length);
    hmac_end(&keyed->mac, &state, mac);
}

static size_t seal_cbc(struct direction *direction, uint8_t type, const uint8_t *bytes, size_t length, uint8_t *out) {
    struct keyed_cipher *keyed = cipher_cache_get(direction, true);
    uint8_t *at = out + RECORD_HEADER_BYTES;
    size_t mac_bytes = hash_bytes(direction->suite->mac), padded;
    int done = 0;

    if (!keyed)
        return 0;
    write_header(out, type, direction->version, length);
    if (direction->version >= TLS1_1_VERSION) {
        light_random(at, CBC_BLOCK_BYTES);
        memcpy(direction->iv, at, CBC_BLOCK_BYTES);
        at += CBC_BLOCK_BYTES;
    }
    if (length > 0)
        memcpy(at, bytes, length);
    make_mac(direction, keyed, out, at, length, at + length);
    padded = (length + mac_bytes) / CBC_BLOCK_BYTES * CBC_BLOCK_BYTES + CBC_BLOCK_BYTES;
    memset(at + length + mac_bytes, (int)(padded - length - mac_bytes - 1), padded - length - mac_bytes);
    if (EVP_EncryptInit_ex(keyed->context, NULL, NULL, NULL, direction->iv) != 1 ||
        EVP_EncryptUpdate(keyed->context, at, &done, at, (int)padded) != 1)
        return 0;
    at += padded;
    if (direction->version < TLS1_1_VERSION)
        memcpy(direction->iv, at - CBC_BLOCK_BYTES, CBC_BLOCK_BYTES);
    write_header(out, type, direction->version, (size_t)(at - out) - RECORD_HEADER_BYTES);
    return (size_t)(at - out);
}

static enum alert open_cbc(struct direction *direction, const uint8_t *header, uint8_t *body, size_t length,
                           struct plaintext *plaintext) {
    size_t mac_bytes = hash_bytes(direction->suite->mac), padding;
    uint8_t mac[HASH_BYTES_MAX], next_iv[CBC_BLOCK_BYTES], wrong = 0;
    int done = 0;

    if (direction->version >= TLS1_1_VERSION) {
        if (length < CBC_BLOCK_BYTES)
            return ALERT_BAD_RECORD_MAC;
        memcpy(direction->iv, body, CBC_BLOCK_BYTES);
        body += CBC_BLOCK_BYTES;
        length -= CBC_BLOCK_BYTES;
    }
    if (length % CBC_BLOCK_BYTES != 0 || length < mac_bytes + 1)
        return ALERT_BAD_RECORD_MAC;
    struct keyed_cipher *keyed = cipher_cache_get(direction, false);
    if (!keyed)
        return ALERT_INTERNAL_ERROR;
    memcpy(next_iv, body + length - CBC_BLOCK_BYTES, CBC_BLOCK_BYTES);
    if (EVP_DecryptInit_ex(keyed->context, NULL, NULL, NULL, direction->iv) != 1 ||
        EVP_DecryptUpdate(keyed->context, body, &done, body, (int)length) != 1)
        return ALERT_INTERNAL_ERROR;
    memcpy(direction->iv, next_iv, CBC_BLOCK_BYTES);
    padding = body[length - 1];
    if (padding + 1 + mac_bytes > length)
        return ALERT_BAD_RECORD_MAC;
    for (size_t i = length - 1 - padding; i < length; i++)
        wrong |= (uint8_t)(body[i] ^ padding);
    length -= padding + 1 + mac_bytes;
    make_mac(direction, keyed, header, body, length, mac);
    if (wrong || memcmp(mac, body + length, mac_bytes) != 0)
        return ALERT_BAD_RECORD_MAC;
    plaintext->bytes = body;
    plaintext->length = length;
    return NO_ALERT;
}

/* ---- Either ---- */

size_t record_seal(struct direction *direction, enum content_type type, const uint8_t *bytes, size_t length,
                   uint8_t *out) {
    size_t sealed;

    if (!direction->suite) {
        write_header(out, (uint8_t)type, direction->version, length);
        memcpy(out + RECORD_HEADER_BYTES, bytes, length);
        return RECORD_HEADER_BYTES + length;
    }
    sealed = direction->suite->cipher_kind == CIPHER_CBC ? seal_cbc(direction, (uint8_t)type, bytes, length, out)
                                                         : seal_aead(direction, (uint8_t)type, bytes, length, out);
    direction->sequence++;
    if (!sealed)
        ERR_clear_error();
    return sealed;
}

enum alert record_open(struct direction *direction, const uint8_t header[RECORD_HEADER_BYTES], uint8_t *body,
                       size_t length, uint8_t *into, struct plaintext *plaintext) {
    enum alert alert;

    *plaintext = (struct plaintext){.type = header[0], .bytes = body, .length = length};
    if (!direction->suite) {
        alert = NO_ALERT;
    } else if (direction->suite->cipher_kind == CIPHER_CBC) {
        alert = open_cbc(direction, header, body, length, plaintext);
    } else {
        alert = open_aead(direction, header, body, length, into, plaintext);
        if (alert == NO_ALERT && direction->version >= TLS1_3_VERSION) {
            if (plaintext->length > RECORD_PLAIN_MAX + 1)
                return ALERT_RECORD_OVERFLOW;
            alert = strip_padding13(plaintext);
        }
    }
    direction->sequence++;
    if (alert != NO_ALERT) {
        ERR_clear_error();
        return alert;
    }
    if (plaintext->length > RECORD_PLAIN_MAX)
        return ALERT_RECORD_OVERFLOW;
    if (into && plaintext->bytes != into) {
        memcpy(into, plaintext->bytes, plaintext->length);
        plaintext->bytes = into;
    }
    return NO_ALERT;
}
