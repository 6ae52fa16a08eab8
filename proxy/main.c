/* SPDX-License-Identifier: MIT */
/* proxy: takes TLS connections and passes what they carry, in the clear, to a backend. */
#include "log.h"
#include "master.h"
#include "options.h"
#include "prefork.h"
#include "tls_credentials.h"
#include "units.h"

#include <stdlib.h>

static struct proxy_settings settings = {
    .workers = 1,
    .backlog = 1024,
    .tls_min = TLS1_2_VERSION,
    .session_cache = 20000,
    .tickets = 1,
    .num_tickets = 1,
    .handshake_timeout_ns = 10 * NS_PER_S,
    .connect_timeout_ns = 5 * NS_PER_S,
    .idle_timeout_ns = 300 * NS_PER_S,
};

static const char *parse_address(void *target, const char *value) {
    return address_parse(target, value);
}

static const char *parse_stats(void *target, const char *value) {
    settings.has_stats = true;
    return address_parse(target, value);
}

static const char *parse_cpus(void *target, const char *value) {
    return cpu_list_parse(target, value);
}

static const char *parse_version(void *target, const char *value) {
    int version = tls_version_parse(value);

    if (!version)
        return "must be one of TLSv1 TLSv1.1 TLSv1.2 TLSv1.3";
    *(int *)target = version;
    return NULL;
}

static const char *const off_on[] = {"off", "on", NULL};

#define SECTION(text)                                                                                                  \
    { .help = text }

static const struct option_spec options[] = {
    SECTION("Addresses (HOST:PORT, [HOST]:PORT, *:PORT or /path.sock; port 0 takes any free one)"),
    {"frontend", 'f', OPTION_PARSE, "ADDR", "where to take TLS connections (default *:8443)", &settings.frontend,
     .parse = parse_address},
    {"backend", 'b', OPTION_PARSE, "ADDR", "where to pass them on to (required)", &settings.backend,
     .parse = parse_address},
    {"stats", 0, OPTION_PARSE, "ADDR", "show counters there over HTTP: /metrics (Prometheus) and /stats.json",
     &settings.stats, .parse = parse_stats},

    SECTION("TLS"),
    {"tls-min", 0, OPTION_PARSE, "VERSION", "oldest version: TLSv1, TLSv1.1, TLSv1.2 (default) or TLSv1.3",
     &settings.tls_min, .parse = parse_version},
    {"tls-max", 0, OPTION_PARSE, "VERSION", "newest version (default: the newest that the TLS library has)",
     &settings.tls_max, .parse = parse_version},
    {"ciphers", 'c', OPTION_STRING, "LIST", "cipher suites of TLS 1.2 and before, in OpenSSL's notation",
     &settings.ciphers},
    {"ciphersuites", 0, OPTION_STRING, "LIST", "cipher suites of TLS 1.3, colon-separated", &settings.ciphersuites},
    {"groups", 0, OPTION_STRING, "LIST", "key exchange groups, colon-separated, such as X25519:P-256",
     &settings.groups},
    {"sigalgs", 0, OPTION_STRING, "LIST", "signature algorithms, colon-separated", &settings.sigalgs},
    {"prefer-server-ciphers", 'O', OPTION_FLAG, NULL, "the server's order of ciphers decides, not the client's",
     &settings.prefer_server_ciphers},

    SECTION("Resumption"),
    {"session-cache", 'C', OPTION_UINT, "N", "sessions kept for all workers, 0 for none (default 20000)",
     &settings.session_cache, .max = 100000000},
    {"tickets", 0, OPTION_CHOICE, "on|off", "stateless session tickets (default on)", &settings.tickets,
     .choices = off_on},
    {"num-tickets", 0, OPTION_UINT, "N", "TLS 1.3: tickets given after a full handshake (default 1)",
     &settings.num_tickets, .max = 16},

    SECTION("Processes"),
    {"workers", 'n', OPTION_UINT, "CORES", "worker processes (default 1)", &settings.workers, .min = 1,
     .max = PREFORK_WORKERS_MAX},
    {"cpus", 0, OPTION_PARSE, "LIST", "CPUs to run on, one a worker in turn, such as 0-2,4", &settings.cpus,
     .parse = parse_cpus},
    {"backlog", 'B', OPTION_UINT, "N", "queue of each listening socket (default 1024)", &settings.backlog, .min = 1,
     .max = 65535},
    {"pidfile", 0, OPTION_STRING, "FILE", "write the master's process number there while it runs", &settings.pidfile},

    SECTION("Times (500ms, 5s, 2m)"),
    {"handshake-timeout", 0, OPTION_DURATION, "T", "for a client to finish its handshake (default 10s)",
     &settings.handshake_timeout_ns, .min = NS_PER_MS},
    {"connect-timeout", 0, OPTION_DURATION, "T", "for the backend to accept a connection (default 5s)",
     &settings.connect_timeout_ns, .min = NS_PER_MS},
    {"idle-timeout", 0, OPTION_DURATION, "T", "for a connection on which nothing moves (default 5m; 0: none)",
     &settings.idle_timeout_ns},

    SECTION("Other"),
    {"quiet", 'q', OPTION_FLAG, NULL, "report errors only", &settings.quiet},
    {"test", 't', OPTION_FLAG, NULL, "check options and certificates, then exit", &settings.test_only},
    {"version", 'V', OPTION_VERSION, NULL, "print the version", NULL},
    {"help", 'h', OPTION_HELP, NULL, "print this", NULL},
};

int main(int argc, char **argv) {
    const struct option_table table = {
        .program = "proxy",
        .usage = "[options] -b BACKEND CERT.pem [CERT.pem ...]",
        .summary =
            "Takes TLS connections and passes what they carry, in the clear, to a backend. CERT.pem holds a private\n"
            "key, its certificate and the chain; give one of each key type (RSA, ECDSA) to serve all clients.",
        .options = options,
        .count = sizeof options / sizeof *options,
    };
    int first;

    log_open("proxy");
    address_parse(&settings.frontend, "*:8443");
    first = options_parse(&table, argc, argv);
    log_quiet(settings.quiet);
    if (first == argc)
        fail(EXIT_USAGE, "no certificate: give at least one CERT.pem");
    if (!settings.backend.length)
        fail(EXIT_USAGE, "no backend: give one with -b");
    if (settings.tls_max && settings.tls_max < settings.tls_min)
        fail(EXIT_USAGE, "--tls-max: lower than --tls-min");
    settings.certificates = argv + first;
    settings.certificate_count = argc - first;
    return master_run(&settings);
}
