/* SPDX-License-Identifier: MIT */
#include "tls_policy.h"

#include "tls_reason.h"

#include <openssl/err.h>

/*
 * A server's suites where none are asked for, in the order that decides then: forward secret and authenticated
 * encryption only, what costs least first. Without DHE, which costs the server several times what ECDHE does; --ciphers
 * can name it.
 */
#define SERVER_CIPHERS                                                                                                 \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"                         \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define SERVER_CIPHERSUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

static const struct {
    unsigned proto;
    int version;
    uint64_t without;
} protos[] = {
    {TLS_PROTO_TLS1, TLS1_VERSION, SSL_OP_NO_TLSv1},
    {TLS_PROTO_TLS1_1, TLS1_1_VERSION, SSL_OP_NO_TLSv1_1},
    {TLS_PROTO_TLS1_2, TLS1_2_VERSION, SSL_OP_NO_TLSv1_2},
    {TLS_PROTO_TLS1_3, TLS1_3_VERSION, SSL_OP_NO_TLSv1_3},
};

/* From the oldest to the newest of the list; what is left out in between is switched off. */
static void use_protos(SSL_CTX *context, unsigned asked, int *min, int *max) {
    *min = 0;
    for (size_t i = 0; i < sizeof protos / sizeof *protos; i++) {
        if (!(asked & protos[i].proto)) {
            SSL_CTX_set_options(context, protos[i].without);
            continue;
        }
        if (!*min)
            *min = protos[i].version;
        *max = protos[i].version;
    }
}

/* The range asked for, by its names of today or by stud's or hitch's; 0 is the library's own limit. */
static const char *version_range(SSL_CTX *context, const struct tls_versions *asked, int *min, int *max) {
    const char *old = asked->only_tls1 ? "tls" : asked->any_version ? "ssl" : asked->protos ? "tls-protos" : NULL;

    if (asked->only_tls1 && asked->any_version)
        return "--ssl: not together with --tls";
    if (asked->protos && (asked->only_tls1 || asked->any_version))
        return tls_reason("--tls-protos: not together with --%s", old);
    if (old && (asked->min || asked->max))
        return tls_reason("--%s: not together with --tls-min or --tls-max", old);
    *min = asked->min ? asked->min : TLS1_2_VERSION;
    *max = asked->max;
    if (asked->only_tls1)
        *min = *max = TLS1_VERSION;
    if (asked->any_version)
        *min = 0;
    if (asked->protos)
        use_protos(context, asked->protos, min, max);
    if (*max && *max < *min)
        return asked->min ? "--tls-max: lower than --tls-min"
                          : "--tls-max: lower than TLSv1.2, which --tls-min is unless it is given";
    return NULL;
}

static const char *set_ciphers(SSL_CTX *context, const struct proxy_settings *settings, bool has_defaults) {
    bool asked = settings->ciphers || settings->ciphersuites;
    const char *ciphers = settings->ciphers ? settings->ciphers : has_defaults ? SERVER_CIPHERS : NULL;
    const char *suites = settings->ciphersuites ? settings->ciphersuites : has_defaults ? SERVER_CIPHERSUITES : NULL;

    if (settings->prefer_server_ciphers || (has_defaults && !asked))
        /* A client that would rather have ChaCha20 has no hardware for AES. */
        SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    if (ciphers && !SSL_CTX_set_cipher_list(context, ciphers))
        return tls_reason_of_library("ciphers", ciphers);
    if (suites && !SSL_CTX_set_ciphersuites(context, suites))
        return tls_reason_of_library("ciphersuites", suites);
    return NULL;
}

const char *tls_policy_apply(SSL_CTX *context, const struct proxy_settings *settings) {
    bool is_server = SSL_CTX_get_ssl_method(context) == TLS_server_method();
    int min = 0, max = 0;
    const char *reason = version_range(context, &settings->versions, &min, &max);

    if (reason)
        return reason;
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(context,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* The chain is what the operator's file holds: it is not searched for again in every handshake. */
    SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN);
    /* A record's header and body in one read(). */
    SSL_CTX_set_read_ahead(context, 1);
    /* TLS 1.0 and 1.1 sign with SHA-1, which OpenSSL 3 allows at level 0 only. Who asks for them by name gets them. */
    if (min < TLS1_2_VERSION)
        SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, min);
    SSL_CTX_set_max_proto_version(context, max);
    SSL_CTX_set_dh_auto(context, 1);
    ERR_clear_error();
    /* The old versions have none of the modern suites: who wants them gets the library's own list. */
    reason = set_ciphers(context, settings, is_server && min >= TLS1_2_VERSION);
    if (reason)
        return reason;
    if (settings->groups && !SSL_CTX_set1_groups_list(context, settings->groups))
        return tls_reason_of_library("groups", settings->groups);
    if (settings->sigalgs && !SSL_CTX_set1_sigalgs_list(context, settings->sigalgs))
        return tls_reason_of_library("sigalgs", settings->sigalgs);
    return NULL;
}
