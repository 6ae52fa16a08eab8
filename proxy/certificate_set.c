/* SPDX-License-Identifier: MIT */
#include "certificate_set.h"

#include "bytes.h"
#include "client_verification.h"
#include "ocsp_staple.h"
#include "server_names.h"
#include "tls_credentials.h"
#include "tls_reason.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

struct certificate {
    const struct certificate_source *source; /* the operator's words: valid while certificates are read */
    struct tls_credentials credentials;
    int kind;
    struct ocsp_staple staple;
    bool verifies; /* clients, in its own way: */
    struct client_verification verification;
    struct session_identity identity;
};

struct certificate_set {
    struct certificate *certificate;
    int count;
    int first_count;           /* of the first list */
    struct server_names names; /* of the first list's certificates */
    struct server_names more_names;
    struct server_name unnamed; /* who asks for no name */
    bool unknown_is_refused;
};

/* OpenSSL has a place for one certificate of each of these in a connection. */
static int kind_of(const X509 *certificate) {
    static const char *const kinds[KEY_KINDS] = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448"};
    const EVP_PKEY *key = X509_get0_pubkey(certificate);

    for (int kind = 0; key && kind < KEY_KINDS; kind++)
        if (EVP_PKEY_is_a(key, kinds[kind]))
            return kind;
    return -1;
}

/* What it does not say of its clients is as for all. */
static const char *read_verification(struct certificate *certificate, const struct proxy_settings *settings) {
    const struct certificate_source *source = certificate->source;
    const char *client_ca = source->client_ca ? source->client_ca : settings->client_ca;

    certificate->verifies = source->client_ca || source->client_verify;
    if (!certificate->verifies)
        return NULL;
    if (!client_ca && source->client_verify != CLIENT_VERIFY_NONE)
        return tls_reason("%s: client-verify: only with client-ca", source->file);
    return client_verification_read(&certificate->verification, client_ca,
                                    source->client_verify ? source->client_verify
                                    : source->client_ca   ? CLIENT_VERIFY_NOT_GIVEN
                                                          : settings->client_verify);
}

static const char *read_certificate(struct certificate *certificate, const struct proxy_settings *settings) {
    const struct certificate_source *source = certificate->source;
    const char *reason = tls_credentials_read(&certificate->credentials, source->file, source->key);

    if (reason)
        return reason;
    certificate->kind = kind_of(certificate->credentials.certificate);
    if (certificate->kind < 0)
        return tls_reason("%s: neither RSA, ECDSA nor EdDSA", source->file);
    reason = tls_credentials_check_dates(&certificate->credentials, source->file);
    return reason ? reason : read_verification(certificate, settings);
}

static bool same_text(const char *one, const char *other) {
    return one && other ? strcmp(one, other) == 0 : one == other;
}

/* Which of them a client can use is known too late. */
static bool verify_alike(const struct certificate_source *one, const struct certificate_source *other) {
    return one->client_verify == other->client_verify && same_text(one->client_ca, other->client_ca);
}

static const char *put(struct server_name *name, struct certificate *certificate) {
    const char *file = certificate->source->file, *of = name->name ? name->name : "no name at all";
    const struct certificate *there = name->certificate[certificate->kind];

    if (there && there != certificate)
        return tls_reason("%s: %s has a key of the same type for %s already", file, there->source->file, of);
    for (int kind = 0; kind < KEY_KINDS; kind++)
        if (name->certificate[kind] && !verify_alike(name->certificate[kind]->source, certificate->source))
            return tls_reason("%s: %s has clients verified in another way for %s", file,
                              name->certificate[kind]->source->file, of);
    name->certificate[certificate->kind] = certificate;
    return NULL;
}

static const char *put_by_name(struct server_names *names, struct certificate *certificate, const ASN1_STRING *text,
                               struct server_name **first) {
    const char *bytes = (const char *)ASN1_STRING_get0_data(text);
    struct server_name *name;

    /* No client can ask for a name that is empty or has a zero byte. */
    if (!*bytes || strlen(bytes) != (size_t)ASN1_STRING_length(text))
        return NULL;
    name = server_names_add(names, bytes);
    if (!name)
        return "out of memory";
    if (!*first)
        *first = name;
    return put(name, certificate);
}

/* Under each DNS name of its subjectAltName; under its common name where it has none such (RFC 6125, 6.4.4). */
static const char *put_by_names(struct server_names *names, struct certificate *certificate,
                                struct server_name **first) {
    X509 *x509 = certificate->credentials.certificate;
    GENERAL_NAMES *alternatives = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
    const char *reason = NULL;

    *first = NULL;
    for (int i = 0; !reason && i < sk_GENERAL_NAME_num(alternatives); i++) {
        const GENERAL_NAME *alternative = sk_GENERAL_NAME_value(alternatives, i);
        if (alternative->type == GEN_DNS)
            reason = put_by_name(names, certificate, alternative->d.dNSName, first);
    }
    GENERAL_NAMES_free(alternatives);
    if (!reason && !*first) {
        const X509_NAME *subject = X509_get_subject_name(x509);
        int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
        if (at >= 0)
            reason = put_by_name(names, certificate, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), first);
    }
    return reason;
}

/* A certificate without a name can only serve those who ask for none. */
static const char *put_all(struct certificate_set *set) {
    struct server_name *first, *of_first = NULL;
    const char *reason = NULL;

    for (int i = 0; !reason && i < set->count; i++) {
        bool is_of_first_list = i < set->first_count;
        reason = put_by_names(is_of_first_list ? &set->names : &set->more_names, &set->certificate[i], &first);
        if (i == 0)
            of_first = first;
        if (!reason && !first && is_of_first_list)
            reason = put(&set->unnamed, &set->certificate[i]);
    }
    for (int kind = 0; !reason && of_first && kind < KEY_KINDS; kind++)
        if (of_first->certificate[kind])
            reason = put(&set->unnamed, of_first->certificate[kind]);
    return reason;
}

static const char *staple_to(struct certificate *certificate, const struct ocsp_file *file, bool verified,
                             bool *about) {
    enum toggle own = certificate->source->verify_staple;
    bool it_is = false;
    const char *reason = ocsp_file_answer(file, certificate->credentials.certificate, &certificate->staple, &it_is);

    if (!reason && it_is && (own ? own == TOGGLE_ON : verified))
        reason = ocsp_file_verify(file, certificate->credentials.chain);
    *about |= it_is;
    return reason;
}

/* only NULL: to whichever certificates it is about. */
static const char *read_staple(struct certificate_set *set, const char *path, struct certificate *only,
                               const struct proxy_settings *settings) {
    struct ocsp_file file;
    const char *reason = ocsp_file_open(&file, path);
    bool about = false;

    if (reason)
        return reason;
    for (int i = 0; !reason && i < set->count; i++)
        if (only ? &set->certificate[i] == only : !set->certificate[i].source->staple)
            reason = staple_to(&set->certificate[i], &file, settings->ocsp_verify_staple, &about);
    if (!reason && !about && only)
        reason = tls_reason("--ocsp: %s: not about %s", path, only->source->file);
    else if (!reason && !about)
        reason = tls_reason("--ocsp: %s: about none of the certificates", path);
    ocsp_file_close(&file);
    return reason;
}

static bool same(const struct server_name *one, const struct server_name *other) {
    return memcmp(one->certificate, other->certificate, sizeof one->certificate) == 0;
}

/* The TLS library holds it against the policy: a key too small, a signature too weak. */
static bool use(SSL *ssl, const struct certificate *certificate) {
    return SSL_use_cert_and_key(ssl, certificate->credentials.certificate, certificate->credentials.key,
                                certificate->credentials.chain, 1) == 1;
}

static const struct server_name *find(const struct certificate_set *set, const char *host) {
    const struct server_name *name = server_names_find(&set->names, host);

    return name ? name : server_names_find(&set->more_names, host);
}

static int answer_name(SSL *ssl, int *alert, void *user) {
    const struct certificate_set *set = user;
    const char *host = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    if (!host)
        return SSL_TLSEXT_ERR_NOACK;
    if (find(set, host))
        return SSL_TLSEXT_ERR_OK;
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return set->unknown_is_refused ? SSL_TLSEXT_ERR_ALERT_FATAL : SSL_TLSEXT_ERR_NOACK;
}

/* Full handshakes only. The connection begins with what the context has: that of those who ask for no name. */
static int choose_certificates(SSL *ssl, void *user) {
    const struct certificate_set *set = user;
    const char *host = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const struct server_name *name = host ? find(set, host) : NULL;

    if (!name || same(name, &set->unnamed))
        return 1;
    SSL_certs_clear(ssl);
    for (int kind = 0; kind < KEY_KINDS; kind++)
        if (name->certificate[kind] && !use(ssl, name->certificate[kind]))
            return 0;
    return 1;
}

/* Which certificate of ours an X509 is: hung on it. */
static int certificate_index = -1;

static int staple(SSL *ssl, void *user) {
    (void)user;
    const struct certificate *certificate = X509_get_ex_data(SSL_get_certificate(ssl), certificate_index);
    unsigned char *copy;

    if (SSL_session_reused(ssl) || !certificate || !certificate->staple.response ||
        (certificate->staple.expires && time(NULL) >= certificate->staple.expires))
        return SSL_TLSEXT_ERR_NOACK;
    copy = OPENSSL_memdup(certificate->staple.response, certificate->staple.length);
    if (!copy)
        return SSL_TLSEXT_ERR_NOACK;
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)certificate->staple.length);
    return SSL_TLSEXT_ERR_OK;
}

static const char *read_staples(struct certificate_set *set, SSL_CTX *context, const struct proxy_settings *settings) {
    const char *reason = NULL;

    if (certificate_index < 0)
        certificate_index = X509_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    for (int i = 0; !reason && i < settings->ocsp_files.count; i++)
        reason = read_staple(set, settings->ocsp_files.file[i], NULL, settings);
    for (int i = 0; !reason && i < set->count; i++)
        if (set->certificate[i].source->staple)
            reason = read_staple(set, set->certificate[i].source->staple, &set->certificate[i], settings);
    for (int i = 0; !reason && i < set->count; i++) {
        struct certificate *certificate = &set->certificate[i];
        if (certificate->staple.response &&
            !X509_set_ex_data(certificate->credentials.certificate, certificate_index, certificate))
            reason = "out of memory";
    }
    SSL_CTX_set_tlsext_status_cb(context, staple);
    return reason;
}

/* Each certificate is tried, so that what the library refuses is refused now and not in a handshake. */
static const char *try_all(const struct certificate_set *set, SSL_CTX *context) {
    SSL *trial = SSL_new(context);
    const char *reason = trial ? NULL : "out of memory";

    ERR_clear_error();
    for (int i = 0; !reason && i < set->count; i++)
        if (!use(trial, &set->certificate[i])) {
            const char *why = ERR_reason_error_string(ERR_peek_error());
            reason = tls_reason("%s: refused by the TLS library: %s", set->certificate[i].source->file,
                                why ? why : "no reason given");
        }
    ERR_clear_error();
    SSL_free(trial);
    return reason;
}

static const char *install(struct certificate_set *set, SSL_CTX *context) {
    const char *reason = try_all(set, context);

    for (int kind = 0; !reason && kind < KEY_KINDS; kind++) {
        const struct certificate *certificate = set->unnamed.certificate[kind];
        if (certificate)
            reason = tls_credentials_use(&certificate->credentials, certificate->source->file, context);
    }
    SSL_CTX_set_tlsext_servername_callback(context, answer_name);
    SSL_CTX_set_tlsext_servername_arg(context, set);
    SSL_CTX_set_cert_cb(context, choose_certificates, set);
    return reason;
}

static const char *read_list(struct certificate_set *set, const struct certificate_list *list,
                             const struct proxy_settings *settings) {
    const char *reason = NULL;

    for (int i = 0; !reason && i < list->count; i++) {
        struct certificate *next = &set->certificate[set->count++];
        next->source = &list->source[i];
        reason = read_certificate(next, settings);
    }
    return reason;
}

static bool has_staples(const struct certificate_set *set, const struct proxy_settings *settings) {
    bool has = settings->ocsp_files.count > 0;

    for (int i = 0; !has && i < set->count; i++)
        has = set->certificate[i].source->staple;
    return has;
}

bool certificate_set_identify(const struct certificate_set *set, struct session_identity *identity) {
    STACK_OF(X509) *certificates = sk_X509_new_reserve(NULL, set->first_count);
    bool done;

    for (int i = 0; certificates && i < set->first_count; i++)
        sk_X509_push(certificates, set->certificate[i].credentials.certificate);
    done = certificates && session_identity_add_certificates(identity, certificates);
    sk_X509_free(certificates);
    return done;
}

bool certificate_set_divide_sessions(struct certificate_set *set, const struct session_identity *identity) {
    bool done = true;

    for (int i = 0; done && i < set->count; i++) {
        struct certificate *certificate = &set->certificate[i];

        if (!certificate->verifies)
            continue;
        certificate->identity = *identity;
        done = client_verification_identify(&certificate->verification, &certificate->identity);
    }
    return done;
}

bool certificate_set_divides_sessions(const struct certificate_set *set) {
    for (int i = 0; i < set->count; i++)
        if (set->certificate[i].verifies)
            return true;
    return false;
}

/* RFC 6066, section 3. Empty: there is none. */
static void read_host(SSL *ssl, char *host, size_t size) {
    const unsigned char *bytes;
    struct reader extension, list, name;
    size_t length;

    *host = '\0';
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &bytes, &length) != 1)
        return;
    extension = reader_of(bytes, length);
    list = reader_vector(&extension, 2);
    if (reader_u8(&list) != TLSEXT_NAMETYPE_host_name)
        return;
    name = reader_vector(&list, 2);
    if (name.failed || name.left >= size)
        return;
    memcpy(host, name.at, name.left);
    host[name.left] = '\0';
}

/* What a connection's first ClientHello asked for: hung on its SSL. */
static int name_index = -1;

/* A client that has to send its ClientHello again sends the same (RFC 8446, 4.1.2). */
static bool is_as_before(SSL *ssl, const struct server_name *name) {
    const struct server_name *before = SSL_get_ex_data(ssl, name_index);

    return before ? before == name : SSL_set_ex_data(ssl, name_index, (void *)(uintptr_t)name) == 1;
}

bool certificate_set_hello(const struct certificate_set *set, SSL *ssl) {
    const struct server_name *name = NULL;
    const struct certificate *certificate = NULL;
    char host[TLSEXT_MAXLEN_host_name + 1];

    read_host(ssl, host, sizeof host);
    if (*host)
        name = find(set, host);
    if (!name)
        name = &set->unnamed;
    /* Else it would be verified as under the one name, and served under the other. */
    if (!is_as_before(ssl, name))
        return false;
    /* All that serve a name have clients verified alike. */
    for (int kind = 0; kind < KEY_KINDS && !certificate; kind++)
        certificate = name->certificate[kind];
    if (!certificate || !certificate->verifies)
        return true;
    return client_verification_use_once(&certificate->verification, ssl) &&
           SSL_set_session_id_context(ssl, certificate->identity.bytes, sizeof certificate->identity.bytes) == 1;
}

const char *certificate_set_serve(struct certificate_set **made, SSL_CTX *context,
                                  const struct proxy_settings *settings) {
    struct certificate_set *set = calloc(1, sizeof *set);
    const struct certificate_list *first = &settings->certificates, *more = &settings->more_certificates;
    const char *reason = NULL;

    if (!set)
        return "out of memory";
    if (name_index < 0)
        name_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    set->unknown_is_refused = settings->sni_nomatch_abort;
    set->first_count = first->count;
    set->certificate = calloc((size_t)(first->count + more->count), sizeof *set->certificate);
    if (!set->certificate)
        reason = "out of memory";
    if (!reason)
        reason = read_list(set, first, settings);
    if (!reason)
        reason = read_list(set, more, settings);
    if (!reason)
        reason = put_all(set);
    if (!reason && has_staples(set, settings))
        reason = read_staples(set, context, settings);
    if (!reason)
        reason = install(set, context);
    if (reason) {
        certificate_set_free(set);
        return reason;
    }
    *made = set;
    return NULL;
}

void certificate_set_free(struct certificate_set *set) {
    if (!set)
        return;
    for (int i = 0; i < set->count; i++) {
        tls_credentials_free(&set->certificate[i].credentials);
        client_verification_free(&set->certificate[i].verification);
        ocsp_staple_free(&set->certificate[i].staple);
    }
    server_names_free(&set->names);
    server_names_free(&set->more_names);
    free(set->certificate);
    free(set);
}
