/* SPDX-License-Identifier: MIT */
/* proxy: takes TLS connections and passes what they carry, in the clear, to a backend. */
#include "access_log.h"
#include "allocator.h"
#include "config_file.h"
#include "log.h"
#include "master.h"
#include "option_blocks.h"
#include "option_values.h"
#include "options.h"
#include "pem_folder.h"
#include "prefork.h"
#include "resolver.h"
#include "units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct proxy_settings defaults = {
    .workers = 1,
    .backlog = 1024,
    .session_cache = 20000,
    .tickets = 1,
    .num_tickets = 1,
    .proxy_authority = 1,
    .session_lifetime_ns = 3600 * NS_PER_S,
    .handshake_timeout_ns = 10 * NS_PER_S,
    .connect_timeout_ns = 5 * NS_PER_S,
    .idle_timeout_ns = 300 * NS_PER_S,
    .top_clients = 10,
    .half_closed_timeout_ns = 60 * NS_PER_S,
    .queue_timeout_ns = 30 * NS_PER_S,
    .keepalive_s = 3600,
};

#define DEFAULT_FRONTEND "*:8443"

/* What the option table fills: a copy is what the proxy runs with. */
static struct proxy_settings settings;

/* What the proxy was started with, for a reload. */
static int argument_count;
static char **arguments;

static const char *format_address(const void *target, char *text) {
    return ((const struct address *)target)->length ? address_format(target, text) : NULL;
}

static const char *format_text(const void *target, char *text) {
    (void)text;
    return *(const char *const *)target;
}

static const char *add_certificate(const char *file) {
    return certificate_list_add(&settings.certificates, &(struct certificate_source){.file = file});
}

static const char *parse_pem_file(void *target, const char *value) {
    (void)target;
    return *value ? add_certificate(value) : "must not be empty";
}

/* A name is asked for later, once, when all that can be refused at once has not been. */
static const char *parse_backend(void *target, const char *value) {
    *(const char **)target = value;
    return resolver_read(&settings.backend_addresses, value);
}

static bool write_ip, write_ipv4, write_proxy_v1, write_proxy_v2, proxy_proxy;
static int write_proxy = -1;

static void forget_header(void) {
    write_ip = write_ipv4 = write_proxy_v1 = write_proxy_v2 = proxy_proxy = false;
    write_proxy = -1;
    settings.header = HEADER_NONE;
}

/* At most one of them. NULL, or why they are refused. */
static const char *choose_header(void) {
    static char refusal[96];
    const struct {
        const char *option;
        bool given;
        enum proxy_header_kind kind;
    } choices[] = {
        {"write-ip", write_ip, HEADER_IP},
        {"write-ipv4", write_ipv4, HEADER_IPV4},
        {"write-proxy", write_proxy >= 0, write_proxy == 1 ? HEADER_PROXY_V2 : HEADER_PROXY_V1},
        {"write-proxy-v1", write_proxy_v1, HEADER_PROXY_V1},
        {"write-proxy-v2", write_proxy_v2, HEADER_PROXY_V2},
        {"proxy-proxy", proxy_proxy, HEADER_PASSED_ON},
    };
    const char *first = NULL;

    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        if (!choices[i].given)
            continue;
        if (first) {
            snprintf(refusal, sizeof refusal, "--%s: cannot be had together with --%s", choices[i].option, first);
            return refusal;
        }
        first = choices[i].option;
        settings.header = choices[i].kind;
    }
    return NULL;
}

static const char *parse_shared_cache(void *target, const char *value) {
    return sharing_parse_own(target, value);
}

static const char *parse_shared_cache_peer(void *target, const char *value) {
    return sharing_parse_peer(target, value);
}

static const char *parse_shared_cache_if(void *target, const char *value) {
    return sharing_parse_interface(target, value);
}

static const char *format_shared_cache(const void *target, char *text) {
    const struct sharing *sharing = target;

    return sharing->on ? address_format(&sharing->own, text) : NULL;
}

static const char *format_shared_cache_if(const void *target, char *text) {
    (void)text;
    return ((const struct sharing *)target)->interface_text;
}

static const char *add_frontend(const char *text) {
    struct frontend frontend;
    const char *reason = frontend_parse(&frontend, text);

    if (reason)
        return reason;
    reason = settings_add_frontend(&settings, &frontend);
    if (reason)
        frontend_free(&frontend);
    return reason;
}

static const char *parse_frontend(void *target, const char *value) {
    (void)target;
    return add_frontend(value);
}

static const char *format_frontend(const void *target, char *text) {
    (void)target, (void)text;
    return DEFAULT_FRONTEND;
}

static const char *parse_stats(void *target, const char *value) {
    settings.has_stats = true;
    return address_parse(target, value);
}

static const char *parse_cpus(void *target, const char *value) {
    return cpu_list_parse(target, value);
}

static const char *parse_ocsp(void *target, const char *value) {
    struct file_list *files = target;

    if (!*value)
        return "must not be empty";
    if (files->count == FILES_MAX)
        return "more than 1024 files";
    files->file[files->count++] = value;
    return NULL;
}

static const char *const off_on[] = {"off", "on", NULL};
static const char *const proxy_versions[] = {"v1", "v2", NULL};

#define SECTION(text)                                                                                                  \
    { .help = text }

static const struct option_spec options[] = {
    SECTION("Addresses (HOST:PORT, [HOST]:PORT, *:PORT or /path.sock; port 0 takes any free one)"),
    {"frontend", 'f', OPTION_PARSE, "ADDR",
     "where to take TLS connections (default *:8443): once for each address; HOST:PORT+FILE has a certificate of its "
     "own",
     &settings.frontends, .parse = parse_frontend, .format = format_frontend, .block = &frontend_block},
    {"backend", 'b', OPTION_PARSE, "ADDR",
     "where to pass them on to (required); the addresses of a name are used in turn, without those that refuse",
     &settings.backend, .parse = parse_backend, .format = format_text},
    {"backend-refresh", 0, OPTION_DURATION, "T", "resolve the backend's name again every so often (default 0: never)",
     &settings.backend_refresh_ns, .min = 100 * NS_PER_MS, .max = 366 * 86400 * NS_PER_S, .zero_too = true},
    {"client", 0, OPTION_FLAG, NULL, "the reverse: take connections in the clear, pass them on in TLS",
     &settings.client_role},
    {"stats", 0, OPTION_PARSE, "ADDR", "show counters there over HTTP: /metrics (Prometheus) and /stats.json",
     &settings.stats, .parse = parse_stats, .format = format_address},

    SECTION("What the backend hears first: who the client is (one of these, in the clear in either role; one on the "
            "command line takes the place of that in the file)"),
    {"write-proxy", 0, OPTION_CHOICE, "[=v1|v2]",
     "a PROXY header, version 1 if none is named; version 2 tells of TLS too (ALPN, SNI, version, cipher, group, "
     "certificates)",
     &write_proxy, .choices = proxy_versions, .value_if_none = "v1"},
    {"write-proxy-v1", 0, OPTION_FLAG, NULL, "the same as --write-proxy=v1", &write_proxy_v1},
    {"write-proxy-v2", 0, OPTION_FLAG, NULL, "the same as --write-proxy=v2", &write_proxy_v2},
    {"proxy-authority", 0, OPTION_CHOICE, "on|off",
     "whether version 2 has the name that the client asked for (SNI; default on)", &settings.proxy_authority,
     .choices = off_on},
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
    {"pem-file", 0, OPTION_PARSE, "FILE", "a certificate, like the operands: once for each", &settings.certificates,
     .parse = parse_pem_file, .block = &certificate_block},
    {"pem-dir", 0, OPTION_STRING, "DIR", "a certificate in each file there, after all others, in the order of names",
     &settings.pem_dir},
    {"pem-dir-glob", 0, OPTION_STRING, "PATTERN", "only in files of such names, as *.pem", &settings.pem_dir_glob},
    {"tls-protos", 0, OPTION_PARSE, "LIST",
     "versions, with blanks between them, of SSLv3 (which nobody speaks any more), TLSv1.0, TLSv1.1, TLSv1.2, TLSv1.3",
     &settings.versions.protos, .parse = parse_protos},
    {"tls-min", 0, OPTION_PARSE, "VERSION", "oldest version: TLSv1, TLSv1.1, TLSv1.2 (default) or TLSv1.3",
     &settings.versions.min, .parse = parse_version, .format = format_version},
    {"tls-max", 0, OPTION_PARSE, "VERSION", "newest version (default: the newest that the TLS library has)",
     &settings.versions.max, .parse = parse_version, .format = format_version},
    {"ciphers", 'c', OPTION_STRING, "LIST",
     "cipher suites of TLS 1.2 and before, in OpenSSL's notation (default: ECDHE with AES-GCM or ChaCha20)",
     &settings.ciphers},
    {"ciphersuites", 0, OPTION_STRING, "LIST", "cipher suites of TLS 1.3, colon-separated", &settings.ciphersuites},
    {"groups", 0, OPTION_STRING, "LIST", "key exchange groups, colon-separated, such as X25519:P-256", &settings.groups,
     .alias = "ecdh-curve"},
    {"sigalgs", 0, OPTION_STRING, "LIST", "signature algorithms, colon-separated", &settings.sigalgs},
    {"prefer-server-ciphers", 'O', OPTION_FLAG, NULL,
     "the order of --ciphers decides, not the client's (as the default lists do)", &settings.prefer_server_ciphers},
    {"alpn", 0, OPTION_STRING, "LIST",
     "application protocols, comma-separated, such as h2,http/1.1: the first that the client has too is agreed, and a "
     "client that has none of them is refused; with --client they are offered to the backend",
     &settings.alpn, .alias = "alpn-protos"},
    {"sni-nomatch-abort", 0, OPTION_FLAG, NULL,
     "refuse a client that asks for a name that no certificate has, instead of serving it the first",
     &settings.sni_nomatch_abort},
    {"ocsp", 0, OPTION_PARSE, "FILE",
     "an OCSP response (DER) to staple to the certificate that it is about, until it expires; may come several times",
     &settings.ocsp_files, .parse = parse_ocsp},
    {"ocsp-verify-staple", 0, OPTION_FLAG, NULL,
     "refuse a response that no authority which this machine trusts has signed (those of SSL_CERT_FILE, where that is "
     "set)",
     &settings.ocsp_verify_staple},
    {"client-ca", 0, OPTION_STRING, "FILE", "ask clients for a certificate of one of these authorities (PEM)",
     &settings.client_ca, .alias = "client-verify-ca"},
    {"client-verify", 0, OPTION_PARSE, "required|optional|none",
     "with --client-ca: whether a client without a certificate is refused (default required); none: nobody is asked",
     &settings.client_verify, .parse = parse_client_verify},
    {"engine", 'e', OPTION_STRING, "NAME", "provider (or, where there is none, ENGINE) of OpenSSL to prefer",
     &settings.engine, .alias = "ssl-engine"},
    {"tls", 0, OPTION_FLAG, NULL, "TLSv1.0 only, as stud meant it", &settings.versions.only_tls1},
    {"ssl", 0, OPTION_FLAG, NULL, "any version that the TLS library has", &settings.versions.any_version},
    {"ca", 0, OPTION_STRING, "FILE",
     "with --client: authorities (PEM) that the backend's certificate must come from; without it the backend's "
     "certificate is not verified",
     &settings.backend_ca},
    {"verify-name", 0, OPTION_STRING, "NAME",
     "with --client: host name to ask the backend for (SNI), or address; with --ca its certificate must be for it",
     &settings.backend_name},

    SECTION("Resumption"),
    {"session-cache", 'C', OPTION_UINT, "N", "sessions kept for all workers, 0 for none (default 20000)",
     &settings.session_cache, .max = 100000000},
    {"tickets", 0, OPTION_CHOICE, "on|off", "stateless session tickets (default on)", &settings.tickets,
     .choices = off_on},
    {"num-tickets", 0, OPTION_UINT, "N", "TLS 1.3: tickets given after a full handshake (default 1)",
     &settings.num_tickets, .max = 16},
    {"ticket-keys", 0, OPTION_STRING, "FILE",
     "keys of tickets, for several proxies to share: one a line, 48 or 80 bytes in base64, as HAProxy has them (or one "
     "as it is, as nginx has it); the first seals, all open; read again on SIGHUP (default: random keys)",
     &settings.ticket_keys},
    {"ticket-rotation", 0, OPTION_DURATION, "T",
     "make a new random key so often; the last but one still opens its tickets (default: the session lifetime)",
     &settings.ticket_rotation_ns, .min = 100 * NS_PER_MS},
    {"session-lifetime", 0, OPTION_DURATION, "T", "how long a session may be resumed (default 1h, at most 7 days)",
     &settings.session_lifetime_ns, .min = NS_PER_S, .max = 7 * 24 * 3600 * NS_PER_S},

    SECTION("Sessions shared between hosts"),
    {"shared-cache", 'U', OPTION_PARSE, "ADDR",
     "share sessions and ticket keys with other hosts: take their datagrams (UDP) there; a multicast group is joined, "
     "and sent to",
     &settings.sharing, .parse = parse_shared_cache, .format = format_shared_cache},
    {"shared-cache-peer", 'P', OPTION_PARSE, "ADDR",
     "another host's --shared-cache, to send to: once for each, up to 16", &settings.sharing,
     .parse = parse_shared_cache_peer},
    {"shared-cache-if", 'M', OPTION_PARSE, "IFACE[,TTL]",
     "the group's interface: its name, number or IPv4 address, or *; and how many hops datagrams may make (default 1; "
     "0: they stay on this host)",
     &settings.sharing, .parse = parse_shared_cache_if, .format = format_shared_cache_if},
    {"shared-cache-key", 0, OPTION_STRING, "FILE",
     "the secret that the hosts share, 16 bytes to 16 KiB of any kind, read at the start (default: the first "
     "certificate's private key)",
     &settings.sharing.key_file},
    {"shared-cache-pull", 0, OPTION_DURATION, "T",
     "ask peers for a session that is not here, and let the client wait for it so long (such as 5ms; default 0: do not "
     "ask)",
     &settings.sharing.pull_ns, .max = NS_PER_S},
    {"shared-cache-format", 0, OPTION_CHOICE, "sealed|stud",
     "of datagrams: encrypted (default), or as stud has them: sessions in the clear, without ticket keys",
     &settings.sharing.format, .choices = sharing_formats},

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

    SECTION("Times (500ms, 5s, 2m, 1h)"),
    {"handshake-timeout", 0, OPTION_DURATION, "T",
     "for a client to finish its handshake, with the PROXY header that it must send; with --client for the backend "
     "to finish its own (default 10s)",
     &settings.handshake_timeout_ns, .min = NS_PER_MS, .alias = "ssl-handshake-timeout"},
    {"connect-timeout", 0, OPTION_DURATION, "T", "for the backend to accept a connection (default 5s)",
     &settings.connect_timeout_ns, .min = NS_PER_MS, .alias = "backend-connect-timeout"},
    {"idle-timeout", 0, OPTION_DURATION, "T", "for a connection on which nothing moves (default 5m; 0: none)",
     &settings.idle_timeout_ns},
    {"half-closed-timeout", 0, OPTION_DURATION, "T",
     "for one on which one side has ended its sending and nothing moves (default 1m; 0: --idle-timeout)",
     &settings.half_closed_timeout_ns},
    {"keepalive", 'k', OPTION_UINT, "SECS",
     "TCP keep-alive probes to a client that is silent for so long (default 3600; 0: none)", &settings.keepalive_s,
     .max = 32767},

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
     "read options from there: NAME = VALUE, a line each; those of the command line come after them and count more",
     &settings.config, .command_line_only = true},
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
        "key, its certificate and the chain. A client gets one for the name that it asks for (SNI; *.example.org\n"
        "serves one label), else the first; give one of each key type (RSA, ECDSA) for a name to serve all clients.",
    .options = options,
    .count = sizeof options / sizeof *options,
};

static void set_defaults(void) {
    settings_clear(&settings);
    settings = defaults;
    option_blocks_fill(&settings);
    forget_header();
}

/* The same port 0 twice is two ports. */
static const char *check_frontends(void) {
    static char refusal[512];

    if (!settings.frontend_count)
        return add_frontend(DEFAULT_FRONTEND);
    for (int i = 0; i < settings.frontend_count; i++)
        for (int j = 0; j < i; j++) {
            const struct frontend *one = &settings.frontends[i], *other = &settings.frontends[j];

            if (address_has_port_0(&one->address) || !address_is_equal(&one->address, &other->address))
                continue;
            snprintf(refusal, sizeof refusal, "%.400s: another frontend has the same address", one->where);
            return refusal;
        }
    return NULL;
}

/* Each frontend has one: its own, or one of those that serve all. */
static const char *check_certificates(void) {
    static char refusal[512];

    for (int i = 0; i < settings.frontend_count && settings.client_role; i++)
        if (frontend_has_own_tls(&settings.frontends[i])) {
            snprintf(refusal, sizeof refusal, "%.400s: has TLS of its own: not together with --client",
                     settings.frontends[i].where);
            return refusal;
        }
    if (settings.client_role)
        return NULL;
    for (int i = 0; i < settings.frontend_count && !settings.certificates.count; i++)
        if (!settings.frontends[i].certificates.count)
            return "no certificate: give at least one CERT.pem";
    if (settings.ocsp_files.count && !settings.certificates.count)
        return "--ocsp: about none of the certificates: those of a frontend alone have ocsp-resp-file";
    return NULL;
}

/* With --client there are no sessions of our clients: what is asked of them is not passed over in silence. */
static const char *check_sessions(void) {
    static char refusal[96];
    const char *option = settings.session_cache && settings.session_cache != defaults.session_cache ? "session-cache"
                         : settings.tickets != defaults.tickets                                     ? "tickets"
                         : settings.num_tickets != defaults.num_tickets                             ? "num-tickets"
                         : settings.ticket_rotation_ns                                              ? "ticket-rotation"
                         : settings.session_lifetime_ns != defaults.session_lifetime_ns             ? "session-lifetime"
                                                                                                    : NULL;

    if (!settings.client_role || !option)
        return NULL;
    snprintf(refusal, sizeof refusal, "--%s: not together with --client", option);
    return refusal;
}

/* What no single option can see. NULL, or why the whole is refused. */
static const char *check_settings(void) {
    const char *reason;

    reason = check_frontends();
    if (!reason)
        reason = check_certificates();
    if (!reason)
        reason = check_sessions();
    if (reason)
        return reason;
    if (!settings.backend)
        return "no backend: give one with -b";
    if (settings.daemon && settings.access_log && strcmp(settings.access_log, "-") == 0)
        return "--access-log: -: there is no standard output in the background";
    reason = sharing_check(&settings);
    return reason ? reason : choose_header();
}

/* The command line, again: what it says counts more than the file. */
static const char *read_command_line(void) {
    int certificates = settings.certificates.count, frontends = settings.frontend_count, first;
    const char *folder = settings.pem_dir, *reason;

    settings.pem_dir = NULL;
    reason = options_read(&table, argument_count, arguments, &first);
    for (int i = first; !reason && i < argument_count; i++)
        reason = *arguments[i] ? add_certificate(arguments[i]) : "CERT.pem: must not be empty";
    if (reason)
        return reason;
    /* What it has of certificates, or of frontends, stands for all that the file has. */
    if (settings.pem_dir || settings.certificates.count > certificates)
        certificate_list_drop(&settings.certificates, certificates);
    else
        settings.pem_dir = folder;
    if (settings.frontend_count > frontends)
        settings_drop_frontends(&settings, frontends);
    return NULL;
}

/* The command line has been read before, to find the file. */
static const char *read_file_and_command_line(const char *config) {
    const char *reason = choose_header();
    bool has_header = settings.header != HEADER_NONE;

    if (reason)
        return reason;
    set_defaults();
    reason = config_file_read(&table, config, &settings.config_text);
    if (!reason)
        reason = choose_header();
    /* They are one option under several names: of those, too, the command line's counts more. */
    if (has_header)
        forget_header();
    return reason ? reason : read_command_line();
}

static const char *read_settings(struct proxy_settings **read) {
    const char *reason, *config;

    set_defaults();
    reason = read_command_line();
    config = settings.config;
    if (!reason && config)
        reason = read_file_and_command_line(config);
    if (!reason && settings.pem_dir_glob && !settings.pem_dir)
        reason = "--pem-dir-glob: only with --pem-dir";
    if (!reason && settings.pem_dir)
        reason = pem_folder_add(&settings.certificates, settings.pem_dir, settings.pem_dir_glob);
    if (!reason && !settings.default_config)
        reason = check_settings();
    *read = reason ? NULL : malloc(sizeof **read);
    if (!*read)
        return reason ? reason : "out of memory";
    **read = settings;
    settings = defaults; /* all of it is the reader's now */
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
    allocator_serve_tls();
    log_open("proxy");
    log_never_wait();
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
