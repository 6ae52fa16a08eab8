/* SPDX-License-Identifier: MIT */
/*
 * The engine that is cheap: a TLS client that exists to load servers. Its connections have NO SECRECY (see light.h and
 * group.h), and it verifies nothing about the server but Finished, which proves that both sides computed the same keys
 * of the same messages. libcrypto does all encryption and hashing.
 *
 * Here: what it is asked for, and whether it speaks that.
 */
#include "engine_light.h"

#include "cipher_cache.h"
#include "connection.h"
#include "handshake.h"

#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>

static char reason_text[256];

static const char *refuse(const char *option, const char *value, const char *why) {
    snprintf(reason_text, sizeof reason_text, "%s: %s: %s", option, value, why);
    return reason_text;
}

/* ---- The vtable ---- */

static bool light_open(struct engine *engine, void *memory, int fd, const char *server_name, const char *address,
                       void *session, void *owner) {
    (void)address;
    return connection_open(memory, (struct light_engine *)engine, fd, server_name, session, owner);
}

static enum stream_result light_handshake(void *memory) {
    return connection_handshake(memory);
}

static enum stream_result light_read(void *memory, char *bytes, size_t size, size_t *got) {
    return connection_read(memory, (uint8_t *)bytes, size, got);
}

static enum stream_result light_write(void *memory, const char *bytes, size_t length, size_t *put) {
    return connection_write(memory, (const uint8_t *)bytes, length, put);
}

static enum stream_result light_end(void *memory) {
    return connection_end(memory);
}

static int light_wants(const void *memory) {
    return ((const struct light_connection *)memory)->wants;
}

static enum load_error light_why(const void *memory) {
    return ((const struct light_connection *)memory)->error;
}

static const char *version_name(int version) {
    switch (version) {
    case TLS1_VERSION:
        return "TLSv1";
    case TLS1_1_VERSION:
        return "TLSv1.1";
    case TLS1_2_VERSION:
        return "TLSv1.2";
    default:
        return "TLSv1.3";
    }
}

/* As in a C string. */
static const char *protocol_name(const struct light_connection *connection) {
    static char name[256];
    const uint8_t *chosen = connection->alpn;

    if (!chosen)
        return "";
    memcpy(name, chosen + 1, *chosen);
    name[*chosen] = '\0';
    return name;
}

static void light_facts(void *memory, struct engine_facts *facts) {
    const struct light_connection *connection = memory;

    *facts = (struct engine_facts){
        .resumed = connection->resumed,
        .offered = connection->offered,
        .tls_version = version_name(connection->version),
        .cipher = connection->suite->name,
        .group = connection->group ? connection->group->name : "",
        .sigalg = sigalg_name(connection->sigalg),
        .alpn = protocol_name(connection),
        .certificate_key = connection->certificate ? connection->certificate->key_name : "",
        .chain_bytes = connection->chain_bytes,
    };
}

static void light_close(void *memory) {
    connection_close(memory);
}

static int light_release(void *memory) {
    return connection_release(memory);
}

static bool light_session_single_use(const void *session) {
    return session_is_single_use(session);
}

static void light_session_free(void *session) {
    session_free(session);
}

/* ---- What is asked for ---- */

/* The next name of a list; false: there is none. */
static bool next_name(const char **list, const char *separators, const char **name, size_t *length) {
    *list += strspn(*list, separators);
    *name = *list;
    *length = strcspn(*list, separators);
    *list += *length;
    return *length > 0;
}

static const char *set_versions(struct light_engine *engine) {
    const struct engine_config *config = &engine->config;

    engine->min_version = engine->max_version = config->tls_version;
    if (!config->tls_version) {
        bool old = config->resume && config->resume_with == RESUME_WITH_ID;
        engine->min_version = TLS1_2_VERSION;
        engine->max_version = old ? TLS1_2_VERSION : TLS1_3_VERSION;
        if (config->cipher && strncmp(config->cipher, "TLS_", 4) == 0)
            engine->min_version = TLS1_3_VERSION;
        else if (config->cipher)
            engine->max_version = TLS1_2_VERSION;
    }
    if (engine->min_version > engine->max_version ||
        (engine->min_version >= TLS1_3_VERSION && config->resume && config->resume_with == RESUME_WITH_ID))
        return refuse("--resume-with", "id", "a TLS 1.3 resumption is always by ticket (PSK)");
    if (engine->min_version < TLS1_VERSION || engine->max_version > TLS1_3_VERSION)
        return refuse("--tls-version", "?", "the light engine does not speak it");
    if (engine->max_version < TLS1_3_VERSION && config->psk_mode != PSK_MODE_DHE_KE)
        return "--psk-mode: only TLS 1.3 has PSK modes";
    return NULL;
}

static bool is_known(const struct light_engine *engine, const struct suite *suite) {
    for (int version = engine->min_version; version <= engine->max_version; version++)
        if (suite_speaks(suite, version))
            return suite_cipher(suite) != NULL;
    return false;
}

static const char *set_suites(struct light_engine *engine) {
    const char *list = engine->config.cipher, *name;
    size_t length;

    if (!list) {
        for (int version = engine->max_version; version >= engine->min_version; version--) {
            const struct suite *all[SUITES_MAX];
            int count = suites_of_version(version, all);
            for (int i = 0; i < count; i++)
                if (suite_cipher(all[i]))
                    engine->suites[engine->suite_count++] = all[i];
        }
        return NULL;
    }
    while (next_name(&list, ":, ", &name, &length)) {
        const struct suite *suite = suite_by_name(name, length);
        if (!suite || !is_known(engine, suite))
            return refuse("--cipher", engine->config.cipher, "the light engine does not speak it in this version");
        if (engine->suite_count < SUITES_MAX && !engine_offers_suite(engine, suite))
            engine->suites[engine->suite_count++] = suite;
    }
    return engine->suite_count > 0 ? NULL : refuse("--cipher", engine->config.cipher, "names no cipher");
}

static const char *set_groups(struct light_engine *engine) {
    const char *asked = engine->config.groups ? engine->config.groups : "X25519:P-256:P-521:P-384";
    const char *list = asked, *name;
    bool base = engine->config.key_share == KEY_SHARE_BASE;
    size_t length;

    while (next_name(&list, ":", &name, &length)) {
        const struct group *group = group_by_name(name, length);
        if (!group)
            return refuse("--group", asked, "the light engine does not speak it");
        if (engine->group_count == GROUPS_MAX)
            return refuse("--group", asked, "a group is named twice");
        if (!key_share_make(&engine->shares[engine->group_count], group, base))
            return refuse("--group", asked, "is unknown to the TLS library");
        engine->groups[engine->group_count++] = group;
    }
    return engine->group_count > 0 ? NULL : refuse("--group", asked, "names no group");
}

static const char *set_sigalgs(struct light_engine *engine) {
    const char *asked = engine->config.sigalgs, *list = asked, *name;
    size_t length;

    if (!asked) {
        engine->sigalg_count = sigalgs_default(engine->sigalgs);
        return NULL;
    }
    while (next_name(&list, ":", &name, &length)) {
        uint16_t id = sigalg_by_name(name, length);
        if (!id || engine->sigalg_count == SIGALGS_MAX)
            return refuse("--sigalgs", asked, "the light engine does not know it");
        engine->sigalgs[engine->sigalg_count++] = id;
    }
    return engine->sigalg_count > 0 ? NULL : refuse("--sigalgs", asked, "names no signature algorithm");
}

static const char *set_alpn(struct light_engine *engine) {
    const char *list = engine->config.alpn, *name = list;
    struct writer writer = writer_of(engine->alpn, sizeof engine->alpn);
    size_t length;

    if (!list)
        return NULL;
    while (*name) {
        length = strcspn(name, ",");
        if (length == 0 || length > 255)
            writer.full = true;
        writer_u8(&writer, (uint8_t)length);
        writer_bytes(&writer, name, length);
        name += length + (name[length] != '\0');
    }
    engine->alpn_bytes = writer.length;
    if (writer.full || writer.length == 0)
        return refuse("--alpn", list, "not a comma-separated list of protocol names");
    return NULL;
}

static const char *configure(struct light_engine *engine) {
    const char *reason;

    if (engine->config.verify_peer)
        return "--verify-peer: the light engine does not verify certificates";
    reason = set_versions(engine);
    if (!reason)
        reason = set_suites(engine);
    if (!reason)
        reason = set_groups(engine);
    if (!reason)
        reason = set_sigalgs(engine);
    if (!reason)
        reason = set_alpn(engine);
    if (!reason && !hello_prepare(engine))
        reason = "--alpn: too long for the light engine";
    return reason;
}

void engine_light_free(struct engine *engine) {
    struct light_engine *self = (struct light_engine *)engine;

    handshakes_free(self);
    certificates_free(&self->certificates);
    for (int i = 0; i < self->group_count; i++)
        key_share_free(&self->shares[i]);
    free(self);
    cipher_cache_clear();
}

const char *engine_light_new(struct engine **engine, const struct engine_config *config) {
    struct light_engine *self = calloc(1, sizeof *self);
    const char *reason;

    if (!self)
        return "--engine: light: out of memory";
    self->engine = (struct engine){
        .name = "light",
        .note = "no secrecy: the keys of these connections can be computed from their packets; certificates are "
                "measured, not verified",
        .connection_bytes = sizeof(struct light_connection),
        .open = light_open,
        .handshake = light_handshake,
        .read = light_read,
        .write = light_write,
        .end = light_end,
        .wants = light_wants,
        .why = light_why,
        .facts = light_facts,
        .close = light_close,
        .release = light_release,
        .session_single_use = light_session_single_use,
        .session_free = light_session_free,
    };
    self->config = *config;
    reason = configure(self);
    if (reason) {
        engine_light_free(&self->engine);
        return reason;
    }
    *engine = &self->engine;
    return NULL;
}
