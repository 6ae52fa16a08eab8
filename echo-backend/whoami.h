/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ECHO_WHOAMI_H
#define TLSDYNO_ECHO_WHOAMI_H
/* What the server knows of a connection, as JSON (RFC 8259). echo-backend/README.md has the fields. */
#include "prologue.h"
#include "service_queue.h"
#include "stream.h"

#include <stddef.h>
#include <stdint.h>

struct whoami_facts {
    const struct stream *stream;
    enum prologue_kind prologue_kind;
    const struct prologue *prologue;
    const struct service_queue *service; /* NULL: requests take no time */
    uint64_t connections;                /* that this worker took so far */
    uint64_t requests;                   /* on this connection, this one included */
    uint64_t ring_requests;              /* of them, answered through io_uring */
};

/* More than it can ever take: what others may say at length is cut (tlvs.h). */
#define WHOAMI_BYTES_MAX 7168

/* Writes one line, ended by a newline and a NUL. */
void whoami_write(char text[WHOAMI_BYTES_MAX], const struct whoami_facts *facts);

#endif
