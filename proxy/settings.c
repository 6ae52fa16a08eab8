/* SPDX-License-Identifier: MIT */
#include "settings.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* What a reload cannot change: sockets and shared memory are there already, and who dropped privileges has none. */
static const struct {
    const char *option;
    size_t offset, size;
    bool is_string;
} fixed[] = {
#define VALUE(option, field)                                                                                           \
    { option, offsetof(struct proxy_settings, field), sizeof(((struct proxy_settings *)0)->field), 0 }
#define STRING(option, field)                                                                                          \
    { option, offsetof(struct proxy_settings, field), 0, 1 }
    VALUE("stats", stats),
    VALUE("top-clients", top_clients),
    VALUE("session-cache", session_cache),
    VALUE("shared-cache", sharing.own),
    VALUE("shared-cache-peer", sharing.peers),
    STRING("shared-cache-if", sharing.interface_text),
    STRING("shared-cache-key", sharing.key_file),
    VALUE("shared-cache-pull", sharing.pull_ns),
    VALUE("shared-cache-format", sharing.format),
    VALUE("workers", workers),
    VALUE("backlog", backlog),
    VALUE("keepalive", keepalive_s),
    VALUE("maxconn", maxconn),
    STRING("user", user),
    STRING("group", group),
    STRING("chroot", chroot),
    STRING("pidfile", pidfile),
    VALUE("daemon", daemon),
    VALUE("syslog", syslog),
    VALUE("syslog-facility", syslog_facility),
#undef VALUE
#undef STRING
};

static bool same_string(const char *const *one, const char *const *other) {
    return *one && *other ? strcmp(*one, *other) == 0 : *one == *other;
}

const char *settings_fixed_difference(const struct proxy_settings *old, const struct proxy_settings *new) {
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        const void *one = (const char *)old + fixed[i].offset, *other = (const char *)new + fixed[i].offset;

        if (fixed[i].is_string ? !same_string(one, other) : memcmp(one, other, fixed[i].size) != 0)
            return fixed[i].option;
    }
    return NULL;
}

void settings_clear(struct proxy_settings *settings) {
    free(settings->frontends);
    free(settings->certificates);
    free(settings->config_text);
    *settings = (struct proxy_settings){0};
}

void settings_free(struct proxy_settings *settings) {
    if (settings)
        settings_clear(settings);
    free(settings);
}
