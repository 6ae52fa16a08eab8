/* SPDX-License-Identifier: MIT */
#include "sync_strangers.h"

#include <openssl/rand.h>
#include <string.h>

bool sync_strangers_init(struct sync_strangers *strangers) {
    *strangers = (struct sync_strangers){0};
    return RAND_bytes((unsigned char *)&strangers->secret, sizeof strangers->secret) == 1;
}

/* IDs are random and sealed: nobody makes one up, but who has recorded many may choose among them. */
static size_t place_of(const struct sync_strangers *strangers, const uint8_t *id) {
    uint64_t number;

    memcpy(&number, id, sizeof number);
    return (size_t)(number * (strangers->secret | 1) >> 32) % SYNC_STRANGER_PLACES;
}

static bool is_of(const struct sync_stranger *stranger, const uint8_t *id) {
    return memcmp(stranger->id, id, sizeof stranger->id) == 0;
}

bool sync_strangers_have_heard(const struct sync_strangers *strangers, const struct sync_head *head) {
    size_t place = place_of(strangers, head->sender);

    for (int recency = 0; recency < SYNC_RECENCIES; recency++) {
        const struct sync_stranger *stranger = &strangers->place[recency][place];

        if (is_of(stranger, head->sender) && head->number <= stranger->number[head->stream])
            return true;
    }
    return false;
}

static bool was_replied_to(const struct sync_stranger *stranger, enum sync_reply reply, uint64_t now_ns) {
    return stranger->replied_ns[reply] && now_ns - stranger->replied_ns[reply] < SYNC_REPLY_NS;
}

struct sync_stranger *sync_strangers_hear(struct sync_strangers *strangers, const struct sync_head *head,
                                          enum sync_recency recency, uint64_t now_ns) {
    struct sync_stranger *stranger = &strangers->place[recency][place_of(strangers, head->sender)];

    if (!is_of(stranger, head->sender)) {
        for (int reply = 0; reply < SYNC_REPLIES; reply++)
            if (was_replied_to(stranger, reply, now_ns))
                return NULL;
        *stranger = (struct sync_stranger){0};
        memcpy(stranger->id, head->sender, sizeof stranger->id);
    }
    stranger->number[head->stream] = head->number;
    return stranger;
}

bool sync_stranger_reply(struct sync_stranger *stranger, enum sync_reply reply, uint64_t now_ns) {
    if (!stranger || was_replied_to(stranger, reply, now_ns))
        return false;
    stranger->replied_ns[reply] = now_ns;
    return true;
}
