/* SPDX-License-Identifier: MIT */
#ifndef PROXY_CLIENT_VERIFICATION_H
#define PROXY_CLIENT_VERIFICATION_H
/* Certificates of clients: whether one is asked for, and which authorities are believed. */
#include "session_identity.h"
#include "settings.h"

#include <openssl/ssl.h>

struct client_verification {
    int mode;                    /* SSL_VERIFY_...; SSL_VERIFY_NONE: nobody is asked, and the rest is empty */
    X509_STORE *authorities;     /* who is believed */
    STACK_OF(X509_NAME) * names; /* of these: clients are told them, so that they know which certificate to send */
};

/* NULL, or one line that names the file and says why it is refused. client_ca may be NULL. */
const char *client_verification_read(struct client_verification *verification, const char *client_ca,
                                     enum client_verify verify);

/*
 * A session is resumed only where its client would be verified as it was when the session began: adds what that
 * depends on. False: out of memory.
 */
bool client_verification_identify(const struct client_verification *verification, struct session_identity *identity);

/* For all connections of a context, or for one whose ClientHello has come. False: out of memory. */
bool client_verification_use(const struct client_verification *verification, SSL_CTX *context);
bool client_verification_use_once(const struct client_verification *verification, SSL *ssl);

void client_verification_free(struct client_verification *verification);

#endif
