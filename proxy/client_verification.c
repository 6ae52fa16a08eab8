/* SPDX-License-Identifier: MIT */
#include "client_verification.h"

#include "regular_file.h"
#include "tls_reason.h"

#include <openssl/err.h>
#include <stdio.h>

static const char *load_authorities(struct client_verification *verification, const char *file) {
    const char *why;
    FILE *readable = regular_file_open(file, &why);

    if (!readable)
        return tls_reason("--client-ca: %s: cannot be read: %s", file, why);
    fclose(readable);
    ERR_clear_error();
    verification->authorities = X509_STORE_new();
    verification->names = SSL_load_client_CA_file(file);
    if (verification->authorities && verification->names && X509_STORE_load_file(verification->authorities, file) == 1)
        return NULL;
    client_verification_free(verification);
    ERR_clear_error();
    return tls_reason("--client-ca: %s: no certificate can be read", file);
}

const char *client_verification_read(struct client_verification *verification, const char *client_ca,
                                     enum client_verify verify) {
    const char *reason;
    bool asks = verify != CLIENT_VERIFY_NONE;

    *verification = (struct client_verification){.mode = SSL_VERIFY_NONE};
    if (!client_ca)
        return asks && verify != CLIENT_VERIFY_NOT_GIVEN ? "--client-verify: only with --client-ca" : NULL;
    reason = load_authorities(verification, client_ca);
    if (reason)
        return reason;
    if (asks)
        verification->mode = SSL_VERIFY_PEER | (verify == CLIENT_VERIFY_OPTIONAL ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
    else
        client_verification_free(verification); /* it was only to be seen that the file is good */
    return NULL;
}

bool client_verification_identify(const struct client_verification *verification, struct session_identity *identity) {
    STACK_OF(X509) * authorities;
    bool done;

    if (verification->mode == SSL_VERIFY_NONE)
        return true;
    authorities = X509_STORE_get1_all_certs(verification->authorities);
    done = authorities && session_identity_add(identity, &verification->mode, sizeof verification->mode) &&
           session_identity_add_certificates(identity, authorities);
    sk_X509_pop_free(authorities, X509_free);
    return done;
}

bool client_verification_use(const struct client_verification *verification, SSL_CTX *context) {
    STACK_OF(X509_NAME) * names;

    if (verification->mode == SSL_VERIFY_NONE)
        return true;
    names = SSL_dup_CA_list(verification->names);
    SSL_CTX_set_verify(context, verification->mode, NULL);
    SSL_CTX_set_client_CA_list(context, names);
    return names && SSL_CTX_set1_verify_cert_store(context, verification->authorities) == 1;
}

bool client_verification_use_once(const struct client_verification *verification, SSL *ssl) {
    STACK_OF(X509_NAME) *names = NULL;

    SSL_set_verify(ssl, verification->mode, NULL);
    if (verification->mode == SSL_VERIFY_NONE)
        return true;
    names = SSL_dup_CA_list(verification->names);
    SSL_set_client_CA_list(ssl, names);
    return names && SSL_set1_verify_cert_store(ssl, verification->authorities) == 1;
}

void client_verification_free(struct client_verification *verification) {
    X509_STORE_free(verification->authorities);
    sk_X509_NAME_pop_free(verification->names, X509_NAME_free);
    *verification = (struct client_verification){.mode = SSL_VERIFY_NONE};
}
