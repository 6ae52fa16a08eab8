/* SPDX-License-Identifier: MIT */
/* The proxy as a client of its backend: --client. */
#include "tls_context.h"

#include "alpn.h"
#include "regular_file.h"
#include "tls_credentials.h"
#include "tls_engine.h"
#include "tls_policy.h"
#include "tls_reason.h"

#include <ctype.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* RFC 6066, section 3 */
#define HOST_NAME_MAX_BYTES 255

/* Hung on the context, and freed with it. */
struct tls_client {
    char asked_name[HOST_NAME_MAX_BYTES + 1]; /* of the backend, in SNI; empty: none */
    SSL_SESSION *last;                        /* NULL: none yet. Each process has its own after the fork. */
};

static int client_index = -1;

static struct tls_client *client_of(const SSL_CTX *context) {
    return SSL_CTX_get_ex_data(context, client_index);
}

static void free_client(void *parent, void *client_of_context, CRYPTO_EX_DATA *data, int index, long number,
                        void *user) {
    (void)parent, (void)data, (void)index, (void)number, (void)user;
    struct tls_client *client = client_of_context;

    if (client)
        SSL_SESSION_free(client->last);
    free(client);
}

static struct tls_client *add_client(SSL_CTX *context) {
    struct tls_client *client = calloc(1, sizeof *client);

    if (client_index < 0)
        client_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_client);
    if (!client || client_index < 0 || !SSL_CTX_set_ex_data(context, client_index, client)) {
        free(client);
        return NULL;
    }
    return client;
}

static int keep_session(SSL *ssl, SSL_SESSION *session) {
    struct tls_client *client = client_of(SSL_get_SSL_CTX(ssl));

    SSL_SESSION_free(client->last);
    client->last = session;
    return 1; /* the reference is ours now */
}

/* TLS 1.2: a ticket that came while the one before was resumed is a session that OpenSSL tells nobody of. */
static void keep_renewed(const SSL *ssl, int where, int result) {
    (void)result;
    if (where & SSL_CB_HANDSHAKE_DONE && SSL_version(ssl) < TLS1_3_VERSION && SSL_session_reused(ssl))
        keep_session((SSL *)(uintptr_t)ssl, SSL_get1_session((SSL *)(uintptr_t)ssl));
}

/* A session that ended in an error is not offered again. */
static void forget_session(SSL_CTX *context, SSL_SESSION *session) {
    struct tls_client *client = client_of(context);

    if (client->last != session)
        return;
    client->last = NULL;
    SSL_SESSION_free(session);
}

bool tls_context_prepare_client(SSL *ssl) {
    const struct tls_client *client = client_of(SSL_get_SSL_CTX(ssl));

    if (client->asked_name[0] && SSL_set_tlsext_host_name(ssl, client->asked_name) != 1)
        return false;
    return !client->last || !SSL_SESSION_is_resumable(client->last) || SSL_set_session(ssl, client->last) == 1;
}

/* Labels with points between them. */
static bool is_host_name(const char *name) {
    size_t label;

    for (;; name += label + 1) {
        label = strcspn(name, ".");
        for (size_t i = 0; i < label; i++)
            if (!isalnum((unsigned char)name[i]) && name[i] != '-' && name[i] != '_')
                return false;
        if (!label || !name[label])
            return label > 0;
    }
}

static const char *set_up_name(SSL_CTX *context, struct tls_client *client, const char *name) {
    X509_VERIFY_PARAM *wanted = SSL_CTX_get0_param(context);

    if (X509_VERIFY_PARAM_set1_ip_asc(wanted, name) == 1)
        return NULL; /* SNI has no addresses: RFC 6066, section 3 */
    if (strlen(name) > HOST_NAME_MAX_BYTES)
        return "--verify-name: longer than 255 characters";
    if (!is_host_name(name))
        return tls_reason("--verify-name: %s: neither a host name nor an address", name);
    X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (X509_VERIFY_PARAM_set1_host(wanted, name, 0) != 1)
        return "out of memory";
    snprintf(client->asked_name, sizeof client->asked_name, "%s", name);
    return NULL;
}

static const char *set_up_verification(SSL_CTX *context, struct tls_client *client,
                                       const struct proxy_settings *settings) {
    const char *reason = settings->backend_name ? set_up_name(context, client, settings->backend_name) : NULL, *why;
    FILE *readable;

    if (reason || !settings->backend_ca)
        return reason;
    if (!settings->backend_name)
        return "--ca: needs --verify-name: any name of that authority's would do";
    readable = regular_file_open(settings->backend_ca, &why);
    if (!readable)
        return tls_reason("--ca: %s: cannot be read: %s", settings->backend_ca, why);
    fclose(readable);
    if (SSL_CTX_load_verify_file(context, settings->backend_ca) != 1) {
        ERR_clear_error();
        return tls_reason("--ca: %s: no certificate can be read", settings->backend_ca);
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    return NULL;
}

/* What only a server can do is not passed over in silence: of a certificate, and, below, of all. */
static const char *refuse_server_words(const struct certificate_source *source) {
    const char *option = source->staple          ? "ocsp-resp-file"
                         : source->verify_staple ? "ocsp-verify-staple"
                         : source->client_ca     ? "client-ca"
                         : source->client_verify ? "client-verify"
                                                 : NULL;

    return option ? tls_reason("%s: %s: not together with --client", source->file, option) : NULL;
}

static const char *load_certificate(SSL_CTX *context, const struct proxy_settings *settings) {
    const struct certificate_list *certificates = &settings->certificates;
    const struct certificate_source *source = certificates->source;
    struct tls_credentials credentials;
    const char *reason;

    if (!certificates->count)
        return NULL;
    if (certificates->count > 1)
        return tls_reason("%s: with --client there is one certificate at most", source[1].file);
    reason = refuse_server_words(source);
    if (!reason)
        reason = tls_credentials_read(&credentials, source->file, source->key);
    if (reason)
        return reason;
    reason = tls_credentials_check_dates(&credentials, source->file);
    if (!reason)
        reason = tls_credentials_use(&credentials, source->file, context);
    tls_credentials_free(&credentials);
    return reason;
}

static const char *refuse_server_options(const struct proxy_settings *settings) {
    const char *option = settings->sni_nomatch_abort      ? "sni-nomatch-abort"
                         : settings->ocsp_files.count > 0 ? "ocsp"
                         : settings->ocsp_verify_staple   ? "ocsp-verify-staple"
                         : settings->client_ca            ? "client-ca"
                         : settings->client_verify        ? "client-verify"
                         : settings->ticket_keys          ? "ticket-keys"
                                                          : NULL;

    return option ? tls_reason("--%s: not together with --client", option) : NULL;
}

static const char *set_up_client(SSL_CTX *context, const struct proxy_settings *settings) {
    struct tls_client *client = add_client(context);
    const char *reason = client ? refuse_server_options(settings) : "out of memory";
    struct alpn alpn;

    if (!reason)
        reason = tls_policy_apply(context, settings);
    if (!reason && settings->alpn) {
        reason = alpn_parse(&alpn, settings->alpn);
        if (!reason && SSL_CTX_set_alpn_protos(context, alpn.wire, alpn.length) != 0)
            reason = "out of memory";
    }
    if (!reason)
        reason = set_up_verification(context, client, settings);
    if (!reason)
        reason = load_certificate(context, settings);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_session);
    SSL_CTX_sess_set_remove_cb(context, forget_session);
    SSL_CTX_set_info_callback(context, keep_renewed);
    return reason;
}

const char *tls_context_new_client(SSL_CTX **made, const struct proxy_settings *settings) {
    const char *reason = tls_engine_use(settings->engine);
    SSL_CTX *context;

    if (reason)
        return reason;
    context = SSL_CTX_new(TLS_client_method());
    reason = context ? set_up_client(context, settings) : "out of memory";
    if (reason)
        SSL_CTX_free(context);
    else
        *made = context;
    return reason;
}
