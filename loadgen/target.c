/* SPDX-License-Identifier: MIT */
#include "target.h"

#include <arpa/inet.h>
#include <http_parser.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool has(const struct http_parser_url *parts, enum http_parser_url_fields field) {
    return parts->field_set & (1u << field);
}

static bool is_ip_address(const char *host) {
    unsigned char bytes[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

const char *target_parse(struct target *target, const char *url, const char *instead) {
    struct http_parser_url parts;
    const char *reason;
    char where[300];
    int port;

    *target = (struct target){.url = url, .path = "/"};
    http_parser_url_init(&parts);
    if (http_parser_parse_url(url, strlen(url), 0, &parts) != 0 || !has(&parts, UF_SCHEMA) || !has(&parts, UF_HOST))
        return "not a URL such as https://127.0.0.1:8443/path";
    target->tls = parts.field_data[UF_SCHEMA].len == 5 && strncasecmp(url, "https", 5) == 0;
    if (!target->tls && (parts.field_data[UF_SCHEMA].len != 4 || strncasecmp(url, "http", 4) != 0))
        return "only http:// and https:// are spoken";
    if (has(&parts, UF_USERINFO))
        return "a user name in the URL is not supported (see --header)";
    if (has(&parts, UF_FRAGMENT))
        return "a fragment (#) is never sent to a server";
    if (parts.field_data[UF_HOST].len >= sizeof target->host)
        return "the host name is too long";
    memcpy(target->host, url + parts.field_data[UF_HOST].off, parts.field_data[UF_HOST].len);
    target->host_is_name = !is_ip_address(target->host);
    port = has(&parts, UF_PORT) ? parts.port : target->tls ? 443 : 80;
    if (has(&parts, UF_PATH))
        target->path = url + parts.field_data[UF_PATH].off;
    else if (has(&parts, UF_QUERY))
        return "a query needs a path before it, if only /";
    bool brackets = strchr(target->host, ':') != NULL;
    snprintf(where, sizeof where, brackets ? "[%s]:%d" : "%s:%d", target->host, port);
    snprintf(target->authority, sizeof target->authority, "%s", where);
    if (!has(&parts, UF_PORT))
        *strrchr(target->authority, ':') = '\0';
    if (instead && *instead != '/')
        return "--unix needs a path that begins with /";
    reason = address_parse(&target->address, instead ? instead : where);
    if (!reason)
        address_format(&target->address, target->address_text);
    return reason;
}
