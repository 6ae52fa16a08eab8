/* SPDX-License-Identifier: MIT */
#include "tls_contexts.h"

#include <stdio.h>

const char *tls_contexts_new(struct tls_contexts *made, const struct proxy_settings *settings,
                             struct session_store *store, struct ticket_keys *keys, struct session_sync *sync) {
    static char refusal[1024];
    SSL_CTX *common = NULL;
    const char *reason = NULL;

    made->count = 0;
    for (int i = 0; !reason && i < settings->frontend_count; i++) {
        const struct frontend *frontend = &settings->frontends[i];
        struct proxy_settings own;
        SSL_CTX *context = NULL;

        if (!frontend_has_own_tls(frontend)) {
            if (!common)
                reason = tls_context_new(&common, settings, store, keys, sync);
            else
                SSL_CTX_up_ref(common);
            context = common;
        } else {
            frontend_settings(&own, settings, frontend);
            reason = tls_context_new(&context, &own, store, keys, sync);
            if (reason) {
                snprintf(refusal, sizeof refusal, "%s: %s", frontend->where, reason);
                reason = refusal;
            }
        }
        if (!reason)
            made->of[made->count++] = context;
    }
    if (reason)
        tls_contexts_free(made);
    return reason;
}

/* The first of those that are the same. */
static bool is_first(const struct tls_contexts *contexts, int which) {
    for (int i = 0; i < which; i++)
        if (contexts->of[i] == contexts->of[which])
            return false;
    return true;
}

void tls_contexts_begin(const struct tls_contexts *contexts, struct worker_counters *counters, int slot,
                        struct ev_loop *loop) {
    for (int i = 0; i < contexts->count; i++)
        if (is_first(contexts, i))
            tls_context_begin(contexts->of[i], counters, slot, loop);
}

void tls_contexts_free(struct tls_contexts *contexts) {
    for (int i = 0; i < contexts->count; i++)
        SSL_CTX_free(contexts->of[i]);
    contexts->count = 0;
}
