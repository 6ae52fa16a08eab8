/* SPDX-License-Identifier: MIT */
#ifndef PROXY_VISIT_H
#define PROXY_VISIT_H
/* What there is to say of a client's connection when it has ended: for the statistics, the access log, the operator. */
#include "address.h"
#include "stats.h"

#include <openssl/ssl.h>

struct visit {
    const struct address *client;                      /* not an IP address: it came by a UNIX socket */
    const char *frontend;                              /* where it came in */
    SSL *ssl;                                          /* NULL: in the clear */
    uint64_t bytes_from_client, bytes_to_client;       /* in the clear, delivered */
    uint64_t accepted_ns, handshake_done_ns, ended_ns; /* monotonic; handshake_done_ns 0: never */
    enum close_reason reason;
    enum handshake_failure failure; /* HANDSHAKE_NO_FAILURE: the handshake came to its end, or there was none */
};

struct worker;

/* Counts the visit and writes its line. */
void visit_ended(struct worker *worker, const struct visit *visit);

#endif
