/* SPDX-License-Identifier: MIT */
#include "session.h"

#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

struct session *session_new(const uint8_t *ticket, size_t ticket_bytes) {
    struct session *session = ticket_bytes <= TICKET_BYTES_MAX ? malloc(sizeof *session + ticket_bytes) : NULL;

    if (!session)
        return NULL;
    *session = (struct session){.ticket_bytes = (uint16_t)ticket_bytes};
    if (ticket_bytes > 0)
        memcpy(session->ticket, ticket, ticket_bytes);
    clock_gettime(CLOCK_MONOTONIC_COARSE, &session->arrived_at);
    return session;
}

uint64_t session_age_ms(const struct session *session) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)((now.tv_sec - session->arrived_at.tv_sec) * 1000 +
                      (now.tv_nsec - session->arrived_at.tv_nsec) / 1000000);
}

bool session_is_single_use(const struct session *session) {
    return session->version >= TLS1_3_VERSION;
}

void session_free(struct session *session) {
    free(session);
}
