/* SPDX-License-Identifier: MIT */
#include "known_requests.h"

#include <stdint.h>
#include <string.h>

#define SLOTS 64

/* What tells requests of one load apart is within their first bytes. No request is shorter than that. */
#define HASHED_BYTES 16

static struct known_request {
    size_t length; /* 0: none */
    struct request request;
    char bytes[KNOWN_REQUEST_BYTES_MAX];
} known[SLOTS];

static struct known_request *slot_of(const char *bytes) {
    uint64_t words[HASHED_BYTES / 8];

    memcpy(words, bytes, sizeof words);
    return &known[((words[0] ^ words[1] * 31) * UINT64_C(0x9e3779b97f4a7c15) >> 32) % SLOTS];
}

const struct request *known_requests_find(const char *bytes, size_t length, size_t *request_bytes) {
    const struct known_request *slot;

    if (length < HASHED_BYTES)
        return NULL;
    slot = slot_of(bytes);
    if (slot->length == 0 || slot->length > length || memcmp(slot->bytes, bytes, slot->length) != 0)
        return NULL;
    *request_bytes = slot->length;
    return &slot->request;
}

void known_requests_keep(const char *bytes, size_t length, const struct request *request) {
    struct known_request *slot;

    if (length < HASHED_BYTES || length > KNOWN_REQUEST_BYTES_MAX)
        return;
    slot = slot_of(bytes);
    slot->length = length;
    slot->request = *request;
    memcpy(slot->bytes, bytes, length);
}
