/* SPDX-License-Identifier: MIT */
#include "resumption.h"

#include "log.h"
#include "shared_memory.h"

#include <stdio.h>

/* What a session takes in the store beside its bytes, about. */
#define SESSION_OVERHEAD_BYTES 64

const char *resumption_new(struct resumption *made, const struct proxy_settings *settings, int slots) {
    const char *reason;

    *made = (struct resumption){.ticket_keys = ticket_keys_new()};
    if (!made->ticket_keys)
        fail(EXIT_FAILED, "session tickets: no random numbers");
    reason = resumption_find_store(made, settings, &made->sync_store);
    return reason ? reason : session_sync_new(&made->sync, settings, made->sync_store, made->ticket_keys, slots);
}

const char *resumption_find_store(struct resumption *resumption, const struct proxy_settings *settings,
                                  struct session_store **store) {
    static char refusal[128];
    bool has_certificates = settings_ask_for_certificates(settings);
    size_t session_bytes = has_certificates ? SESSION_BYTES_WITH_CERTIFICATE : SESSION_BYTES;
    uint64_t bytes = settings->session_cache * (session_bytes + SESSION_OVERHEAD_BYTES);

    *store = NULL;
    if (!settings->session_cache || settings->client_role)
        return NULL;
    if (!resumption->store[has_certificates]) {
        if (!shared_memory_fits(bytes)) {
            snprintf(refusal, sizeof refusal,
                     "--session-cache: %llu sessions take %llu MiB, more than this machine has",
                     (unsigned long long)settings->session_cache, (unsigned long long)(bytes >> 20));
            return refusal;
        }
        resumption->store[has_certificates] = session_store_new(settings->session_cache, session_bytes);
    }
    *store = resumption->store[has_certificates];
    return NULL;
}

void resumption_begin(const struct resumption *resumption) {
    for (size_t i = 0; i < sizeof resumption->store / sizeof *resumption->store; i++)
        if (resumption->store[i])
            session_store_begin(resumption->store[i]);
}
