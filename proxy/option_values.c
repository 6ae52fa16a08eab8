/* SPDX-License-Identifier: MIT */
#include "option_values.h"

#include "settings.h"
#include "tls_credentials.h"

#include <string.h>

const char *parse_version(void *target, const char *value) {
    int version = tls_version_parse(value);

    if (!version)
        return "must be one of TLSv1 TLSv1.1 TLSv1.2 TLSv1.3";
    *(int *)target = version;
    return NULL;
}

const char *format_version(const void *target, char *text) {
    int version = *(const int *)target;

    (void)text;
    return version ? tls_version_name(version) : NULL;
}

/* 0: there is none of this name. */
static unsigned find_proto(const char *name, size_t length) {
    static const struct {
        const char *name;
        unsigned bit;
    } protos[] = {{"SSLv3", TLS_PROTO_SSL3},     {"TLSv1", TLS_PROTO_TLS1},     {"TLSv1.0", TLS_PROTO_TLS1},
                  {"TLSv1.1", TLS_PROTO_TLS1_1}, {"TLSv1.2", TLS_PROTO_TLS1_2}, {"TLSv1.3", TLS_PROTO_TLS1_3}};

    for (size_t i = 0; i < sizeof protos / sizeof *protos; i++)
        if (strlen(protos[i].name) == length && memcmp(protos[i].name, name, length) == 0)
            return protos[i].bit;
    return 0;
}

const char *parse_protos(void *target, const char *value) {
    unsigned protos = 0;

    for (const char *at = value + strspn(value, " \t"); *at; at += strspn(at, " \t")) {
        size_t length = strcspn(at, " \t");
        unsigned proto = find_proto(at, length);

        if (!proto)
            return "must be of SSLv3 TLSv1.0 TLSv1.1 TLSv1.2 TLSv1.3, with blanks between them";
        protos |= proto;
        at += length;
    }
    if (!(protos & ~(unsigned)TLS_PROTO_SSL3))
        return "names no version of TLS";
    *(unsigned *)target = protos;
    return NULL;
}

const char *parse_client_verify(void *target, const char *value) {
    static const char *const names[] = {
        [CLIENT_VERIFY_REQUIRED] = "required", [CLIENT_VERIFY_OPTIONAL] = "optional", [CLIENT_VERIFY_NONE] = "none"};

    for (int i = CLIENT_VERIFY_REQUIRED; i <= CLIENT_VERIFY_NONE; i++)
        if (strcmp(names[i], value) == 0) {
            *(enum client_verify *)target = (enum client_verify)i;
            return NULL;
        }
    return "must be one of required optional none";
}

const char *parse_toggle(void *target, const char *value) {
    static const char *const on[] = {"on", "yes", "true"}, *const off[] = {"off", "no", "false"};

    for (size_t i = 0; i < sizeof on / sizeof *on; i++)
        if (strcmp(value, on[i]) == 0 || strcmp(value, off[i]) == 0) {
            *(enum toggle *)target = strcmp(value, on[i]) == 0 ? TOGGLE_ON : TOGGLE_OFF;
            return NULL;
        }
    return "must be on or off";
}
