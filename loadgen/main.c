/* SPDX-License-Identifier: MIT */
/* loadgen: puts a known load on a TLS terminator and counts what it got. Here: the options and whether they go
 * together. */
#include "client.h"
#include "log.h"
#include "master.h"
#include "options.h"
#include "plan.h"
#include "prefork.h"
#include "tls_credentials.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define HEADERS_MAX 64
/* Descriptors of a worker that are no connections: standard ones, event loop, life line, random numbers. */
#define OTHER_DESCRIPTORS 32

static struct plan plan = {
    .workers = 1,
    .connections = 10,
    .timeout_ns = 10 * NS_PER_S,
    .requests_per_connection = 1,
    .close_how = CLOSE_NOTIFY,
};
static struct engine_config tls;
static const char *tls_version, *sni;
static const char *headers[HEADERS_MAX];
static int header_count, engine_choice = -1, method_choice = -1, resume_choice = -1, close_choice = CLOSE_NOTIFY;
static uint64_t body_size = UINT64_MAX;
static bool owns_target;

static const char *const engine_names[] = {"openssl", NULL};
static const char *const resume_names[] = {"any", "id", "ticket", NULL};
static const char *const close_names[] = {"fin", "notify", "rst", NULL};

static const char *parse_cpus(void *target, const char *value) {
    return cpu_list_parse(target, value);
}

static const char *parse_requests(void *target, const char *value) {
    uint64_t *requests = target;

    if (strcmp(value, "inf") == 0)
        *requests = UINT64_MAX;
    else if (!parse_uint(value, requests))
        return "must be a whole number or inf";
    return NULL;
}

static const char *parse_header(void *target, const char *value) {
    const char *reason = request_check_header(value);
    (void)target;

    if (!reason && header_count == HEADERS_MAX)
        reason = "too many headers";
    if (!reason)
        headers[header_count++] = value;
    return reason;
}

static const struct option_spec options[] = {
    {.help = "Load"},
    {"connections", 'c', OPTION_UINT, "N", "connections at a time, over all workers (10)", &plan.connections, .min = 1,
     .max = 1000000},
    {"workers", 'w', OPTION_UINT, "N", "processes (1)", &plan.workers, .min = 1, .max = PREFORK_WORKERS_MAX},
    {"cpus", 0, OPTION_PARSE, "LIST", "run worker i on the i-th CPU of the list, such as 0-2,4", &plan.cpus,
     .parse = parse_cpus},
    {"duration", 'd', OPTION_DURATION, "T", "how long to measure (10s, or without end if -n is given)",
     &plan.duration_ns, .min = NS_PER_MS},
    {"warmup", 0, OPTION_DURATION, "T", "load of the same kind before that, not measured (0)", &plan.warmup_ns},
    {"requests", 'n', OPTION_UINT, "N",
     "stop after N transactions were begun in the measured time (connections, with --requests-per-connection 0), "
     "failed "
     "ones included; with -d: whichever comes first",
     &plan.limit, .min = 1},
    {"requests-per-connection", 0, OPTION_PARSE, "N|inf",
     "transactions on each connection (1); 0: handshake only; inf: keep-alive", &plan.requests_per_connection,
     .parse = parse_requests},
    {"timeout", 0, OPTION_DURATION, "T", "longest connect, handshake or standstill of a transaction (10s)",
     &plan.timeout_ns, .min = NS_PER_MS},
    {"close", 0, OPTION_CHOICE, "fin|notify|rst",
     "how a connection is ended: close_notify and FIN, then reading until the target closes too, 1 s at most (notify); "
     "the same without close_notify; or at once with RST",
     &close_choice, .choices = close_names},
    {"unix", 0, OPTION_STRING, "PATH", "connect to this UNIX socket instead", &plan.unix_path},
    {"i-own-the-target", 0, OPTION_FLAG, NULL, "required for every target that is not loopback", &owns_target},
    {.help = "TLS (https:// only)"},
    {"engine", 0, OPTION_CHOICE, "openssl", "what speaks TLS", &engine_choice, .choices = engine_names},
    {"reuse", 0, OPTION_PARSE, "never|always|every:N",
     "each connection slot begins a new TLS session with every connection (never), with its first only, or with "
     "exactly "
     "one in N",
     &plan.sessions, .parse = session_policy_parse},
    {"resume-with", 0, OPTION_CHOICE, "id|ticket|any",
     "keep only sessions that resume in this way (any); id means TLS 1.2 or older", &resume_choice,
     .choices = resume_names},
    {"tls-version", 0, OPTION_STRING, "V", "the only version to speak: TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3",
     &tls_version},
    {"cipher", 0, OPTION_STRING, "NAME",
     "a TLS 1.3 suite, or a colon-separated list for the older versions; either "
     "leaves the other versions out",
     &tls.cipher},
    {"group", 0, OPTION_STRING, "NAME", "key exchange group(s), colon-separated, such as X25519", &tls.groups},
    {"sigalgs", 0, OPTION_STRING, "NAMES", "signature algorithms to offer, colon-separated", &tls.sigalgs},
    {"sni", 0, OPTION_STRING, "NAME", "server name to send (the URL's host, unless it is an address)", &sni},
    {"alpn", 0, OPTION_STRING, "NAMES", "protocols to offer, comma-separated", &tls.alpn},
    {"verify-peer", 0, OPTION_FLAG, NULL, "check certificates: one that does not verify is tls_protocol",
     &tls.verify_peer},
    {"ca", 0, OPTION_STRING, "FILE", "with --verify-peer: trust these (PEM), not the system's", &tls.ca_file},
    {.help = "HTTP"},
    {"method", 0, OPTION_CHOICE, "NAME", "GET, HEAD, POST or PUT (GET, or POST if there is a body)", &method_choice,
     .choices = method_names},
    {"body-size", 0, OPTION_SIZE, "BYTES", "size of the request's body", &body_size, .max = UINT64_C(1) << 40},
    {"header", 0, OPTION_PARSE, "'NAME: VALUE'", "add a header line; may be repeated; Host replaces the URL's", headers,
     .parse = parse_header},
    {"check-body", 0, OPTION_FLAG, NULL, "the response must be the request's body, byte for byte", &plan.check_body},
    {.help = "Output"},
    {"json", 0, OPTION_STRING, "FILE", "write the result as one JSON object (-: standard output)", &plan.json_file},
    {"series", 0, OPTION_STRING, "FILE", "write a CSV row a second (-: standard output)", &plan.series_file},
    {"progress", 0, OPTION_FLAG, NULL, "a line a second on standard error", &plan.progress},
    {"help", 'h', OPTION_HELP, NULL, "print this and exit", NULL},
    {"version", 'V', OPTION_VERSION, NULL, "print the version and exit", NULL},
};

static const struct option_table table = {
    .program = "loadgen",
    .usage = "[options] URL [URL ...]",
    .summary =
        "Puts load on an HTTP or HTTPS server in a closed loop and counts what it got. Several URLs are used in turn,\n"
        "connection by connection, sharing TLS sessions.\n\n"
        "Latencies: connect is from connect() to connected, a handshake from there until it is done, ttfb from the\n"
        "beginning of the request to the first byte of the response, transaction from the same moment to its last "
        "byte\n"
        "(so connect + handshake + transaction is the whole of a connection with one transaction). Bytes are those of\n"
        "HTTP, without TLS.\n\n"
        "Exit status: 0 measured without errors, 1 measured with errors, 2 bad usage, 3 nobody listens there.",
    .options = options,
    .count = sizeof options / sizeof *options,
};

/* ---- Do they go together? ---- */

static void check_plain_http(void) {
    const struct {
        const char *option;
        bool given;
    } tls_options[] = {
        {"--engine", engine_choice >= 0},      {"--reuse", plan.sessions.reuse != REUSE_NEVER},
        {"--resume-with", resume_choice >= 0}, {"--tls-version", tls_version != NULL},
        {"--cipher", tls.cipher != NULL},      {"--group", tls.groups != NULL},
        {"--sigalgs", tls.sigalgs != NULL},    {"--sni", sni != NULL},
        {"--alpn", tls.alpn != NULL},          {"--verify-peer", tls.verify_peer},
        {"--ca", tls.ca_file != NULL},
    };

    for (size_t i = 0; i < sizeof tls_options / sizeof *tls_options; i++)
        if (tls_options[i].given)
            fail(EXIT_USAGE, "%s: %s: there is no TLS in http://", tls_options[i].option, plan.target[0].url);
    if (plan.requests_per_connection == 0)
        fail(EXIT_USAGE, "--requests-per-connection: 0: there is no handshake in http://");
}

static void read_targets(int count, char **urls) {
    if (count == 0)
        fail(EXIT_USAGE, "URL: none given (see --help)");
    if (count > PLAN_TARGETS_MAX)
        fail(EXIT_USAGE, "URL: %d given: at most %d", count, PLAN_TARGETS_MAX);
    for (int i = 0; i < count; i++) {
        struct target *target = &plan.target[i];
        const char *reason = target_parse(target, urls[i], plan.unix_path);
        if (reason)
            fail(EXIT_USAGE, "%s: %s", urls[i], reason);
        if (target->tls != plan.target[0].tls)
            fail(EXIT_USAGE, "%s: http:// and https:// cannot be mixed", urls[i]);
        if (!owns_target && !address_is_loopback(&target->address))
            fail(EXIT_USAGE, "%s: is not loopback: --i-own-the-target says that you may put load on it", urls[i]);
    }
    plan.targets = count;
}

static void check_http(void) {
    bool has_body = body_size != UINT64_MAX;

    if (method_choice < 0)
        method_choice = has_body ? METHOD_POST : METHOD_GET;
    plan.method = (enum method)method_choice;
    if (has_body && (plan.method == METHOD_GET || plan.method == METHOD_HEAD))
        fail(EXIT_USAGE, "--body-size: %" PRIu64 ": a %s request has no body", body_size, method_names[plan.method]);
    if (plan.check_body && plan.method != METHOD_POST && plan.method != METHOD_PUT)
        fail(EXIT_USAGE, "--check-body: nothing is echoed to a %s request (see --method)", method_names[plan.method]);
    if (plan.requests_per_connection == 0 && (has_body || plan.check_body || header_count || plan.method != METHOD_GET))
        fail(EXIT_USAGE, "--requests-per-connection: 0: no request is sent, and %s is given",
             has_body          ? "--body-size"
             : plan.check_body ? "--check-body"
             : header_count    ? "--header"
                               : "--method");
    for (int i = 0; i < plan.targets; i++)
        request_init(&plan.request[i], &plan.target[i], plan.method, headers, header_count, has_body ? body_size : 0);
}

static void check_tls(void) {
    const char *reason;

    plan.engine_config = tls;
    plan.engine_config.resume = plan.sessions.reuse != REUSE_NEVER;
    plan.engine_config.resume_with = resume_choice < 0 ? RESUME_WITH_ANY : (enum resume_with)resume_choice;
    plan.engine_config.session_arrived = client_session_arrived;
    plan.server_name = sni;
    if (tls_version) {
        plan.engine_config.tls_version = tls_version_parse(tls_version);
        if (!plan.engine_config.tls_version)
            fail(EXIT_USAGE, "--tls-version: %s: must be one of TLSv1 TLSv1.1 TLSv1.2 TLSv1.3", tls_version);
    }
    if (resume_choice >= 0 && !plan.engine_config.resume)
        fail(EXIT_USAGE, "--resume-with: %s: nothing is resumed with --reuse never", resume_names[resume_choice]);
    if (tls.ca_file && !tls.verify_peer)
        fail(EXIT_USAGE, "--ca: %s: is used with --verify-peer only", tls.ca_file);
    if (tls.ca_file && access(tls.ca_file, R_OK) != 0)
        fail(EXIT_USAGE, "--ca: %s: %s", tls.ca_file, strerror(errno));
    if (plan.close_how == CLOSE_RST && plan.requests_per_connection == 0 && plan.engine_config.resume)
        fail(EXIT_USAGE, "--close: rst: a TLS 1.3 ticket comes after the handshake, and RST would lose it");
    reason = engine_openssl_new(&plan.engine, &plan.engine_config);
    if (reason)
        fail(EXIT_USAGE, "%s", reason);
}

static void check_descriptors(void) {
    uint64_t needed = (plan.connections + plan.workers - 1) / plan.workers + OTHER_DESCRIPTORS;
    struct rlimit limit;

    if (plan.connections < plan.workers)
        fail(EXIT_USAGE, "--connections: %" PRIu64 ": fewer than the %" PRIu64 " workers", plan.connections,
             plan.workers);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    if (limit.rlim_cur < needed) {
        limit.rlim_cur = limit.rlim_max < needed ? limit.rlim_max : (rlim_t)needed;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur < needed)
        fail(EXIT_USAGE,
             "--connections: %" PRIu64 ": a worker needs %" PRIu64 " descriptors, and the limit is %" PRIu64
             " (ulimit -n, or more --workers)",
             plan.connections, needed, (uint64_t)limit.rlim_cur);
}

/* Better now than after the measurement. */
static void check_writable(const char *option, const char *file) {
    FILE *out;

    if (!file || strcmp(file, "-") == 0)
        return;
    out = fopen(file, "a");
    if (!out)
        fail(EXIT_USAGE, "%s: %s: %s", option, file, strerror(errno));
    else
        fclose(out);
}

int main(int argc, char **argv) {
    int operand;

    log_open("loadgen");
    operand = options_parse(&table, argc, argv);
    plan.close_how = (enum close_how)close_choice;
    if (!plan.duration_ns && !plan.limit)
        plan.duration_ns = 10 * NS_PER_S;
    read_targets(argc - operand, argv + operand);
    if (plan.target[0].tls) {
        check_tls();
    } else {
        check_plain_http();
        plan.engine = engine_plain_new();
    }
    check_http();
    check_descriptors();
    check_writable("--json", plan.json_file);
    check_writable("--series", plan.series_file);
    if (plan.json_file && plan.series_file && strcmp(plan.json_file, plan.series_file) == 0)
        fail(EXIT_USAGE, "--series: %s: --json writes there already", plan.series_file);
    return master_run(&plan);
}
