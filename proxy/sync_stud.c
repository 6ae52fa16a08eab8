/* SPDX-License-Identifier: MIT */
#include "sync_stud.h"

#include "bytes.h"
#include "session_store.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>

#define SIGNATURE_BYTES 20

static bool sign(const uint8_t *key, const uint8_t *bytes, size_t length, uint8_t *signature) {
    return HMAC(EVP_sha1(), key, STUD_KEY_BYTES, bytes, length, signature, NULL) != NULL;
}

size_t sync_stud_make(const uint8_t *key, const struct stud_session *session, uint8_t *datagram) {
    static const uint8_t padding[SESSION_ID_MAX];
    struct writer writer = writer_of(datagram, STUD_PACKET_BYTES);
    uint8_t signature[SIGNATURE_BYTES];

    if (session->length > STUD_SESSION_BYTES || session->id_length > SESSION_ID_MAX)
        return 0;
    writer_bytes(&writer, session->id, session->id_length);
    writer_bytes(&writer, padding, SESSION_ID_MAX - session->id_length);
    writer_bytes(&writer, session->bytes, session->length);
    writer_uint(&writer, session->born_s, 4);
    if (!sign(key, datagram, writer.length, signature))
        return 0;
    writer_bytes(&writer, signature, sizeof signature);
    return writer.length;
}

/* The length of the ID is not in the datagram, but in the session itself. 0: that is another session, or none. */
static size_t find_id_length(const uint8_t *padded_id, const uint8_t *bytes, size_t length) {
    static const uint8_t padding[SESSION_ID_MAX];
    const unsigned char *at = bytes, *id;
    SSL_SESSION *session;
    unsigned id_length;

    ERR_clear_error();
    session = d2i_SSL_SESSION(NULL, &at, (long)length);
    if (!session) {
        ERR_clear_error();
        return 0;
    }
    id = SSL_SESSION_get_id(session, &id_length);
    if (at != bytes + length || id_length > SESSION_ID_MAX || memcmp(id, padded_id, id_length) != 0 ||
        memcmp(padded_id + id_length, padding, SESSION_ID_MAX - id_length) != 0)
        id_length = 0;
    SSL_SESSION_free(session);
    return id_length;
}

enum sync_rejection sync_stud_read(const uint8_t *key, const uint8_t *datagram, size_t length,
                                   struct stud_session *session) {
    struct reader reader = reader_of(datagram, length);
    uint8_t signature[SIGNATURE_BYTES];

    if (length <= STUD_AROUND_BYTES)
        return SYNC_truncated;
    if (length > STUD_PACKET_BYTES)
        return SYNC_oversized;
    if (!sign(key, datagram, length - sizeof signature, signature) ||
        CRYPTO_memcmp(signature, datagram + length - sizeof signature, sizeof signature) != 0)
        return SYNC_forged;
    session->id = reader_take(&reader, SESSION_ID_MAX);
    session->length = length - STUD_AROUND_BYTES;
    session->bytes = reader_take(&reader, session->length);
    session->born_s = reader_uint(&reader, 4);
    session->id_length = find_id_length(session->id, session->bytes, session->length);
    return session->id_length ? SYNC_TAKEN : SYNC_malformed;
}
