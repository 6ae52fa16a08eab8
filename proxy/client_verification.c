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

    *verification = (struct client_verification){.mode = SSL_VERIFY_NONE};
    if (verify == CLIENT_VERIFY_NONE)
        return NULL;
    if (!client_ca)
        return verify == CLIENT_VERIFY_NOT_GIVEN ? NULL : "--client-verify: only with --client-ca";
    reason = load_authorities(verification, client_ca);
    if (!reason)
        verification->mode = SSL_VERIFY_PEER | (verify == CLIENT_VERIFY_OPTIONAL ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
    return reason;
}

/* Certificates come in no particular order. */
bool client_verification_identify(const struct client_verification *verification, struct session_identity *identity) {
    const STACK_OF(X509_OBJECT) * objects;
    bool done = true;

    if (verification->mode == SSL_VERIFY_NONE)
        return true;
    done = session_identity_add(identity, &verification->mode, sizeof verification->mode);
    objects = X509_STORE_get0_objects(verification->authorities);
    for (int i = 0; done && i < sk_X509_OBJECT_num(objects); i++) {
        const X509 *authority = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        unsigned char *der = NULL;
        int length = authority ? i2d_X509(authority, &der) : 0;

        if (authority)
            done = length > 0 && session_identity_add(identity, der, (size_t)length);
        OPENSSL_free(der);
    }
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
