/* SPDX-License-Identifier: MIT */
/* proxy: takes TLS connections and passes what they carry, in the clear, to a backend. */
#include "access_log.h"
#include "config_file.h"
#include "log.h"
#include "master.h"
#include "options.h"
#include "prefork.h"
#include "tls_credentials.h"
#include "units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct proxy_settings defaults = {
    .workers = 1,
    .backlog = 1024,
    .tls_min = TLS1_2_VERSION,
    .session_cache = 20000,
    .tickets = 1,
    .num_tickets = 1,
    .handshake_timeout_ns = 10 * NS_PER_S,
    .connect_timeout_ns = 5 * NS_PER_S,
    .idle_timeout_ns = 300 * NS_PER_S,
    .top_clients = 10,
};

/* What the option table fills: a copy is what the proxy runs with. */
static struct proxy_settings settings;

/* What the proxy was started with, for a reload. */
static int argument_count;
static char **arguments;

static const char *parse_address(void *target, const char *value) {
    return address_parse(target, value);
}

static const char *format_address(const void *target, char *text) {
    return ((const struct address *)target)->length ? address_format(target, text) : NULL;
}

static const char *add_certificate(const char *file) {
    const char **longer = realloc(settings.certificates, sizeof *longer * (size_t)(settings.certificate_count + 1));

    if (!longer)
        return "out of memory";
    settings.certificates = longer;
    longer[settings.certificate_count++] = file;
    return NULL;
}

static const char *parse_pem_file(void *target, const char *value) {
    (void)target;
    return add_certificate(value);
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

static const char *format_version(const void *target, char *text) {
    int version = *(const int *)target;

    (void)text;
    return version ? tls_version_name(version) : NULL;
}

static const char *const off_on[] = {"off", "on", NULL};

#define SECTION(text)                                                                                                  \
    { .help = text }

static const struct option_spec options[] = {
    SECTION("Addresses (HOST:PORT, [HOST]:PORT, *:PORT or /path.sock; port 0 takes any free one)"),
    {"frontend", 'f', OPTION_PARSE, "ADDR", "where to take TLS connections (default *:8443)", &settings.frontend,
     .parse = parse_address, .format = format_address},
    {"backend", 'b', OPTION_PARSE, "ADDR", "where to pass them on to (required)", &settings.backend,
     .parse = parse_address, .format = format_address},
    {"stats", 0, OPTION_PARSE, "ADDR", "show counters there over HTTP: /metrics (Prometheus) and /stats.json",
     &settings.stats, .parse = parse_stats, .format = format_address},

    SECTION("TLS"),
    {"pem-file", 0, OPTION_PARSE, "FILE", "a certificate, like the operands: once for each", &settings.certificates,
     .parse = parse_pem_file},
    {"tls-min", 0, OPTION_PARSE, "VERSION", "oldest version: TLSv1, TLSv1.1, TLSv1.2 (default) or TLSv1.3",
     &settings.tls_min, .parse = parse_version, .format = format_version},
    {"tls-max", 0, OPTION_PARSE, "VERSION", "newest version (default: the newest that the TLS library has)",
     &settings.tls_max, .parse = parse_version, .format = format_version},
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
    {"daemon", 0, OPTION_FLAG, NULL, "go to the background once it listens; messages go to syslog then",
     &settings.daemon},
    {"user", 'u', OPTION_STRING, "USER", "what the workers run as; the master keeps its rights, to reload keys",
     &settings.user},
    {"group", 'g', OPTION_STRING, "GROUP", "the workers' group (default: that of --user)", &settings.group},
    {"chroot", 'r', OPTION_STRING, "DIR", "the workers' root directory, in which a backend's UNIX socket is looked up",
     &settings.chroot},
    {"drain-timeout", 0, OPTION_DURATION, "T", "for connections to end after SIGTERM or a reload (default 0: no limit)",
     &settings.drain_timeout_ns},

    SECTION("Times (500ms, 5s, 2m)"),
    {"handshake-timeout", 0, OPTION_DURATION, "T", "for a client to finish its handshake (default 10s)",
     &settings.handshake_timeout_ns, .min = NS_PER_MS},
    {"connect-timeout", 0, OPTION_DURATION, "T", "for the backend to accept a connection (default 5s)",
     &settings.connect_timeout_ns, .min = NS_PER_MS},
    {"idle-timeout", 0, OPTION_DURATION, "T", "for a connection on which nothing moves (default 5m; 0: none)",
     &settings.idle_timeout_ns},

    SECTION("What is told"),
    {"access-log", 0, OPTION_STRING, "FILE", "a line for each client connection that ends; - is standard output",
     &settings.access_log},
    {"log-format", 0, OPTION_CHOICE, "text|json", "of the access log (default text)", &settings.log_format,
     .choices = access_log_formats},
    {"top-clients", 0, OPTION_UINT, "N", "busiest client addresses shown in the statistics (default 10; 0: none)",
     &settings.top_clients, .max = 1000},
    {"syslog", 's', OPTION_FLAG, NULL, "messages go to syslog, not to standard error", &settings.syslog},
    {"syslog-facility", 0, OPTION_CHOICE, "NAME", "daemon (default), user, auth, authpriv or local0 to local7",
     &settings.syslog_facility, .choices = log_facilities},

    SECTION("Other"),
    {"config", 0, OPTION_STRING, "FILE",
     "read options from there: NAME = VALUE, a line each; those of the command line come after them", &settings.config,
     .command_line_only = true},
    {"default-config", 0, OPTION_FLAG, NULL, "print a configuration file with the defaults, then exit",
     &settings.default_config, .command_line_only = true},
    {"quiet", 'q', OPTION_FLAG, NULL, "report errors only", &settings.quiet},
    {"test", 't', OPTION_FLAG, NULL, "check options and certificates, then exit", &settings.test_only,
     .command_line_only = true},
    {"version", 'V', OPTION_VERSION, NULL, "print the version", NULL},
    {"help", 'h', OPTION_HELP, NULL, "print this", NULL},
};

static const struct option_table table = {
    .program = "proxy",
    .usage = "[options] -b BACKEND CERT.pem [CERT.pem ...]",
    .summary =
        "Takes TLS connections and passes what they carry, in the clear, to a backend. CERT.pem holds a private\n"
        "key, its certificate and the chain; give one of each key type (RSA, ECDSA) to serve all clients.",
    .options = options,
    .count = sizeof options / sizeof *options,
};

static void set_defaults(void) {
    free(settings.certificates);
    settings = defaults;
    address_parse(&settings.frontend, "*:8443");
}

/* What no single option can see. NULL, or why the whole is refused. */
static const char *check_settings(void) {
    if (!settings.certificate_count)
        return "no certificate: give at least one CERT.pem";
    if (!settings.backend.length)
        return "no backend: give one with -b";
    if (settings.tls_max && settings.tls_max < settings.tls_min)
        return "--tls-max: lower than --tls-min";
    if (settings.daemon && settings.access_log && strcmp(settings.access_log, "-") == 0)
        return "--access-log: -: there is no standard output in the background";
    return NULL;
}

/* The command line, again: what it says counts more than the file, and its certificates stand for those of the file. */
static const char *read_command_line(void) {
    int from_file = settings.certificate_count, first;
    const char *reason = options_read(&table, argument_count, arguments, &first);

    for (int i = first; !reason && i < argument_count; i++)
        reason = add_certificate(arguments[i]);
    if (!reason && from_file && settings.certificate_count > from_file) {
        settings.certificate_count -= from_file;
        memmove(settings.certificates, settings.certificates + from_file,
                sizeof *settings.certificates * (size_t)settings.certificate_count);
    }
    return reason;
}

static const char *read_settings(struct proxy_settings **read) {
    const char *reason, *config;

    set_defaults();
    reason = read_command_line();
    config = settings.config;
    if (!reason && config) {
        set_defaults();
        reason = config_file_read(&table, config, &settings.config_text);
        if (!reason)
            reason = read_command_line();
    }
    if (!reason && !settings.default_config)
        reason = check_settings();
    *read = reason ? NULL : malloc(sizeof **read);
    if (!*read) {
        free(settings.config_text);
        return reason ? reason : "out of memory";
    }
    **read = settings;
    settings.certificates = NULL; /* they are the reader's now */
    return NULL;
}

static int print_default_config(void) {
    set_defaults();
    options_print_config(&table, stdout);
    return fflush(stdout) == 0 ? 0 : EXIT_FAILED;
}

int main(int argc, char **argv) {
    struct proxy_settings *read;
    const char *reason;

    argument_count = argc;
    arguments = argv;
    log_open("proxy");
    reason = read_settings(&read);
    if (reason)
        fail(EXIT_USAGE, "%s", reason);
    if (read->default_config) {
        settings_free(read);
        return print_default_config();
    }
    log_quiet(read->quiet);
    return master_run(read, read_settings);
}
