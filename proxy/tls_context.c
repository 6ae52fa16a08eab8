/* SPDX-License-Identifier: MIT */
#include "tls_context.h"

#include "clock.h"
#include "tls_credentials.h"
#include "units.h"

#include <openssl/err.h>
#include <stdio.h>

#define SESSION_LIFETIME_S 3600

/* What the session callbacks need: hung on the SSL_CTX. */
struct session_cache {
    struct session_store *store;
    struct worker_counters *counters;
    bool stateless_tickets;
};

static int cache_index = -1;

static struct session_cache *cache_of(const SSL_CTX *context) {
    return SSL_CTX_get_ex_data(context, cache_index);
}

static int new_session(SSL *ssl, SSL_SESSION *session) {
    struct session_cache *cache = cache_of(SSL_get_SSL_CTX(ssl));
    unsigned char bytes[SESSION_BYTES_MAX], *end = bytes;
    unsigned int id_length;
    const unsigned char *id;
    int length;

    /* TLS 1.3 calls this for each ticket too, though a stateless one holds all that there is to know. */
    if (cache->stateless_tickets && SSL_version(ssl) == TLS1_3_VERSION)
        return 0;
    id = SSL_SESSION_get_id(session, &id_length);
    length = i2d_SSL_SESSION(session, NULL);
    if (length <= 0 || length > SESSION_BYTES_MAX) {
        stats_add(&cache->counters->session_too_large, 1);
        return 0;
    }
    i2d_SSL_SESSION(session, &end);
    session_store_put(cache->store, id, id_length, bytes, (size_t)length,
                      realtime_ns() / NS_PER_S + SESSION_LIFETIME_S);
    OPENSSL_cleanse(bytes, (size_t)length);
    stats_add(&cache->counters->session_stores, 1);
    return 0; /* we keep no reference to the session itself */
}

static SSL_SESSION *get_session(SSL *ssl, const unsigned char *id, int id_length, int *copy) {
    struct session_cache *cache = cache_of(SSL_get_SSL_CTX(ssl));
    unsigned char bytes[SESSION_BYTES_MAX];
    const unsigned char *start = bytes;
    SSL_SESSION *session = NULL;
    size_t length;

    *copy = 0;
    length = session_store_get(cache->store, id, (size_t)id_length, bytes, realtime_ns() / NS_PER_S);
    if (length) {
        session = d2i_SSL_SESSION(NULL, &start, (long)length);
        OPENSSL_cleanse(bytes, length);
    }
    stats_add(session ? &cache->counters->session_hits : &cache->counters->session_misses, 1);
    return session;
}

/* A session that ended in an error, or was used up, must not be resumed. */
static void remove_session(SSL_CTX *context, SSL_SESSION *session) {
    unsigned int id_length;
    const unsigned char *id = SSL_SESSION_get_id(session, &id_length);

    session_store_remove(cache_of(context)->store, id, id_length);
}

static const char *set_up_sessions(SSL_CTX *context, const struct proxy_settings *settings,
                                   struct session_store *store) {
    static const unsigned char id_context[] = "tlsdyno";
    struct session_cache *cache;

    if (!settings->tickets)
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(context, (settings->tickets || store) ? (size_t)settings->num_tickets : 0);
    SSL_CTX_set_timeout(context, SESSION_LIFETIME_S);
    SSL_CTX_set_session_id_context(context, id_context, sizeof id_context - 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    if (!store)
        return NULL;
    cache = OPENSSL_zalloc(sizeof *cache);
    if (cache_index < 0)
        cache_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    if (!cache || cache_index < 0 || !SSL_CTX_set_ex_data(context, cache_index, cache))
        return "out of memory";
    cache->store = store;
    cache->stateless_tickets = settings->tickets != 0;
    SSL_CTX_set_session_cache_mode(context,
                                   SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL | SSL_SESS_CACHE_NO_AUTO_CLEAR);
    SSL_CTX_sess_set_new_cb(context, new_session);
    SSL_CTX_sess_set_get_cb(context, get_session);
    SSL_CTX_sess_set_remove_cb(context, remove_session);
    return NULL;
}

void tls_context_count_in(SSL_CTX *context, struct worker_counters *counters) {
    if (cache_index >= 0)
        cache_of(context)->counters = counters;
}

/* OpenSSL's own word on why it refused a setting. */
static const char *library_reason(void) {
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    return reason ? reason : "unknown to the TLS library";
}

static const char *refuse(const char *option, const char *value) {
    static char reason[512];

    snprintf(reason, sizeof reason, "--%s: %s: %s", option, value, library_reason());
    return reason;
}

static const char *set_up_policy(SSL_CTX *context, const struct proxy_settings *settings) {
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF |
                                     SSL_OP_SINGLE_ECDH_USE);
    if (settings->prefer_server_ciphers)
        SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(context,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* A record's header and body in one read(). */
    SSL_CTX_set_read_ahead(context, 1);
    /* TLS 1.0 and 1.1 sign with SHA-1, which OpenSSL 3 allows at level 0 only. Who asks for them by name gets them. */
    if (settings->tls_min && settings->tls_min < TLS1_2_VERSION)
        SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, settings->tls_min);
    SSL_CTX_set_max_proto_version(context, settings->tls_max);
    SSL_CTX_set_dh_auto(context, 1);
    if (settings->ciphers && !SSL_CTX_set_cipher_list(context, settings->ciphers))
        return refuse("ciphers", settings->ciphers);
    if (settings->ciphersuites && !SSL_CTX_set_ciphersuites(context, settings->ciphersuites))
        return refuse("ciphersuites", settings->ciphersuites);
    if (settings->groups && !SSL_CTX_set1_groups_list(context, settings->groups))
        return refuse("groups", settings->groups);
    if (settings->sigalgs && !SSL_CTX_set1_sigalgs_list(context, settings->sigalgs))
        return refuse("sigalgs", settings->sigalgs);
    return NULL;
}

/* One certificate a key type: OpenSSL picks the one that the client can use. A second of the same type would replace
 * it. */
static const char *load_certificates(SSL_CTX *context, const struct proxy_settings *settings) {
    static char twice[512];
    int types[8], count = 0;

    for (int i = 0; i < settings->certificate_count; i++) {
        const char *reason = tls_credentials_load(context, settings->certificates[i], NULL);
        int type;

        if (reason)
            return reason;
        type = EVP_PKEY_get_base_id(SSL_CTX_get0_privatekey(context));
        for (int other = 0; other < count; other++)
            if (types[other] == type) {
                snprintf(twice, sizeof twice, "%s: there is another certificate with a key of the same type already",
                         settings->certificates[i]);
                return twice;
            }
        if (count < (int)(sizeof types / sizeof *types))
            types[count++] = type;
    }
    return NULL;
}

const char *tls_context_new(SSL_CTX **made, const struct proxy_settings *settings, struct session_store *store) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    const char *reason;

    if (!context)
        return library_reason();
    reason = set_up_policy(context, settings);
    if (!reason)
        reason = load_certificates(context, settings);
    if (!reason)
        reason = set_up_sessions(context, settings, store);
    if (reason) {
        SSL_CTX_free(context);
        return reason;
    }
    *made = context;
    return NULL;
}
