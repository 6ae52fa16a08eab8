/* SPDX-License-Identifier: MIT */
#include "tls_tickets.h"

#include "clock.h"
#include "tls_state.h"
#include "units.h"

#include <openssl/core_names.h>
#include <openssl/rand.h>
#include <string.h>

/* What OpenSSL asks of the callback and what it may answer: SSL_CTX_set_tlsext_ticket_key_evp_cb(3). */
enum { TICKET_FAILED = -1, TICKET_UNKNOWN = 0, TICKET_OK = 1, TICKET_RENEW = 2 };

static void key_that_seals(const struct tls_tickets *tickets, struct ticket_key *key) {
    if (tickets->file.count)
        *key = tickets->file.key[0];
    else
        ticket_keys_current(tickets->shared, key);
}

static bool find_key(const struct tls_tickets *tickets, const uint8_t *name, struct ticket_key *key, bool *seals) {
    if (!tickets->file.count)
        return ticket_keys_find(tickets->shared, name, key, seals) ||
               (tickets->foreign && foreign_keys_find(tickets->foreign, name, realtime_ns() / NS_PER_S, key, seals));
    for (int i = 0; i < tickets->file.count; i++)
        if (memcmp(tickets->file.key[i].name, name, TICKET_KEY_NAME_BYTES) == 0) {
            *key = tickets->file.key[i];
            *seals = i == 0;
            return true;
        }
    return false;
}

static bool set_up(const struct tls_tickets *tickets, const struct ticket_key *key, const uint8_t *iv,
                   EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bool sealing) {
    static char digest[] = "SHA256";
    const OSSL_PARAM parameters[] = {OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, sizeof digest - 1),
                                     OSSL_PARAM_END};
    const EVP_CIPHER *aes = key->secret_bytes == 16 ? tickets->aes128 : tickets->aes256;

    return EVP_CipherInit_ex2(cipher, aes, key->cipher_secret, iv, sealing, NULL) == 1 &&
           EVP_MAC_init(mac, key->mac_secret, key->secret_bytes, parameters) == 1;
}

static int use_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                   int sealing) {
    const struct tls_tickets *tickets = &tls_state_of(SSL_get_SSL_CTX(ssl))->tickets;
    struct ticket_key key;
    bool seals = true;
    int result = TICKET_FAILED;

    if (sealing) {
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(tickets->aes256)) != 1)
            return TICKET_FAILED;
        key_that_seals(tickets, &key);
        memcpy(name, key.name, sizeof key.name);
    } else if (!find_key(tickets, name, &key, &seals)) {
        return TICKET_UNKNOWN;
    }
    /* A client of TLS 1.3 uses a ticket once (RFC 8446, C.4): without another it could resume once only. */
    if (set_up(tickets, &key, iv, cipher, mac, sealing))
        result = seals && (sealing || SSL_version(ssl) < TLS1_3_VERSION) ? TICKET_OK : TICKET_RENEW;
    OPENSSL_cleanse(&key, sizeof key);
    return result;
}

const char *tls_tickets_serve(struct tls_tickets *tickets, SSL_CTX *context, const char *key_file,
                              struct ticket_keys *shared, struct foreign_keys *foreign) {
    const char *reason = key_file ? ticket_key_file_read(&tickets->file, key_file) : NULL;

    if (reason)
        return reason;
    tickets->shared = shared;
    tickets->foreign = foreign;
    tickets->aes128 = EVP_CIPHER_fetch(NULL, "AES-128-CBC", NULL);
    tickets->aes256 = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    if (!tickets->aes128 || !tickets->aes256)
        return "session tickets: the TLS library has no AES-CBC";
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, use_key);
    return NULL;
}

void tls_tickets_free(struct tls_tickets *tickets) {
    EVP_CIPHER_free(tickets->aes128);
    EVP_CIPHER_free(tickets->aes256);
    OPENSSL_cleanse(tickets, sizeof *tickets);
}
