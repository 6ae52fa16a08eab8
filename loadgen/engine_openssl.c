/* SPDX-License-Identifier: MIT */
/*
 * The engine that is right rather than cheap: everything OpenSSL speaks, decoded and checked by OpenSSL. One SSL_CTX,
 * one new SSL a connection (SSL_clear would keep the session and the version of the connection before).
 */
#include "engine.h"
#include "flight_bio.h"
#include "tls_credentials.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What is known of the certificates that came last: they are only decoded again when others come. */
struct seen_certificate {
    unsigned char signature[1024]; /* the leaf's: no two certificates have the same */
    int signature_bytes;
    int chain_length;
    unsigned chain_bytes;
    char key[64]; /* "": none has come yet */
};

struct openssl_engine {
    struct engine engine;
    struct engine_config config;
    SSL_CTX *context;
    struct seen_certificate certificate;
};

struct openssl_connection {
    struct stream stream;
    struct openssl_engine *engine;
    void *owner;
    SSL_SESSION *session; /* to be offered: a reference of our own until the ClientHello has been looked at */
    bool offered;
};

static char reason_text[256];

static const char *refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *refuse(const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reason_text, sizeof reason_text, format, arguments);
    va_end(arguments);
    ERR_clear_error();
    return reason_text;
}

/* ---- One connection ---- */

static void forget_session(struct openssl_connection *connection) {
    SSL_SESSION_free(connection->session);
    connection->session = NULL;
}

static bool openssl_open(struct engine *engine, void *memory, int fd, const char *server_name, const char *address,
                         void *session, void *owner) {
    struct openssl_connection *connection = memory;
    struct openssl_engine *self = (struct openssl_engine *)engine;

    *connection = (struct openssl_connection){.engine = self, .owner = owner};
    if (!stream_open_tls(&connection->stream, fd, self->context, false))
        return false;
    SSL *ssl = connection->stream.ssl;
    SSL_set_app_data(ssl, connection);
    bool good = self->config.flush_handshake || flight_bio_attach(ssl, fd);
    good = good && (!server_name || SSL_set_tlsext_host_name(ssl, server_name) == 1);
    if (good && self->config.verify_peer)
        good = server_name ? SSL_set1_host(ssl, server_name) == 1
                           : X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), address) == 1;
    if (good && session) {
        good = SSL_set_session(ssl, session) == 1 && SSL_SESSION_up_ref(session) == 1;
        if (good)
            connection->session = session;
    }
    if (!good)
        stream_close(&connection->stream);
    return good;
}

/* A TLS 1.3 ticket older than its server said it would take is left out by OpenSSL. */
static bool is_too_old(const SSL_SESSION *session) {
    return SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION &&
           time(NULL) - (time_t)SSL_SESSION_get_time(session) > (time_t)SSL_SESSION_get_ticket_lifetime_hint(session);
}

static enum stream_result openssl_handshake(void *memory) {
    struct openssl_connection *connection = memory;
    bool too_old = connection->session && is_too_old(connection->session);
    enum stream_result result = stream_handshake(&connection->stream);

    if (connection->session && !connection->offered) {
        /*
         * The first step has sent the ClientHello. OpenSSL has then dropped a session that it could not offer (not
         * resumable, wrong version). If the step went on to the server's answer, the session may have been replaced
         * since: what was resumable counts as offered.
         */
        bool kept = SSL_get_session(connection->stream.ssl) == connection->session;
        connection->offered =
            !too_old && (result == STREAM_RETRY ? kept : SSL_SESSION_is_resumable(connection->session));
    }
    forget_session(connection);
    return result;
}

static enum stream_result openssl_read(void *memory, char *bytes, size_t size, size_t *got) {
    return stream_read(&((struct openssl_connection *)memory)->stream, bytes, size, got);
}

static enum stream_result openssl_write(void *memory, const char *bytes, size_t length, size_t *put) {
    return stream_write(&((struct openssl_connection *)memory)->stream, bytes, length, put);
}

static enum stream_result openssl_end(void *memory) {
    return stream_end(&((struct openssl_connection *)memory)->stream);
}

static int openssl_wants(const void *memory) {
    return ((const struct openssl_connection *)memory)->stream.wants;
}

static enum load_error openssl_why(const void *memory) {
    const struct stream *stream = &((const struct openssl_connection *)memory)->stream;

    if (!stream->tls_error)
        return load_error_of_io(stream->error);
    if (ERR_SYSTEM_ERROR(stream->tls_error))
        return load_error_of_io(ERR_GET_REASON(stream->tls_error));
    if (ERR_GET_LIB(stream->tls_error) == ERR_LIB_SSL) {
        int reason = ERR_GET_REASON(stream->tls_error);
        if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
            return LOAD_UNEXPECTED_EOF;
        if (reason >= SSL_AD_REASON_OFFSET)
            return LOAD_TLS_ALERT;
    }
    return LOAD_TLS_PROTOCOL;
}

static void openssl_close(void *memory) {
    struct openssl_connection *connection = memory;

    forget_session(connection);
    stream_close(&connection->stream);
}

static int openssl_release(void *memory) {
    struct openssl_connection *connection = memory;

    forget_session(connection);
    return stream_release(&connection->stream);
}

/* ---- What was agreed ---- */

/* The SignatureScheme's name (RFC 8446, 4.2.3) of what OpenSSL tells in two halves. */
static const char *sigalg_name(SSL *ssl) {
    static const struct {
        int type, digest;
        const char *name;
    } names[] = {
        {EVP_PKEY_EC, NID_sha256, "ecdsa_secp256r1_sha256"},
        {EVP_PKEY_EC, NID_sha384, "ecdsa_secp384r1_sha384"},
        {EVP_PKEY_EC, NID_sha512, "ecdsa_secp521r1_sha512"},
        {EVP_PKEY_EC, NID_sha224, "ecdsa_sha224"},
        {EVP_PKEY_EC, NID_sha1, "ecdsa_sha1"},
        {EVP_PKEY_RSA, NID_sha256, "rsa_pkcs1_sha256"},
        {EVP_PKEY_RSA, NID_sha384, "rsa_pkcs1_sha384"},
        {EVP_PKEY_RSA, NID_sha512, "rsa_pkcs1_sha512"},
        {EVP_PKEY_RSA, NID_sha224, "rsa_pkcs1_sha224"},
        {EVP_PKEY_RSA, NID_sha1, "rsa_pkcs1_sha1"},
        {EVP_PKEY_RSA, NID_md5_sha1, "rsa_pkcs1_md5_sha1"}, /* before TLS 1.2 */
        {EVP_PKEY_RSA_PSS, NID_sha256, "rsa_pss_rsae_sha256"},
        {EVP_PKEY_RSA_PSS, NID_sha384, "rsa_pss_rsae_sha384"},
        {EVP_PKEY_RSA_PSS, NID_sha512, "rsa_pss_rsae_sha512"},
        {EVP_PKEY_ED25519, NID_undef, "ed25519"},
        {EVP_PKEY_ED448, NID_undef, "ed448"},
    };
    int type = NID_undef, digest = NID_undef;

    if (SSL_get_peer_signature_type_nid(ssl, &type) != 1 || type == NID_undef)
        return "";
    SSL_get_peer_signature_nid(ssl, &digest);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].type == type && (names[i].digest == digest || names[i].digest == NID_undef))
            return names[i].name;
    return OBJ_nid2sn(type);
}

static void measure_certificate(struct openssl_engine *self, SSL *ssl, struct engine_facts *facts) {
    struct seen_certificate *seen = &self->certificate;
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
    const ASN1_BIT_STRING *signature = NULL;

    if (!chain || sk_X509_num(chain) == 0)
        return;
    X509_get0_signature(&signature, NULL, sk_X509_value(chain, 0));
    if (!signature)
        return;
    if (!*seen->key || seen->chain_length != sk_X509_num(chain) || seen->signature_bytes != signature->length ||
        memcmp(seen->signature, signature->data, (size_t)signature->length) != 0) {
        EVP_PKEY *public_key = X509_get0_pubkey(sk_X509_value(chain, 0));
        seen->chain_length = sk_X509_num(chain);
        seen->chain_bytes = 0;
        for (int i = 0; i < seen->chain_length; i++)
            seen->chain_bytes += (unsigned)i2d_X509(sk_X509_value(chain, i), NULL);
        seen->signature_bytes = -1; /* too long to be remembered: decoded every time */
        if ((size_t)signature->length <= sizeof seen->signature) {
            memcpy(seen->signature, signature->data, (size_t)signature->length);
            seen->signature_bytes = signature->length;
        }
        if (public_key)
            tls_key_name(public_key, seen->key, sizeof seen->key);
        else
            snprintf(seen->key, sizeof seen->key, "unknown");
        ERR_clear_error();
    }
    facts->certificate_key = seen->key;
    facts->chain_bytes = seen->chain_bytes;
}

/* As in a C string: one offered by name has no NUL in it. */
static const char *protocol_name(SSL *ssl) {
    static char name[256];
    const unsigned char *chosen;
    unsigned length;

    SSL_get0_alpn_selected(ssl, &chosen, &length);
    if (!chosen)
        return "";
    memcpy(name, chosen, length);
    name[length] = '\0';
    return name;
}

static void openssl_facts(void *memory, struct engine_facts *facts) {
    struct openssl_connection *connection = memory;
    SSL *ssl = connection->stream.ssl;
    bool has_exchange;

    *facts = (struct engine_facts){
        .resumed = SSL_session_reused(ssl) == 1,
        .offered = connection->offered || SSL_session_reused(ssl) == 1,
        .tls_version = SSL_get_version(ssl),
        .cipher = SSL_get_cipher_name(ssl),
        .group = "",
        .sigalg = sigalg_name(ssl),
        .alpn = protocol_name(ssl),
        .certificate_key = "",
    };
    /* A resumption before TLS 1.3 exchanges no key; OpenSSL would tell the group of the session's first handshake. */
    has_exchange = !facts->resumed || SSL_version(ssl) >= TLS1_3_VERSION;
    if (has_exchange)
        facts->group = tls_group_name((int)SSL_get_negotiated_group(ssl));
    if (!facts->resumed)
        measure_certificate(connection->engine, ssl, facts);
}

/* ---- Sessions ---- */

/* OpenSSL's new-session callback: 1 keeps the reference. */
static int session_arrived(SSL *ssl, SSL_SESSION *session) {
    struct openssl_connection *connection = SSL_get_app_data(ssl);
    const struct engine_config *config = &connection->engine->config;
    bool has_ticket = SSL_SESSION_has_ticket(session);

    if (!SSL_SESSION_is_resumable(session) || (config->resume_with == RESUME_WITH_TICKET && !has_ticket) ||
        (config->resume_with == RESUME_WITH_ID && has_ticket))
        return 0;
    config->session_arrived(connection->owner, session);
    return 1;
}

static bool openssl_session_single_use(const void *session) {
    return SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION;
}

static void openssl_session_free(void *session) {
    SSL_SESSION_free(session);
}

/* ---- The context ---- */

static int accept_any_certificate(X509_STORE_CTX *store, void *argument) {
    (void)argument;
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
}

static bool is_tls13_suite(const char *cipher) {
    return strncmp(cipher, "TLS_", 4) == 0;
}

/* OpenSSL takes a list if it knows one name of it; here each must be known. */
static const char *check_cipher_names(const char *list) {
    SSL_CTX *scratch = SSL_CTX_new(TLS_client_method());
    const char *bad = NULL;
    char name[128];

    SSL_CTX_set_security_level(scratch, 0);
    while (*list && !bad) {
        size_t length = strcspn(list, ":, ");
        if (length >= sizeof name) {
            bad = "a name is too long";
            break;
        }
        memcpy(name, list, length);
        name[length] = '\0';
        if (isalnum((unsigned char)*name) && SSL_CTX_set_cipher_list(scratch, name) != 1) {
            static char reason[192];
            snprintf(reason, sizeof reason, "%s is unknown to %s", name, OpenSSL_version(OPENSSL_VERSION));
            bad = reason;
        }
        list += length + (list[length] != '\0');
    }
    SSL_CTX_free(scratch);
    ERR_clear_error();
    return bad;
}

static const char *set_cipher(SSL_CTX *context, const char *cipher, int *min_version, int *max_version) {
    if (is_tls13_suite(cipher)) {
        if (*max_version && *max_version < TLS1_3_VERSION)
            return refuse("--cipher: %s: is a TLS 1.3 suite, and an older version is asked for", cipher);
        if (SSL_CTX_set_ciphersuites(context, cipher) != 1)
            return refuse("--cipher: %s: is unknown to %s", cipher, OpenSSL_version(OPENSSL_VERSION));
        *min_version = *max_version = TLS1_3_VERSION;
        return NULL;
    }
    if (*min_version >= TLS1_3_VERSION)
        return refuse("--cipher: %s: is not a TLS 1.3 suite, and TLS 1.3 is asked for", cipher);
    const char *bad = check_cipher_names(cipher);
    if (bad)
        return refuse("--cipher: %s: %s", cipher, bad);
    if (SSL_CTX_set_cipher_list(context, cipher) != 1)
        return refuse("--cipher: %s: names no cipher", cipher);
    if (!*max_version)
        *max_version = TLS1_2_VERSION;
    return NULL;
}

static const char *set_alpn(SSL_CTX *context, const char *list) {
    unsigned char wire[256];
    size_t used = 0;

    for (const char *name = list; *name;) {
        size_t length = strcspn(name, ",");
        if (length == 0 || length > 255 || used + 1 + length > sizeof wire)
            return refuse("--alpn: %s: not a comma-separated list of protocol names", list);
        wire[used++] = (unsigned char)length;
        memcpy(wire + used, name, length);
        used += length;
        name += length + (name[length] != '\0');
    }
    if (used == 0 || SSL_CTX_set_alpn_protos(context, wire, (unsigned)used) != 0)
        return refuse("--alpn: %s: not a comma-separated list of protocol names", list);
    return NULL;
}

static const char *set_verification(SSL_CTX *context, const struct engine_config *config) {
    if (!config->verify_peer) {
        SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
        /* SSL_VERIFY_NONE alone still builds and checks the chain, and then ignores what came of it. */
        SSL_CTX_set_cert_verify_callback(context, accept_any_certificate, NULL);
        return NULL;
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (!config->ca_file)
        SSL_CTX_set_default_verify_paths(context);
    else if (SSL_CTX_load_verify_locations(context, config->ca_file, NULL) != 1)
        return refuse("--ca: %s: no certificate can be read", config->ca_file);
    return NULL;
}

static const char *configure(SSL_CTX *context, const struct engine_config *config) {
    int min_version = config->tls_version, max_version = min_version;
    const char *reason = NULL;

    /* What is offered is the user's choice: old versions, small keys. */
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_read_ahead(context, 1); /* else two read() a record */
    if (config->resume && config->resume_with == RESUME_WITH_ID && !max_version)
        max_version = TLS1_2_VERSION;
    if (!config->resume || config->resume_with == RESUME_WITH_ID)
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(context, config->resume ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL
                                                           : SSL_SESS_CACHE_OFF);
    if (config->resume)
        SSL_CTX_sess_set_new_cb(context, session_arrived);
    if (config->psk_mode == PSK_MODE_KE)
        return refuse("--psk-mode: psk_ke: OpenSSL offers it together with psk_dhe_ke only (any)");
    if (config->psk_mode == PSK_MODE_ANY)
        SSL_CTX_set_options(context, SSL_OP_ALLOW_NO_DHE_KEX);
    if (config->cipher)
        reason = set_cipher(context, config->cipher, &min_version, &max_version);
    if (reason)
        return reason;
    if (config->resume && config->resume_with == RESUME_WITH_ID && min_version >= TLS1_3_VERSION)
        return refuse("--resume-with: id: a TLS 1.3 resumption is always by ticket (PSK)");
    if (config->psk_mode != PSK_MODE_DHE_KE && max_version && max_version < TLS1_3_VERSION)
        return refuse("--psk-mode: only TLS 1.3 has PSK modes");
    if (SSL_CTX_set_min_proto_version(context, min_version) != 1 ||
        SSL_CTX_set_max_proto_version(context, max_version) != 1)
        return refuse("--tls-version: not spoken by %s", OpenSSL_version(OPENSSL_VERSION));
    if (config->groups && SSL_CTX_set1_groups_list(context, config->groups) != 1)
        return refuse("--group: %s: is unknown to %s", config->groups, OpenSSL_version(OPENSSL_VERSION));
    if (config->sigalgs && SSL_CTX_set1_sigalgs_list(context, config->sigalgs) != 1)
        return refuse("--sigalgs: %s: is unknown to %s", config->sigalgs, OpenSSL_version(OPENSSL_VERSION));
    if (config->alpn)
        reason = set_alpn(context, config->alpn);
    return reason ? reason : set_verification(context, config);
}

const char *engine_openssl_new(struct engine **engine, const struct engine_config *config) {
    struct openssl_engine *self = calloc(1, sizeof *self);
    const char *reason;

    if (!self)
        return refuse("--engine: openssl: out of memory");
    self->engine = (struct engine){
        .name = "openssl",
        .connection_bytes = sizeof(struct openssl_connection),
        .open = openssl_open,
        .handshake = openssl_handshake,
        .read = openssl_read,
        .write = openssl_write,
        .end = openssl_end,
        .wants = openssl_wants,
        .why = openssl_why,
        .facts = openssl_facts,
        .close = openssl_close,
        .release = openssl_release,
        .session_single_use = openssl_session_single_use,
        .session_free = openssl_session_free,
    };
    self->config = *config;
    self->context = SSL_CTX_new(TLS_client_method());
    reason = self->context ? configure(self->context, config) : refuse("--engine: openssl: out of memory");
    if (reason) {
        SSL_CTX_free(self->context);
        free(self);
        return reason;
    }
    *engine = &self->engine;
    return NULL;
}
