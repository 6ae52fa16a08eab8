/* SPDX-License-Identifier: MIT */
#include "configuration.h"

#include "access_log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* False with errno set. */
static bool open_access_log(struct configuration *configuration) {
    const char *file = configuration->settings->access_log;

    if (!file)
        return true;
    if (configuration->settings->test_only)
        return access_log_can_be_opened(file);
    configuration->access_log = access_log_open(file, &configuration->access_log_is_new);
    return configuration->access_log >= 0;
}

void configuration_remove_log(const struct configuration *configuration) {
    struct stat file;

    if (configuration->access_log_is_new && fstat(configuration->access_log, &file) == 0 && file.st_size == 0)
        unlink(configuration->settings->access_log);
}

const char *configuration_make(struct configuration *made, struct proxy_settings *settings,
                               struct resumption *resumption) {
    static char refusal[512];
    struct session_store *store;
    const char *reason = resumption_find_store(resumption, settings, &store);

    *made = (struct configuration){.settings = settings, .access_log = -1};
    if (!reason && resumption->sync && store != resumption->sync_store)
        reason = "--client-ca: where sessions are shared with other hosts it cannot begin or end by a reload";
    if (!reason)
        reason = tls_contexts_new(&made->tls, settings, store, resumption->ticket_keys, resumption->sync);
    if (reason)
        return reason;
    if (!open_access_log(made)) {
        snprintf(refusal, sizeof refusal, "--access-log: %.255s: %s", settings->access_log, strerror(errno));
        tls_contexts_free(&made->tls);
        return refusal;
    }
    made->backends = backends_new(&settings->backend_addresses);
    return NULL;
}

void configuration_free(struct configuration *configuration) {
    configuration_remove_log(configuration);
    tls_contexts_free(&configuration->tls);
    backends_free(configuration->backends);
    settings_free(configuration->settings);
    if (configuration->access_log >= 0)
        close(configuration->access_log);
}
