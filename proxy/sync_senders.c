/* SPDX-License-Identifier: MIT */
#include "sync_senders.h"

#include "sync_message.h"
#include "units.h"

#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <string.h>

#define SILENCE_NS (30 * NS_PER_S)
/* A number is good for this long at least, and twice as long at most. */
#define NONCE_NS (2 * NS_PER_S)

bool sync_senders_init(struct sync_senders *senders, struct sync_keys *keys) {
    senders->keys = keys;
    return RAND_bytes(senders->nonce_secret, sizeof senders->nonce_secret) == 1;
}

struct sync_sender *sync_senders_find(struct sync_senders *senders, const uint8_t *id) {
    for (int i = 0; i < SYNC_SENDERS_MAX; i++) {
        struct sync_sender *sender = &senders->sender[i];
        if (sender->open && memcmp(sender->id, id, sizeof sender->id) == 0)
            return sender;
    }
    return NULL;
}

struct sync_sender *sync_senders_add(struct sync_senders *senders, const struct sync_head *head, uint64_t next_to_all) {
    struct sync_sender *sender = NULL;

    for (int i = 0; i < SYNC_SENDERS_MAX && !sender; i++)
        if (!senders->sender[i].open)
            sender = &senders->sender[i];
    if (!sender)
        return NULL;
    *sender = (struct sync_sender){.open = EVP_CIPHER_CTX_new()};
    if (!sender->open || !sync_cipher_set(sender->open, senders->keys, head->sender, false)) {
        EVP_CIPHER_CTX_free(sender->open);
        sender->open = NULL;
        return NULL;
    }
    memcpy(sender->id, head->sender, sizeof sender->id);
    sender->before_proof[SYNC_TO_ALL] = next_to_all - 1;
    sender->before_proof[SYNC_TO_ONE] = head->number;
    for (int stream = 0; stream < SYNC_STREAMS; stream++)
        replay_window_begin(&sender->window[stream], sender->before_proof[stream]);
    return sender;
}

int sync_senders_expire(struct sync_senders *senders, uint64_t now_ns) {
    int left = 0;

    for (int i = 0; i < SYNC_SENDERS_MAX; i++) {
        struct sync_sender *sender = &senders->sender[i];
        if (sender->open && now_ns - sender->heard_ns > SILENCE_NS) {
            EVP_CIPHER_CTX_free(sender->open);
            sender->open = NULL;
        }
        left += sender->open != NULL;
    }
    return left;
}

/* Nothing has to be remembered of who was asked: the number is that of the sender, of this start of ours, and of the
 * time. */
static void make_nonce(const struct sync_senders *senders, const uint8_t *id, uint64_t period, uint8_t *nonce) {
    uint8_t text[SYNC_SENDER_BYTES + sizeof period], mac[EVP_MAX_MD_SIZE] = {0};

    memcpy(text, id, SYNC_SENDER_BYTES);
    memcpy(text + SYNC_SENDER_BYTES, &period, sizeof period);
    HMAC(EVP_sha256(), senders->nonce_secret, sizeof senders->nonce_secret, text, sizeof text, mac, NULL);
    memcpy(nonce, mac, SYNC_NONCE_BYTES);
}

void sync_senders_nonce(const struct sync_senders *senders, const uint8_t *id, uint64_t now_ns, uint8_t *nonce) {
    make_nonce(senders, id, now_ns / NONCE_NS, nonce);
}

bool sync_senders_check_nonce(const struct sync_senders *senders, const uint8_t *id, uint64_t now_ns,
                              const uint8_t *nonce) {
    uint8_t expected[SYNC_NONCE_BYTES];

    for (uint64_t period = now_ns / NONCE_NS, tries = 0; tries < 2; tries++) {
        make_nonce(senders, id, period - tries, expected);
        if (CRYPTO_memcmp(expected, nonce, sizeof expected) == 0)
            return true;
    }
    return false;
}
