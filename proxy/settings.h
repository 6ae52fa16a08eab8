/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SETTINGS_H
#define PROXY_SETTINGS_H
/*
 * What the operator asked for: made anew at the start and at each reload, before the workers are forked; nobody changes
 * it afterwards.
 */
#include "address.h"
#include "affinity.h"
#include "sharing.h"

#include <stdint.h>

enum client_verify { CLIENT_VERIFY_NOT_GIVEN, CLIENT_VERIFY_REQUIRED, CLIENT_VERIFY_OPTIONAL, CLIENT_VERIFY_NONE };

/* On or off where it was said, and else as elsewhere. */
enum toggle { TOGGLE_NOT_GIVEN, TOGGLE_OFF, TOGGLE_ON };

#define FILES_MAX 1024

/* An option that may come several times: the values are not copied. */
struct file_list {
    const char *file[FILES_MAX];
    int count;
};

/* What the backend is told of the client before anything else. */
enum proxy_header_kind { HEADER_NONE, HEADER_IPV4, HEADER_IP, HEADER_PROXY_V1, HEADER_PROXY_V2, HEADER_PASSED_ON };

/* A certificate with its key, and what is particular to it. */
struct certificate_source {
    const char *file;
    const char *key;                  /* NULL: it is in the same file */
    const char *staple;               /* an OCSP response about it; NULL: that of --ocsp, if there is one */
    enum toggle verify_staple;        /* not given: as for all */
    const char *client_ca;            /* the same, NULL: as for all */
    enum client_verify client_verify; /* the same */
    char *owned;                      /* NULL, or what file points to: freed with it */
};

struct certificate_list {
    struct certificate_source *source; /* [count] */
    int count;
};

/* Versions of TLS, as an operator may ask for them; all 0: nothing is asked for. */
struct tls_versions {
    int min, max;     /* protocol numbers; 0: not asked for */
    unsigned protos;  /* TLS_PROTO_...: hitch's tls-protos */
    bool only_tls1;   /* stud's --tls */
    bool any_version; /* stud's --ssl */
};

/* Bits of tls_versions.protos. */
enum { TLS_PROTO_SSL3 = 1, TLS_PROTO_TLS1 = 2, TLS_PROTO_TLS1_1 = 4, TLS_PROTO_TLS1_2 = 8, TLS_PROTO_TLS1_3 = 16 };

#define FRONTENDS_MAX 64

/* An address that clients come to, and what holds for them alone: not given is NULL or 0. */
struct frontend {
    struct address address; /* as the operator asked for it: port 0 stays 0 */
    char *where;            /* of what the operator wrote, for refusals; owned */
    struct certificate_list certificates;
    enum toggle match_global_certs;
    struct tls_versions versions;
    const char *ciphers, *ciphersuites, *groups, *sigalgs, *alpn;
    enum toggle prefer_server_ciphers, sni_nomatch_abort;
    const char *client_ca;
    enum client_verify client_verify;
};

struct proxy_settings {
    struct frontend *frontends; /* [frontend_count] */
    int frontend_count;
    const char *backend;                   /* as the operator wrote it */
    struct address_list backend_addresses; /* of a name: none until the master has asked for it */
    uint64_t backend_refresh_ns;           /* how often it is resolved again; 0: never */
    struct address stats;
    bool has_stats;
    uint64_t workers;
    uint64_t backlog;
    struct cpu_list cpus;

    struct certificate_list certificates;
    struct certificate_list more_certificates; /* of a frontend: for names that those above have not; not owned */
    const char *pem_dir, *pem_dir_glob;        /* NULL: none; all */
    struct tls_versions versions;
    const char *ciphers; /* TLS 1.2 and before */
    const char *ciphersuites;
    const char *groups;
    const char *sigalgs;
    bool prefer_server_ciphers;
    const char *alpn; /* protocols, comma-separated */
    bool sni_nomatch_abort;
    struct file_list ocsp_files;
    bool ocsp_verify_staple;
    const char *client_ca;
    enum client_verify client_verify;
    const char *engine; /* provider or ENGINE */
    bool client_role;   /* in the clear in, TLS out */
    bool own_sessions;  /* of a frontend: none of another's are resumed */
    /* With client_role. */
    const char *backend_ca;
    const char *backend_name;

    uint64_t session_cache; /* sessions; 0: no cache */
    int tickets;            /* 1: on */
    uint64_t num_tickets;   /* TLS 1.3 tickets after a full handshake */
    const char *ticket_keys;
    uint64_t ticket_rotation_ns; /* 0: as long as a session may be resumed */
    uint64_t session_lifetime_ns;
    struct sharing sharing; /* of sessions with other hosts */

    uint64_t handshake_timeout_ns;   /* from accept to a finished handshake */
    uint64_t connect_timeout_ns;     /* to the backend */
    uint64_t idle_timeout_ns;        /* without a byte in either direction */
    uint64_t half_closed_timeout_ns; /* the same where one side has ended its sending; 0: idle_timeout_ns */
    uint64_t queue_timeout_ns;       /* for a place among maxconn; 0: none */
    uint64_t keepalive_s;            /* TCP keep-alive probes to a client that is silent for so long; 0: none */

    enum proxy_header_kind header;
    int proxy_authority; /* 1: version 2 of a PROXY header has the name that the client asked for */
    uint64_t maxconn;    /* connections to the backend at once, of all workers; 0: no limit */

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

/* Each adds a copy; what its pointers own is the list's then. NULL, or why it is refused. */
const char *certificate_list_add(struct certificate_list *list, const struct certificate_source *source);
const char *settings_add_frontend(struct proxy_settings *settings, const struct frontend *frontend);

/* What it owns. */
void frontend_free(struct frontend *frontend);

/* The first so many. */
void certificate_list_drop(struct certificate_list *list, int count);
void settings_drop_frontends(struct proxy_settings *settings, int count);

/* Whether anything but its address is particular to it. */
bool frontend_has_own_tls(const struct frontend *frontend);

/* What holds for its clients. It owns nothing, and is valid as long as both. */
void frontend_settings(struct proxy_settings *made, const struct proxy_settings *settings,
                       const struct frontend *frontend);

/* Whether any client may be asked for a certificate. */
bool settings_ask_for_certificates(const struct proxy_settings *settings);

/* The first that there is, of all frontends or of one, or NULL. */
const struct certificate_source *settings_first_certificate(const struct proxy_settings *settings);

/* An option that cannot be changed by a reload and differs between the two, or NULL. */
const char *settings_fixed_difference(const struct proxy_settings *old, const struct proxy_settings *new);

/* Frees what it holds: it holds nothing then. */
void settings_clear(struct proxy_settings *settings);

/* NULL is allowed. */
void settings_free(struct proxy_settings *settings);

#endif
