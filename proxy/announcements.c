/* SPDX-License-Identifier: MIT */
#include "announcements.h"

#include "shared_memory.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Some 500 sessions: what a worker makes in a twentieth of a second at most. A power of two. */
#define RING_BYTES 131072

/* Positions only grow; those of a ring are never more than RING_BYTES apart. */
struct ring {
    uint64_t written __attribute__((aligned(64)));
    uint64_t read __attribute__((aligned(64)));
    uint8_t bytes[RING_BYTES] __attribute__((aligned(64)));
};

struct announcements {
    int wake; /* eventfd */
    int slots;
    uint32_t asleep; /* the reader */
    struct ring ring[];
};

/* In the ring an announcement is cut off behind its last byte. */
#define HEAD_BYTES offsetof(struct announcement, bytes)

struct announcements *announcements_new(int slots) {
    int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct announcements *made;

    if (wake < 0)
        return NULL;
    made = shared_memory_new(sizeof *made + (size_t)slots * sizeof *made->ring);
    made->wake = wake;
    made->slots = slots;
    made->asleep = 1;
    return made;
}

static void copy_in(struct ring *ring, uint64_t at, const uint8_t *bytes, size_t length) {
    size_t start = at % RING_BYTES, first = length < RING_BYTES - start ? length : RING_BYTES - start;

    memcpy(ring->bytes + start, bytes, first);
    memcpy(ring->bytes, bytes + first, length - first);
}

static void copy_out(const struct ring *ring, uint64_t at, uint8_t *bytes, size_t length) {
    size_t start = at % RING_BYTES, first = length < RING_BYTES - start ? length : RING_BYTES - start;

    memcpy(bytes, ring->bytes + start, first);
    memcpy(bytes + first, ring->bytes, length - first);
}

bool announcements_put(struct announcements *announcements, int slot, const struct announcement *announcement) {
    struct ring *ring = &announcements->ring[slot];
    uint64_t read = __atomic_load_n(&ring->read, __ATOMIC_ACQUIRE);
    size_t length = HEAD_BYTES + announcement->length;
    const uint64_t one = 1;

    if (ring->written - read + length > RING_BYTES)
        return false;
    copy_in(ring, ring->written, (const uint8_t *)announcement, length);
    /* Whole before the reader can see it; and either it sees it, or it is seen to be asleep. */
    __atomic_store_n(&ring->written, ring->written + length, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&announcements->asleep, __ATOMIC_SEQ_CST) &&
        __atomic_exchange_n(&announcements->asleep, 0, __ATOMIC_SEQ_CST))
        (void)!write(announcements->wake, &one, sizeof one);
    return true;
}

bool announcements_take(struct announcements *announcements, int slot, struct announcement *announcement) {
    struct ring *ring = &announcements->ring[slot];
    uint64_t written = __atomic_load_n(&ring->written, __ATOMIC_ACQUIRE);

    if (ring->read == written)
        return false;
    copy_out(ring, ring->read, (uint8_t *)announcement, HEAD_BYTES);
    if (announcement->length > sizeof announcement->bytes)
        announcement->length = 0;
    copy_out(ring, ring->read + HEAD_BYTES, announcement->bytes, announcement->length);
    __atomic_store_n(&ring->read, ring->read + HEAD_BYTES + announcement->length, __ATOMIC_RELEASE);
    return true;
}

bool announcements_sleep(struct announcements *announcements) {
    __atomic_store_n(&announcements->asleep, 1, __ATOMIC_SEQ_CST);
    for (int slot = 0; slot < announcements->slots; slot++) {
        const struct ring *ring = &announcements->ring[slot];
        if (__atomic_load_n(&ring->written, __ATOMIC_SEQ_CST) != ring->read)
            return !__atomic_exchange_n(&announcements->asleep, 0, __ATOMIC_SEQ_CST);
    }
    return true;
}

void announcements_wake(struct announcements *announcements) {
    uint64_t count;

    (void)!read(announcements->wake, &count, sizeof count);
}

int announcements_descriptor(const struct announcements *announcements) {
    return announcements->wake;
}
