/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "option_blocks.h"

#include "option_values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct proxy_settings *filled;

/* The block that is being read. */
static struct {
    struct frontend frontend;
    const char *host, *port;
    bool is_open; /* a certificate's block may be in a frontend's */
} front;
static struct certificate_source certificate;

/* ---- pem-file = { } ---- */

static const struct option_spec certificate_options[] = {
    {"cert", 0, OPTION_STRING, "FILE", "the certificate and those that lead to its root (PEM)", &certificate.file},
    {"private-key", 0, OPTION_STRING, "FILE", "its key, where that is in a file of its own", &certificate.key},
    {"ocsp-resp-file", 0, OPTION_STRING, "FILE", "an OCSP response (DER) about it, to staple to it",
     &certificate.staple},
    {"ocsp-verify-staple", 0, OPTION_PARSE, "on|off", NULL, &certificate.verify_staple, .parse = parse_toggle},
    {"client-ca", 0, OPTION_STRING, "FILE", NULL, &certificate.client_ca, .alias = "client-verify-ca"},
    {"client-verify", 0, OPTION_PARSE, "required|optional|none", NULL, &certificate.client_verify,
     .parse = parse_client_verify},
};

static const struct option_table certificate_table = {
    .options = certificate_options,
    .count = sizeof certificate_options / sizeof *certificate_options,
};

static const char *begin_certificate(const char *where) {
    (void)where;
    certificate = (struct certificate_source){0};
    return NULL;
}

static const char *end_certificate(void) {
    if (!certificate.file)
        return "cert: is missing";
    return certificate_list_add(front.is_open ? &front.frontend.certificates : &filled->certificates, &certificate);
}

const struct option_block certificate_block = {&certificate_table, begin_certificate, end_certificate};

/* ---- frontend = { } ---- */

static const char *add_own_certificate(void *list, const char *file) {
    return certificate_list_add(list, &(struct certificate_source){.file = file});
}

#define OWN front.frontend

static const struct option_spec frontend_options[] = {
    {"host", 0, OPTION_STRING, "HOST", "its name, its number, * for all, or /path.sock", &front.host},
    {"port", 0, OPTION_STRING, "PORT", "a number; 0 takes any free one", &front.port},
    {"pem-file", 0, OPTION_PARSE, "FILE",
     "a certificate, or a block of one: once for each; they take the place of those of all frontends",
     &OWN.certificates, .parse = add_own_certificate, .block = &certificate_block},
    {"match-global-certs", 0, OPTION_PARSE, "on|off",
     "serve names that they have not with those of all frontends (default off)", &OWN.match_global_certs,
     .parse = parse_toggle},
    {"tls-protos", 0, OPTION_PARSE, "LIST", NULL, &OWN.versions.protos, .parse = parse_protos},
    {"tls-min", 0, OPTION_PARSE, "VERSION", NULL, &OWN.versions.min, .parse = parse_version},
    {"tls-max", 0, OPTION_PARSE, "VERSION", NULL, &OWN.versions.max, .parse = parse_version},
    {"tls", 0, OPTION_FLAG, NULL, NULL, &OWN.versions.only_tls1},
    {"ssl", 0, OPTION_FLAG, NULL, NULL, &OWN.versions.any_version},
    {"ciphers", 0, OPTION_STRING, "LIST", NULL, &OWN.ciphers},
    {"ciphersuites", 0, OPTION_STRING, "LIST", NULL, &OWN.ciphersuites},
    {"groups", 0, OPTION_STRING, "LIST", NULL, &OWN.groups, .alias = "ecdh-curve"},
    {"sigalgs", 0, OPTION_STRING, "LIST", NULL, &OWN.sigalgs},
    {"prefer-server-ciphers", 0, OPTION_PARSE, "on|off", NULL, &OWN.prefer_server_ciphers, .parse = parse_toggle},
    {"alpn", 0, OPTION_STRING, "LIST", NULL, &OWN.alpn, .alias = "alpn-protos"},
    {"sni-nomatch-abort", 0, OPTION_PARSE, "on|off", NULL, &OWN.sni_nomatch_abort, .parse = parse_toggle},
    {"client-ca", 0, OPTION_STRING, "FILE", NULL, &OWN.client_ca, .alias = "client-verify-ca"},
    {"client-verify", 0, OPTION_PARSE, "required|optional|none", NULL, &OWN.client_verify,
     .parse = parse_client_verify},
};

static const struct option_table frontend_table = {
    .options = frontend_options,
    .count = sizeof frontend_options / sizeof *frontend_options,
};

static void forget_frontend(void) {
    frontend_free(&OWN);
    memset(&front, 0, sizeof front);
}

void option_blocks_fill(struct proxy_settings *settings) {
    filled = settings;
    forget_frontend(); /* one that was refused in the middle is still there */
}

static const char *begin_frontend(const char *where) {
    forget_frontend();
    OWN.where = strdup(where);
    front.is_open = true;
    return OWN.where ? NULL : "out of memory";
}

/* An IPv6 number has no brackets here. */
static const char *parse_host_and_port(struct address *address) {
    static char refusal[512];
    char text[512];
    const char *reason;

    if (!front.host)
        return "host: is missing";
    if (*front.host == '/')
        return front.port ? "port: a UNIX socket has none" : address_parse(address, front.host);
    if (!front.port)
        return "port: is missing";
    if (strlen(front.host) + strlen(front.port) + sizeof "[]:" > sizeof text)
        return "host: too long";
    snprintf(text, sizeof text, *front.host == '[' ? "%s:%s" : "[%s]:%s", front.host, front.port);
    reason = address_parse(address, text);
    if (!reason)
        return NULL;
    snprintf(refusal, sizeof refusal, "%.255s, port %.32s: %s", front.host, front.port, reason);
    return refusal;
}

static const char *end_frontend(void) {
    const char *reason = parse_host_and_port(&OWN.address);

    if (!reason)
        reason = settings_add_frontend(filled, &OWN);
    if (!reason)
        memset(&front, 0, sizeof front); /* what it owned is the settings' */
    front.is_open = false;
    return reason;
}

const struct option_block frontend_block = {&frontend_table, begin_frontend, end_frontend};

/* ---- A frontend of one line ---- */

const char *frontend_parse(struct frontend *frontend, const char *text) {
    const char *plus = *text == '/' ? NULL : strchr(text, '+'), *reason;
    char address[256];

    *frontend = (struct frontend){0};
    if (plus && (!plus[1] || (size_t)(plus - text) >= sizeof address))
        return "not HOST:PORT+FILE";
    snprintf(address, sizeof address, "%.*s", plus ? (int)(plus - text) : 255, text);
    reason = address_parse(&frontend->address, plus ? address : text);
    if (!reason && plus)
        reason = add_own_certificate(&frontend->certificates, plus + 1);
    if (!reason && asprintf(&frontend->where, "--frontend: %.255s", text) < 0) {
        frontend->where = NULL;
        reason = "out of memory";
    }
    if (reason)
        certificate_list_drop(&frontend->certificates, frontend->certificates.count);
    return reason;
}
