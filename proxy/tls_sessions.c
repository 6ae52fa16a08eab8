/* SPDX-License-Identifier: MIT */
#include "tls_sessions.h"

#include "clock.h"
#include "tls_state.h"
#include "units.h"

#include <string.h>

/*
 * Marks sessions that are the cache's by an ID that the server has chosen. A stateless ticket's is not: with TLS 1.2
 * its ID is what the client says, which may be somebody else's.
 */
static int kept_index = -1;

static bool mark_kept(SSL_SESSION *session, bool kept) {
    return SSL_SESSION_set_ex_data(session, kept_index, kept ? &kept_index : NULL) == 1;
}

static struct tls_sessions *sessions_of(const SSL_CTX *context) {
    return &tls_state_of(context)->sessions;
}

static void count_room(const struct tls_sessions *sessions, enum session_put_result result) {
    if (result == SESSION_KEPT_FOR_ANOTHER)
        stats_add(&sessions->counters->session_evictions, 1);
    if (result == SESSION_KEPT_FOR_EXPIRED)
        stats_add(&sessions->counters->session_expired, 1);
}

static void count_put(const struct tls_sessions *sessions, enum session_put_result result) {
    stats_add(&sessions->counters->session_stores, 1);
    count_room(sessions, result);
}

static int keep_session(SSL *ssl, SSL_SESSION *session) {
    struct tls_sessions *sessions = sessions_of(SSL_get_SSL_CTX(ssl));
    static struct stored_session made; /* static: 4 KiB */
    unsigned char *end = made.bytes;
    uint64_t now_s = realtime_ns() / NS_PER_S;
    enum session_put_result result = SESSION_TOO_LARGE;
    unsigned int id_length;
    const unsigned char *id;
    int length;

    /* TLS 1.3 calls this for each ticket too, though a stateless one holds all that there is to know. */
    if (sessions->stateless_tickets && SSL_version(ssl) == TLS1_3_VERSION)
        return 0;
    id = SSL_SESSION_get_id(session, &id_length);
    length = i2d_SSL_SESSION(session, NULL);
    if (length > 0 && length <= SESSION_BYTES_MAX && mark_kept(session, true)) {
        i2d_SSL_SESSION(session, &end);
        made.expires_s = now_s + sessions->lifetime_s;
        made.id_length = id_length;
        memcpy(made.id, id, id_length);
        made.length = (size_t)length;
        result = session_store_put(sessions->store, id, id_length, made.bytes, made.length, now_s, made.expires_s);
        if (result != SESSION_TOO_LARGE && sessions->announcer)
            announcer_new(sessions->announcer, &made);
        OPENSSL_cleanse(made.bytes, (size_t)length);
    }
    if (result == SESSION_TOO_LARGE)
        stats_add(&sessions->counters->session_too_large, 1);
    else
        count_put(sessions, result);
    return 0; /* we keep no reference to the session itself */
}

/* Other hosts are to forget it too; here it is remembered as dead, as one of them may still tell of it. */
static void withdraw_until(const struct tls_sessions *sessions, const uint8_t *id, size_t id_length, uint64_t until_s) {
    if (!sessions->announcer)
        return;
    count_room(sessions, session_store_withdraw(sessions->store, id, id_length, realtime_ns() / NS_PER_S, until_s));
    announcer_del(sessions->announcer, id, id_length, until_s);
}

static void withdraw(const struct tls_sessions *sessions, const uint8_t *id, size_t id_length) {
    withdraw_until(sessions, id, id_length, realtime_ns() / NS_PER_S + sessions->lifetime_s);
}

static SSL_SESSION *find_session(SSL *ssl, const unsigned char *id, int id_length, int *copy) {
    struct tls_sessions *sessions = sessions_of(SSL_get_SSL_CTX(ssl));
    unsigned char bytes[SESSION_BYTES_MAX];
    const unsigned char *start = bytes;
    /* A ticket of TLS 1.3 is good for one handshake (RFC 8446, C.4): two that come at once do not both find it. */
    bool take = SSL_version(ssl) == TLS1_3_VERSION;
    SSL_SESSION *session = NULL;
    uint64_t expires_s = 0;
    bool expired = false;
    size_t length;

    *copy = 0;
    length = session_store_get(sessions->store, id, (size_t)id_length, bytes, realtime_ns() / NS_PER_S, take, &expired,
                               &expires_s);
    if (length) {
        session = d2i_SSL_SESSION(NULL, &start, (long)length);
        OPENSSL_cleanse(bytes, length);
        if (take) {
            /* When it would have ended; its date may have been rounded down by a second on its way. */
            withdraw_until(sessions, id, (size_t)id_length, expires_s + 1);
        } else if (session && !mark_kept(session, true)) {
            SSL_SESSION_free(session);
            session = NULL;
        }
    }
    /* It may be dated by the clock of another host: the store knows by ours when it ends. */
    if (session)
        SSL_SESSION_set_time(session, (long)expires_s - SSL_SESSION_get_timeout(session));
    if (expired)
        stats_add(&sessions->counters->session_expired, 1);
    stats_add(session ? &sessions->counters->session_hits : &sessions->counters->session_misses, 1);
    return session;
}

/* A session that ended in an error must not be resumed, also where others have it and it had to make room here. */
static void forget_session(SSL_CTX *context, SSL_SESSION *session) {
    const struct tls_sessions *sessions = sessions_of(context);
    unsigned int id_length;
    const unsigned char *id = SSL_SESSION_get_id(session, &id_length);

    if (!SSL_SESSION_get_ex_data(session, kept_index))
        return;
    mark_kept(session, false); /* the library says it again when the connection is freed */
    session_store_remove(sessions->store, id, id_length);
    withdraw(sessions, id, id_length);
}

void tls_sessions_serve(const struct tls_sessions *sessions, SSL_CTX *context) {
    if (!sessions->store) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        return;
    }
    if (kept_index < 0)
        kept_index = SSL_SESSION_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    SSL_CTX_set_session_cache_mode(context,
                                   SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL | SSL_SESS_CACHE_NO_AUTO_CLEAR);
    SSL_CTX_sess_set_new_cb(context, keep_session);
    SSL_CTX_sess_set_get_cb(context, find_session);
    SSL_CTX_sess_set_remove_cb(context, forget_session);
}
