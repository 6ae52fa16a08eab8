/* SPDX-License-Identifier: MIT */
#include "known_requests.h"

#include <stdint.h>
#include <string.h>

#define SLOTS 64

/* What tells requests of one load apart is within their first bytes. No request is shorter than that. */
#define HASHED_BYTES 16

static struct slot {
    struct known_request known; /* of length 0: none */
    char bytes[KNOWN_REQUEST_BYTES_MAX];
} slots[SLOTS];

static struct slot *slot_of(const char *bytes) {
    uint64_t words[HASHED_BYTES / 8];

    memcpy(words, bytes, sizeof words);
    return &slots[((words[0] ^ words[1] * 31) * UINT64_C(0x9e3779b97f4a7c15) >> 32) % SLOTS];
}

const struct known_request *known_requests_find(const char *bytes, size_t length) {
    const struct slot *slot;

    if (length < HASHED_BYTES)
        return NULL;
    slot = slot_of(bytes);
    if (slot->known.length == 0 || slot->known.length > length || memcmp(slot->bytes, bytes, slot->known.length) != 0)
        return NULL;
    return &slot->known;
}

void known_requests_keep(const char *bytes, const struct known_request *request) {
    struct slot *slot;

    if (request->length < HASHED_BYTES || request->length > KNOWN_REQUEST_BYTES_MAX)
        return;
    slot = slot_of(bytes);
    slot->known = *request;
    memcpy(slot->bytes, bytes, request->length);
}
