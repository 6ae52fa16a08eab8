/* SPDX-License-Identifier: MIT */
/*
 * The PROXY header of an unknown client, as --proxy-proxy takes it from a socket: the first byte of the input is the
 * size of the pieces in which the rest comes. However it is cut, the same must be read, and not a byte behind it.
 */
#include "proxy_header.h"
#include "proxy_protocol.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

static void check(bool truth) {
    if (!truth)
        abort();
}

/* What is there of the header must not depend on what comes after it, and once it is bad it stays bad. */
static enum proxy_protocol_reading read_growing(const uint8_t *bytes, size_t length, struct proxy_protocol_fact *fact) {
    enum proxy_protocol_reading whole = proxy_protocol_read(bytes, length, fact);

    for (size_t part = 0; part < length && part < 600; part++) {
        /* In memory of its own size, so that a read behind its end is noticed. */
        uint8_t *copy = malloc(part ? part : 1);
        struct proxy_protocol_fact early;
        memcpy(copy, bytes, part);
        enum proxy_protocol_reading reading = proxy_protocol_read(copy, part, &early);
        free(copy);
        if (reading == PROXY_PROTOCOL_BAD)
            check(whole == PROXY_PROTOCOL_BAD);
        if (reading == PROXY_PROTOCOL_WHOLE)
            check(whole == PROXY_PROTOCOL_WHOLE && early.length == fact->length && early.length <= part);
    }
    return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    struct proxy_protocol_fact fact;
    struct received_header *header = NULL;
    struct address client = {.length = 0};
    enum proxy_protocol_reading expected;
    enum header_result result = HEADER_RETRY;
    size_t piece, at = 0, taken;
    int fds[2];
    char behind;

    if (length < 1)
        return 0;
    piece = input[0] ? input[0] : 40000;
    input++;
    length--;
    expected = read_growing(input, length, &fact);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) != 0)
        return 0;
    while (result == HEADER_RETRY && at < length) {
        ssize_t put = send(fds[1], input + at, length - at < piece ? length - at : piece, MSG_NOSIGNAL);
        check(put > 0);
        at += (size_t)put;
        result = proxy_header_receive(&header, fds[0], &client);
    }
    taken = header ? header->length : 0;
    check(taken <= at);
    check(taken == 0 || memcmp(header->bytes, input, taken) == 0);
    if (expected == PROXY_PROTOCOL_WHOLE && fact.length <= PROXY_HEADER_BYTES_MAX) {
        check(result == HEADER_OK && taken == fact.length);
        check(recv(fds[0], &behind, 1, 0) == (at > taken ? 1 : -1));
        check(at == taken || behind == (char)input[taken]);
    } else {
        check(result != HEADER_OK);
    }
    free(header);
    close(fds[0]);
    close(fds[1]);
    return 0;
}
