/* SPDX-License-Identifier: MIT */
#include "session_policy.h"

#include "units.h"

#include <string.h>

const char *session_policy_parse(void *target, const char *text) {
    struct session_policy *policy = target;

    if (strcmp(text, "never") == 0) {
        *policy = (struct session_policy){.reuse = REUSE_NEVER};
        return NULL;
    }
    if (strcmp(text, "always") == 0) {
        *policy = (struct session_policy){.reuse = REUSE_ALWAYS};
        return NULL;
    }
    if (strncmp(text, "every:", 6) == 0 && parse_uint(text + 6, &policy->every) && policy->every > 0 &&
        policy->every <= UINT32_MAX) {
        policy->reuse = REUSE_EVERY;
        return NULL;
    }
    return "must be never, always or every:N";
}

void session_slot_init(struct session_slot *slot, const struct session_policy *policy, const struct engine *engine,
                       uint64_t index, uint64_t slots) {
    *slot = (struct session_slot){.policy = policy, .engine = engine};
    if (policy->reuse == REUSE_EVERY)
        slot->offset = index * policy->every / slots;
}

static bool full_is_due(const struct session_slot *slot) {
    const struct session_policy *policy = slot->policy;

    switch (policy->reuse) {
    case REUSE_NEVER:
        return true;
    case REUSE_ALWAYS:
        return false;
    case REUSE_EVERY:
        /*
         * Full at 0, N+o, 2N+o, ... for a slot of offset o < N. The first session lives longer, not shorter, so that
         * every run of N connections from a multiple of N on has one full handshake, also the first.
         */
        if (slot->handshakes < policy->every)
            return slot->handshakes == 0;
        return slot->handshakes % policy->every == slot->offset;
    }
    return true;
}

static void forget(struct session_slot *slot) {
    if (slot->session)
        slot->engine->session_free(slot->session);
    slot->session = NULL;
    slot->offered = slot->given_back = false;
}

void *session_slot_offer(struct session_slot *slot) {
    if (full_is_due(slot) || slot->offered)
        forget(slot);
    return slot->session;
}

void session_slot_used(struct session_slot *slot) {
    slot->offered = slot->session && slot->engine->session_single_use(slot->session);
}

void session_slot_completed(struct session_slot *slot) {
    slot->handshakes++;
    if (slot->offered)
        forget(slot);
}

void session_slot_failed(struct session_slot *slot, bool target_was_gone) {
    if (!slot->offered)
        return;
    slot->offered = false;
    if (!target_was_gone || slot->given_back)
        forget(slot);
    else
        slot->given_back = true;
}

void session_slot_keep(struct session_slot *slot, void *session) {
    forget(slot);
    slot->session = session;
}

void session_slot_end(struct session_slot *slot) {
    forget(slot);
}
