/* SPDX-License-Identifier: MIT */
#ifndef PROXY_CONFIGURATION_H
#define PROXY_CONFIGURATION_H
/* What a reload replaces, as a whole. Its sockets (listeners.h) are opened and closed beside that of the other. */
#include "backends.h"
#include "listeners.h"
#include "resumption.h"
#include "settings.h"
#include "tls_contexts.h"

struct configuration {
    struct proxy_settings *settings;
    struct tls_contexts tls;
    int access_log;            /* -1: none */
    bool access_log_is_new;    /* made for this configuration, of which it is not sure yet that it is used */
    struct backends *backends; /* the addresses of the backend, in shared memory */
    struct listeners listeners;
};

/*
 * NULL and all of it but the sockets, and the settings are its own; or why it is refused and nothing of it, valid until
 * the next call.
 */
const char *configuration_make(struct configuration *made, struct proxy_settings *settings,
                               struct resumption *resumption);

/* Of a configuration that is refused: the log file that was made for it, unless a worker has been there that wrote. */
void configuration_remove_log(const struct configuration *configuration);

/* All but its sockets, which are no longer its own, and the log file as above. */
void configuration_free(struct configuration *configuration);

#endif
