/* SPDX-License-Identifier: MIT */
#include "client_verification.h"

#include "regular_file.h"
#include "tls_reason.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

static const char *load_authorities(SSL_CTX *context, const char *file) {
    STACK_OF(X509_NAME) * names;
    const char *why;
    FILE *readable = regular_file_open(file, &why);

    if (!readable)
        return tls_reason("--client-ca: %s: cannot be read: %s", file, why);
    fclose(readable);
    ERR_clear_error();
    /* Clients are told the names, so that they know which of their certificates to send. */
    names = SSL_load_client_CA_file(file);
    if (!names || SSL_CTX_load_verify_file(context, file) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        ERR_clear_error();
        return tls_reason("--client-ca: %s: no certificate can be read", file);
    }
    SSL_CTX_set_client_CA_list(context, names);
    return NULL;
}

/* Certificates come in no particular order: their fingerprints are added up. */
static bool add_authorities(SSL_CTX *context, uint8_t *sum) {
    const STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(SSL_CTX_get_cert_store(context));
    unsigned char fingerprint[EVP_MAX_MD_SIZE];
    unsigned length;

    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        const X509 *authority = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        if (authority && X509_digest(authority, EVP_sha256(), fingerprint, &length) != 1)
            return false;
        for (unsigned at = 0; authority && at < length && at < SSL_MAX_SID_CTX_LENGTH; at++)
            sum[at] = (uint8_t)(sum[at] + fingerprint[at]);
    }
    return true;
}

const char *client_verification_set_up(SSL_CTX *context, const struct proxy_settings *settings) {
    uint8_t id_context[SSL_MAX_SID_CTX_LENGTH] = "tlsdyno";
    bool optional = settings->client_verify == CLIENT_VERIFY_OPTIONAL;
    const char *reason;

    if (settings->client_ca) {
        reason = load_authorities(context, settings->client_ca);
        if (reason)
            return reason;
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (optional ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT), NULL);
        id_context[sizeof "tlsdyno"] = optional ? 'o' : 'r';
        if (!add_authorities(context, id_context))
            return "out of memory";
    } else if (settings->client_verify != CLIENT_VERIFY_NOT_GIVEN) {
        return "--client-verify: only with --client-ca";
    }
    SSL_CTX_set_session_id_context(context, id_context, sizeof id_context);
    return NULL;
}
