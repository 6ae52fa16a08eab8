/* SPDX-License-Identifier: MIT */
#include "received_header.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum header_result received_header_take(struct received_header **header, int fd, struct proxy_protocol_fact *fact) {
    static uint8_t bytes[PROXY_HEADER_BYTES_MAX]; /* one connection at a time: nothing is left in it */
    size_t held = *header ? (*header)->length : 0;
    struct received_header *longer;
    enum proxy_protocol_reading reading;
    ssize_t count;

    if (held)
        memcpy(bytes, (*header)->bytes, held);
    /* What follows the header belongs to TLS or HTTP: one look where it ends, then it is taken as far as that. */
    count = recv(fd, bytes + held, sizeof bytes - held, MSG_PEEK);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return HEADER_RETRY;
    if (count <= 0)
        return HEADER_BAD;
    reading = proxy_protocol_read(bytes, held + (size_t)count, fact);
    if (reading == PROXY_PROTOCOL_BAD || fact->length > sizeof bytes)
        return HEADER_BAD;
    if (reading == PROXY_PROTOCOL_WHOLE)
        count = (ssize_t)(fact->length - held);
    count = recv(fd, bytes + held, (size_t)count, 0);
    if (count <= 0)
        return HEADER_BAD;
    longer = realloc(*header, sizeof *longer + held + (size_t)count);
    if (!longer)
        return HEADER_NO_MEMORY;
    memcpy(longer->bytes + held, bytes + held, (size_t)count);
    longer->length = held + (size_t)count;
    *header = longer;
    return reading == PROXY_PROTOCOL_WHOLE ? HEADER_OK : HEADER_RETRY;
}
