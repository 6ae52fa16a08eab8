/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SETTINGS_H
#define PROXY_SETTINGS_H
/*
 * What the operator asked for: made anew at the start and at each reload, before the workers are forked; nobody changes
 * it afterwards.
 */
#include "address.h"
#include "affinity.h"

#include <stdint.h>

struct proxy_settings {
    struct address frontend;
    struct address backend;
    struct address stats;
    bool has_stats;
    uint64_t workers;
    uint64_t backlog;
    struct cpu_list cpus;

    const char **certificates; /* PEM files: key and chain together */
    int certificate_count;
    int tls_min, tls_max; /* protocol numbers; 0: the library's own limit */
    const char *ciphers;  /* TLS 1.2 and before */
    const char *ciphersuites;
    const char *groups;
    const char *sigalgs;
    bool prefer_server_ciphers;

    uint64_t session_cache; /* sessions; 0: no cache */
    int tickets;            /* 1: on */
    uint64_t num_tickets;   /* TLS 1.3 tickets after a full handshake */

    uint64_t handshake_timeout_ns; /* from accept to a finished handshake */
    uint64_t connect_timeout_ns;   /* to the backend */
    uint64_t idle_timeout_ns;      /* without a byte in either direction */

    uint64_t drain_timeout_ns; /* for connections to end after SIGTERM or a reload; 0: no limit */

    uint64_t top_clients; /* busiest client addresses that the statistics show; 0: none */

    const char *access_log; /* a file, or "-"; NULL: none */
    int log_format;         /* enum access_log_format */

    const char *user, *group, *chroot; /* whom the workers become, and where; NULL: no change */

    const char *pidfile;
    const char *config;
    bool daemon;
    bool syslog;
    int syslog_facility; /* index into log_facilities */
    bool quiet;
    bool test_only;
    bool default_config;

    char *config_text; /* what the strings from the configuration file point into */
};

/* An option that cannot be changed by a reload and differs between the two, or NULL. */
const char *settings_fixed_difference(const struct proxy_settings *old, const struct proxy_settings *new);

/* Frees what settings_read made. */
void settings_free(struct proxy_settings *settings);

#endif
