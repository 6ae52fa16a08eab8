/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_TLS_FLOOR_RELAY_H
#define TLSDYNO_TLS_FLOOR_RELAY_H
/*
 * The floor of a transaction on a connection that stays: TLS records on one side, a plain socket on the other, and
 * between them nothing but the system calls that no relay can do without.
 */
#include "affinity.h"

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

struct relay_plan {
    SSL_CTX *server, *client;
    uint64_t request_bytes, response_bytes; /* application bytes of each */
    uint64_t duration_ns;
    bool unix_origin;            /* the plain side is a UNIX socket, else TCP on loopback */
    const struct cpu_list *cpus; /* the relay runs on the first, its peers on the last; count 0: anywhere */
    void (*check)(SSL *server);  /* called with each connection after its handshake; ends the program if it is not
                                    what was asked for */
};

struct relay_cost {
    uint64_t ops;
    uint64_t relay_cpu_ns; /* of the relay's own process, user and system */
    uint64_t all_cpu_ns;   /* of the relay and both its peers */
    char cipher[64], group[64];
};

/* Forks the two peers and is the relay. Whatever fails ends the program; the peers end with it. */
void tls_floor_relay(const struct relay_plan *plan, struct relay_cost *cost);

#endif
