/* SPDX-License-Identifier: MIT */
#include "prologue.h"

#include "log.h"
#include "tlvs.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

static enum prologue_result receive_header(struct prologue *prologue, int fd) {
    struct proxy_protocol_fact fact;

    switch (received_header_take(&prologue->header, fd, &fact)) {
    case HEADER_OK:
        return tlvs_are_whole(&prologue->header->bytes[fact.tlvs_at], fact.length - fact.tlvs_at) ? PROLOGUE_OK
                                                                                                  : PROLOGUE_BAD;
    case HEADER_RETRY:
        return PROLOGUE_RETRY;
    case HEADER_BAD:
        return PROLOGUE_BAD;
    case HEADER_NO_MEMORY:
        break;
    }
    fail(EXIT_FAILED, "out of memory");
}

/* How many octets there are in all, as far as can be said from those that have come; 0: the family is none. */
static size_t ip_length(const struct prologue *prologue, enum prologue_kind kind) {
    if (kind == PROLOGUE_IPV4)
        return 4;
    if (prologue->ip_bytes == 0)
        return 1;
    switch (prologue->ip[0]) {
    case AF_INET:
        return 1 + 4;
    case AF_INET6:
        return 1 + 16;
    case AF_UNSPEC:
        return 1;
    default:
        return 0;
    }
}

static enum prologue_result receive_ip(struct prologue *prologue, enum prologue_kind kind, int fd) {
    size_t length;

    while ((length = ip_length(prologue, kind)) > prologue->ip_bytes) {
        ssize_t count = recv(fd, prologue->ip + prologue->ip_bytes, length - prologue->ip_bytes, 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return PROLOGUE_RETRY;
        if (count <= 0)
            return PROLOGUE_BAD;
        prologue->ip_bytes += (uint8_t)count;
    }
    return length ? PROLOGUE_OK : PROLOGUE_BAD;
}

enum prologue_result prologue_receive(struct prologue *prologue, enum prologue_kind kind, int fd) {
    return kind == PROLOGUE_PROXY ? receive_header(prologue, fd) : receive_ip(prologue, kind, fd);
}

const char *prologue_complaint(enum prologue_kind kind) {
    return kind == PROLOGUE_PROXY ? "the PROXY header is missing or broken"
                                  : "the address before the request is broken";
}

void prologue_drop(struct prologue *prologue) {
    free(prologue->header);
    *prologue = (struct prologue){0};
}
