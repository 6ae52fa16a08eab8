/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TLS_TICKETS_H
#define PROXY_TLS_TICKETS_H
/* Stateless session tickets (RFC 5077; RFC 8446, 4.6.1): sealed and opened with keys that all workers have. */
#include "foreign_keys.h"
#include "ticket_keys.h"

#include <openssl/ssl.h>

struct tls_tickets {
    struct ticket_keys *shared;   /* the keys that rotate, or */
    struct foreign_keys *foreign; /* those of other hosts, which open only; NULL: there are none */
    struct ticket_key_list file;  /* those of --ticket-keys, where there are any */
    EVP_CIPHER *aes128, *aes256;  /* fetched once: a fetch costs more than the encryption of a ticket */
};

/*
 * Has the context seal with the keys of the file (NULL: with the shared ones, which outlive it, as do those of other
 * hosts; they may be NULL). The context must have its tls_state. NULL, or one line that names the file and says why it
 * is refused.
 */
const char *tls_tickets_serve(struct tls_tickets *tickets, SSL_CTX *context, const char *key_file,
                              struct ticket_keys *shared, struct foreign_keys *foreign);

void tls_tickets_free(struct tls_tickets *tickets);

#endif
