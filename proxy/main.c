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
    .half_closed_timeout_ns = 60 * NS_PER_S,
    .queue_timeout_ns = 30 * NS_PER_S,
    .keepalive_s = 3600,
};

static const char *parse_address(void *target, const char *value) {
    return address_parse(target, value);
}

static const char *parse_backend(void *target, const char *value) {
    *(const char **)target = value;
    return address_resolve(&settings.backend_addresses, value);
}

static bool write_ip, write_ipv4, proxy_proxy;
static int write_proxy = -1;

/* At most one of them. */
static void choose_header(void) {
    const struct {
        const char *option;
        bool given;
        enum proxy_header_kind kind;
    } choices[] = {
        {"write-ip", write_ip, HEADER_IP},
        {"write-ipv4", write_ipv4, HEADER_IPV4},
        {"write-proxy", write_proxy >= 0, write_proxy == 1 ? HEADER_PROXY_V2 : HEADER_PROXY_V1},
        {"proxy-proxy", proxy_proxy, HEADER_PASSED_ON},
    };
    const char *first = NULL;

    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        if (!choices[i].given)
            continue;
        if (first)
            fail(EXIT_USAGE, "--%s: cannot be had together with --%s", choices[i].option, first);
        first = choices[i].option;
        settings.header = choices[i].kind;
    }
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
static const char *const proxy_versions[] = {"v1", "v2", NULL};

#define SECTION(text)                                                                                                  \
    { .help = text }

static const struct option_spec options[] = {
    SECTION("Addresses (HOST:PORT, [HOST]:PORT, *:PORT or /path.sock; port 0 takes any free one)"),
    {"frontend", 'f', OPTION_PARSE, "ADDR", "where to take TLS connections (default *:8443)", &settings.frontend,
     .parse = parse_address},
    {"backend", 'b', OPTION_PARSE, "ADDR",
     "where to pass them on to (required); the addresses of a name are used in turn, without those that refuse",
     &settings.backend, .parse = parse_backend},
    {"backend-refresh", 0, OPTION_DURATION, "T", "resolve the backend's name again every so often (default 0: never)",
     &settings.backend_refresh_ns, .max = 366 * 86400 * NS_PER_S},
    {"client", 0, OPTION_FLAG, NULL, "the reverse: take connections in the clear, pass them on in TLS",
     &settings.client_role},
    {"stats", 0, OPTION_PARSE, "ADDR", "show counters there over HTTP: /metrics (Prometheus) and /stats.json",
     &settings.stats, .parse = parse_stats},

    SECTION("What the backend hears first: who the client is (one of these, in the clear in either role)"),
    {"write-proxy", 0, OPTION_CHOICE, "[=v1|v2]",
     "a PROXY header, version 1 if none is named; version 2 tells of TLS too (ALPN, SNI, version, cipher, group, "
     "certificates)",
     &write_proxy, .choices = proxy_versions, .value_if_none = "v1"},
    {"proxy-proxy", 0, OPTION_FLAG, NULL,
     "the PROXY header, version 1 or 2, that every client must send before anything else, unchanged", &proxy_proxy},
    {"write-ip", 0, OPTION_FLAG, NULL,
     "the address family in one octet, as this system numbers it, then the 4 or 16 octets of the client's address",
     &write_ip},
    {"write-ipv4", 0, OPTION_FLAG, NULL, "the four octets of the client's IPv4 address", &write_ipv4},

    SECTION("Admission"),
    {"maxconn", 0, OPTION_UINT, "N",
     "connections to the backend at once, of all workers; who comes then waits in order (default 0: no limit)",
     &settings.maxconn, .max = 1000000000},
    {"queue-timeout", 0, OPTION_DURATION, "T",
     "for a place; a client that ends its sending while it waits is taken for gone (default 30s; 0: none)",
     &settings.queue_timeout_ns},

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
    {"handshake-timeout", 0, OPTION_DURATION, "T",
     "for a client to finish its handshake, with the PROXY header that it must send; with --client for the backend "
     "to finish its own (default 10s)",
     &settings.handshake_timeout_ns, .min = NS_PER_MS},
    {"connect-timeout", 0, OPTION_DURATION, "T", "for the backend to accept a connection (default 5s)",
     &settings.connect_timeout_ns, .min = NS_PER_MS},
    {"idle-timeout", 0, OPTION_DURATION, "T", "for a connection on which nothing moves (default 5m; 0: none)",
     &settings.idle_timeout_ns},
    {"half-closed-timeout", 0, OPTION_DURATION, "T",
     "for one on which one side has ended its sending and nothing moves (default 1m; 0: --idle-timeout)",
     &settings.half_closed_timeout_ns},
    {"keepalive", 'k', OPTION_UINT, "SECS",
     "TCP keep-alive probes to a client that is silent for so long (default 3600; 0: none)", &settings.keepalive_s,
     .max = 32767},

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
    choose_header();
    if (first == argc && !settings.client_role)
        fail(EXIT_USAGE, "no certificate: give at least one CERT.pem");
    if (!settings.backend)
        fail(EXIT_USAGE, "no backend: give one with -b");
    if (settings.tls_max && settings.tls_max < settings.tls_min)
        fail(EXIT_USAGE, "--tls-max: lower than --tls-min");
    settings.certificates = argv + first;
    settings.certificate_count = argc - first;
    return master_run(&settings);
}
