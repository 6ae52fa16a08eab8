/* SPDX-License-Identifier: MIT */
#include "sync_packet.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC_BYTES 3
#define NONCE_BYTES 12

bool sync_secret_derive(uint8_t *secret, const uint8_t *from, size_t length) {
    static const char salt[] = "tlsdyno sessions between hosts";

    /* RFC 5869, 2.2: HMAC, the salt as its key. */
    return HMAC(EVP_sha256(), salt, sizeof salt - 1, from, length, secret, NULL) != NULL;
}

struct sync_keys {
    EVP_MAC_CTX *mac; /* HMAC-SHA256 with the secret as its key */
    EVP_CIPHER *aes;  /* fetched once: a fetch costs more than sealing a datagram */
};

struct sync_keys *sync_keys_new(const uint8_t *secret) {
    static char digest[] = "SHA256";
    const OSSL_PARAM parameters[] = {OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, sizeof digest - 1),
                                     OSSL_PARAM_END};
    struct sync_keys *keys = calloc(1, sizeof *keys);
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);

    if (keys && hmac) {
        keys->aes = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
        keys->mac = EVP_MAC_CTX_new(hmac);
    }
    EVP_MAC_free(hmac);
    if (keys && keys->aes && keys->mac && EVP_MAC_init(keys->mac, secret, SYNC_SECRET_BYTES, parameters) == 1)
        return keys;
    sync_keys_free(keys);
    return NULL;
}

void sync_keys_free(struct sync_keys *keys) {
    if (!keys)
        return;
    EVP_MAC_CTX_free(keys->mac);
    EVP_CIPHER_free(keys->aes);
    free(keys);
}

bool sync_cipher_set(EVP_CIPHER_CTX *cipher, struct sync_keys *keys, const uint8_t *sender, bool sealing) {
    static const uint8_t purpose[] = {'s', 'e', 'n', 'd', 'e', 'r'}, block = 1;
    uint8_t key[SYNC_SECRET_BYTES];
    bool done;

    /* RFC 5869, 2.3: the first block of HKDF-Expand is all that a key takes. */
    done = EVP_MAC_init(keys->mac, NULL, 0, NULL) == 1 && EVP_MAC_update(keys->mac, purpose, sizeof purpose) == 1 &&
           EVP_MAC_update(keys->mac, sender, SYNC_SENDER_BYTES) == 1 && EVP_MAC_update(keys->mac, &block, 1) == 1 &&
           EVP_MAC_final(keys->mac, key, NULL, sizeof key) == 1 &&
           EVP_CipherInit_ex2(cipher, keys->aes, key, NULL, sealing, NULL) == 1;
    OPENSSL_cleanse(key, sizeof key);
    return done;
}

static void make_nonce(const struct sync_head *head, uint8_t *nonce) {
    struct writer writer = writer_of(nonce, NONCE_BYTES);

    writer_uint(&writer, head->stream, 4);
    writer_u64(&writer, head->number);
}

size_t sync_packet_seal(EVP_CIPHER_CTX *cipher, const struct sync_head *head, uint64_t date_us, const uint8_t *messages,
                        size_t length, uint8_t *datagram) {
    struct writer writer = writer_of(datagram, length + SYNC_AROUND_BYTES);
    uint8_t nonce[NONCE_BYTES], date[SYNC_DATE_BYTES], *sealed;
    struct writer date_writer = writer_of(date, sizeof date);
    int count;

    writer_uint(&writer, SYNC_MAGIC, MAGIC_BYTES);
    writer_u8(&writer, SYNC_VERSION);
    writer_bytes(&writer, head->sender, sizeof head->sender);
    writer_uint(&writer, head->stream, 4);
    writer_u64(&writer, head->number);
    writer_u64(&date_writer, date_us);
    make_nonce(head, nonce);
    sealed = writer_room(&writer, SYNC_DATE_BYTES + length + SYNC_TAG_BYTES);
    if (EVP_CipherInit_ex2(cipher, NULL, NULL, nonce, -1, NULL) != 1 ||
        EVP_CipherUpdate(cipher, NULL, &count, datagram, SYNC_HEAD_BYTES) != 1 ||
        EVP_CipherUpdate(cipher, sealed, &count, date, sizeof date) != 1 ||
        (length && EVP_CipherUpdate(cipher, sealed + SYNC_DATE_BYTES, &count, messages, (int)length) != 1) ||
        EVP_CipherFinal_ex(cipher, sealed + SYNC_DATE_BYTES + length, &count) != 1 ||
        EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, SYNC_TAG_BYTES, sealed + SYNC_DATE_BYTES + length) != 1)
        return 0;
    return writer.length;
}

enum sync_rejection sync_packet_read_head(const uint8_t *datagram, size_t length, struct sync_head *head) {
    struct reader reader = reader_of(datagram, length);
    uint32_t magic = reader_uint(&reader, MAGIC_BYTES);
    const uint8_t *sender;
    uint8_t version;

    if (reader.failed)
        return SYNC_truncated;
    if (magic != SYNC_MAGIC)
        return SYNC_not_ours;
    version = reader_u8(&reader);
    if (!reader.failed && version != SYNC_VERSION)
        return SYNC_wrong_version;
    if (length < SYNC_AROUND_BYTES)
        return SYNC_truncated;
    if (length > SYNC_PACKET_BYTES_MAX)
        return SYNC_oversized;
    sender = reader_take(&reader, sizeof head->sender);
    memcpy(head->sender, sender, sizeof head->sender);
    head->stream = reader_uint(&reader, 4);
    head->number = reader_u64(&reader);
    return head->stream < SYNC_STREAMS ? SYNC_TAKEN : SYNC_forged;
}

bool sync_packet_open(EVP_CIPHER_CTX *cipher, const struct sync_head *head, const uint8_t *datagram, size_t length,
                      uint8_t *opened, uint64_t *date_us, struct reader *messages) {
    size_t sealed = length - SYNC_HEAD_BYTES - SYNC_TAG_BYTES;
    uint8_t nonce[NONCE_BYTES], tag[SYNC_TAG_BYTES];
    int count;

    make_nonce(head, nonce);
    memcpy(tag, datagram + length - sizeof tag, sizeof tag);
    if (EVP_CipherInit_ex2(cipher, NULL, NULL, nonce, -1, NULL) != 1 ||
        EVP_CipherUpdate(cipher, NULL, &count, datagram, SYNC_HEAD_BYTES) != 1 ||
        EVP_CipherUpdate(cipher, opened, &count, datagram + SYNC_HEAD_BYTES, (int)sealed) != 1 ||
        EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag) != 1 ||
        EVP_CipherFinal_ex(cipher, opened + sealed, &count) != 1)
        return false;
    *messages = reader_of(opened, sealed);
    *date_us = reader_u64(messages);
    return true;
}
