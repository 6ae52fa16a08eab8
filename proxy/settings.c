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

const char *certificate_list_add(struct certificate_list *list, const struct certificate_source *source) {
    struct certificate_source *longer = realloc(list->source, sizeof *longer * (size_t)(list->count + 1));

    if (!longer)
        return "out of memory";
    list->source = longer;
    longer[list->count++] = *source;
    return NULL;
}

void certificate_list_drop(struct certificate_list *list, int count) {
    for (int i = 0; i < count; i++)
        free(list->source[i].owned);
    list->count -= count;
    if (list->count) {
        memmove(list->source, list->source + count, sizeof *list->source * (size_t)list->count);
        return;
    }
    free(list->source);
    list->source = NULL;
}

const char *settings_add_frontend(struct proxy_settings *settings, const struct frontend *frontend) {
    struct frontend *longer;

    if (settings->frontend_count == FRONTENDS_MAX)
        return "more than 64 frontends";
    longer = realloc(settings->frontends, sizeof *longer * (size_t)(settings->frontend_count + 1));
    if (!longer)
        return "out of memory";
    settings->frontends = longer;
    longer[settings->frontend_count++] = *frontend;
    return NULL;
}

void frontend_free(struct frontend *frontend) {
    certificate_list_drop(&frontend->certificates, frontend->certificates.count);
    free(frontend->where);
}

void settings_drop_frontends(struct proxy_settings *settings, int count) {
    for (int i = 0; i < count; i++)
        frontend_free(&settings->frontends[i]);
    settings->frontend_count -= count;
    if (settings->frontend_count) {
        memmove(settings->frontends, settings->frontends + count,
                sizeof *settings->frontends * (size_t)settings->frontend_count);
        return;
    }
    free(settings->frontends);
    settings->frontends = NULL;
}

static bool versions_are_given(const struct tls_versions *versions) {
    return versions->min || versions->max || versions->protos || versions->only_tls1 || versions->any_version;
}

bool frontend_has_own_tls(const struct frontend *frontend) {
    return frontend->certificates.count || versions_are_given(&frontend->versions) || frontend->ciphers ||
           frontend->ciphersuites || frontend->groups || frontend->sigalgs || frontend->alpn ||
           frontend->prefer_server_ciphers || frontend->sni_nomatch_abort || frontend->client_ca ||
           frontend->client_verify;
}

/* Its own certificates take the place of the others, or come before them. */
static void choose_certificates(struct proxy_settings *made, const struct frontend *frontend) {
    if (!frontend->certificates.count)
        return;
    if (frontend->match_global_certs == TOGGLE_ON)
        made->more_certificates = made->certificates;
    else
        made->ocsp_files.count = 0; /* they are about the others */
    made->certificates = frontend->certificates;
}

void frontend_settings(struct proxy_settings *made, const struct proxy_settings *settings,
                       const struct frontend *frontend) {
    *made = *settings;
    made->own_sessions = true;
    choose_certificates(made, frontend);
    if (versions_are_given(&frontend->versions))
        made->versions = frontend->versions;
#define OWN(field)                                                                                                     \
    if (frontend->field)                                                                                               \
    made->field = frontend->field
    OWN(ciphers);
    OWN(ciphersuites);
    OWN(groups);
    OWN(sigalgs);
    OWN(alpn);
    if (frontend->client_ca)
        made->client_verify = CLIENT_VERIFY_NOT_GIVEN;
    OWN(client_ca);
    OWN(client_verify);
#undef OWN
    if (frontend->prefer_server_ciphers)
        made->prefer_server_ciphers = frontend->prefer_server_ciphers == TOGGLE_ON;
    if (frontend->sni_nomatch_abort)
        made->sni_nomatch_abort = frontend->sni_nomatch_abort == TOGGLE_ON;
}

static bool any_asks(const struct certificate_list *list) {
    for (int i = 0; i < list->count; i++)
        if (list->source[i].client_ca)
            return true;
    return false;
}

bool settings_ask_for_certificates(const struct proxy_settings *settings) {
    bool asked = settings->client_ca || any_asks(&settings->certificates);

    for (int i = 0; !asked && i < settings->frontend_count; i++)
        asked = settings->frontends[i].client_ca || any_asks(&settings->frontends[i].certificates);
    return asked;
}

const struct certificate_source *settings_first_certificate(const struct proxy_settings *settings) {
    if (settings->certificates.count)
        return &settings->certificates.source[0];
    for (int i = 0; i < settings->frontend_count; i++)
        if (settings->frontends[i].certificates.count)
            return &settings->frontends[i].certificates.source[0];
    return NULL;
}

void settings_clear(struct proxy_settings *settings) {
    settings_drop_frontends(settings, settings->frontend_count);
    certificate_list_drop(&settings->certificates, settings->certificates.count);
    free(settings->config_text);
    *settings = (struct proxy_settings){0};
}

void settings_free(struct proxy_settings *settings) {
    if (settings)
        settings_clear(settings);
    free(settings);
}
