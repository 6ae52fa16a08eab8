/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_PACKET_H
#define PROXY_SYNC_PACKET_H
/*
 * A datagram between hosts, sealed with AES-256-GCM:
 *
 *   "TDS" | version 2 | sender, 16 bytes | stream, 4 | number, 8 | sealed: date, 8, and messages | tag, 16
 *
 * The sender is random, made anew at each start, and has a key of its own: HKDF-SHA256 (RFC 5869) of the secret that
 * the hosts share. Stream and number make the nonce, so no sender ever uses one twice. All before the seal is sealed
 * with it, as associated data. The date is in microseconds of the sender's own clock. Integers are big-endian.
 */
#include "bytes.h"
#include "sync_counters.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SYNC_MAGIC        0x544453 /* "TDS" */
#define SYNC_VERSION      2
#define SYNC_SENDER_BYTES 16
#define SYNC_SECRET_BYTES 32
#define SYNC_HEAD_BYTES   32
#define SYNC_STREAM_AT    20
#define SYNC_DATE_BYTES   8
#define SYNC_TAG_BYTES    16
#define SYNC_AROUND_BYTES (SYNC_HEAD_BYTES + SYNC_DATE_BYTES + SYNC_TAG_BYTES)
/* What is collected into one datagram: within 1500 bytes with IPv6. Only one large session alone makes a longer one. */
#define SYNC_PACKET_BYTES     1400
#define SYNC_PACKET_BYTES_MAX 5000

enum sync_stream {
    SYNC_TO_ALL, /* every peer is sent every number: gaps are losses */
    SYNC_TO_ONE, /* requests and answers */
    SYNC_STREAMS
};

struct sync_head {
    uint8_t sender[SYNC_SENDER_BYTES];
    uint32_t stream;
    uint64_t number;
};

struct sync_keys;

/* HKDF-Extract: from whatever the operator gave to a secret of even strength. False: the library failed. */
bool sync_secret_derive(uint8_t *secret, const uint8_t *from, size_t length);

/* What makes the keys of senders out of the secret. NULL: the library failed. */
struct sync_keys *sync_keys_new(const uint8_t *secret);

void sync_keys_free(struct sync_keys *keys);

/*
 * The cipher becomes one that seals, or opens, what this sender sends, whatever it was before. False: the library
 * failed.
 */
bool sync_cipher_set(EVP_CIPHER_CTX *cipher, struct sync_keys *keys, const uint8_t *sender, bool sealing);

/*
 * Seals the messages into datagram, which has room for length + SYNC_AROUND_BYTES, and returns its length. 0: the
 * library failed.
 */
size_t sync_packet_seal(EVP_CIPHER_CTX *cipher, const struct sync_head *head, uint64_t date_us, const uint8_t *messages,
                        size_t length, uint8_t *datagram);

/* What is in the clear: from whom it claims to be. */
enum sync_rejection sync_packet_read_head(const uint8_t *datagram, size_t length, struct sync_head *head);

/*
 * Opens a datagram whose head was read. opened holds SYNC_PACKET_BYTES_MAX bytes; the messages are a reader into it.
 * False: not what that sender sealed.
 */
bool sync_packet_open(EVP_CIPHER_CTX *cipher, const struct sync_head *head, const uint8_t *datagram, size_t length,
                      uint8_t *opened, uint64_t *date_us, struct reader *messages);

#endif
