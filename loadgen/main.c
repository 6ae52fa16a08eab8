/* SPDX-License-Identifier: MIT */
/* loadgen: puts a known load on a TLS terminator and counts what it got. Here: the options and whether they go
 * together. */
#include "client.h"
#include "linger.h"
#include "log.h"
#include "master.h"
#include "options.h"
#include "output.h"
#include "plan.h"
#include "ports.h"
#include "prefork.h"
#include "tls_credentials.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define HEADERS_MAX        64
#define RATE_MAX           1e7
#define HOLD_INTERVAL_NS   (30 * NS_PER_S)
#define HOLD_COALESCE_NS   (2 * NS_PER_MS)
#define HOLD_BATCH_NS      (50 * NS_PER_MS)
#define HOLD_BATCHES       20 /* in an interval, at least */
#define CONNECTIONS_MAX    1000000
#define CONNECTIONS_UNSAID 10
#define SERVER_NAME_MAX    255 /* RFC 1035, 2.3.4 */
/* Descriptors of a worker that are no connections: standard ones, event loop, life line, random numbers. */
#define OTHER_DESCRIPTORS 32

static struct plan plan = {
    .workers = 1,
    .timeout_ns = 10 * NS_PER_S,
    .requests_per_connection = 1,
    .close_how = CLOSE_NOTIFY,
};
static struct engine_config tls;
static const char *tls_version, *sni;
static const char *headers[HEADERS_MAX];
static int header_count, engine_choice = -1, key_share_choice = -1, method_choice = -1, resume_choice = -1,
                         psk_choice = -1, close_choice = CLOSE_NOTIFY;
static uint64_t body_size = UINT64_MAX, coalesce_ns = UINT64_MAX;
static bool owns_target, requests_given;
static int arrivals_choice = -1, proxy_choice = -1;
static uint64_t burst;

enum engine_choice { ENGINE_LIGHT, ENGINE_OPENSSL };

static const char *const engine_names[] = {"light", "openssl", NULL};
static const char *const key_share_names[] = {"base", "reuse", "fresh", NULL};
static const char *const arrivals_names[] = {"fixed", "poisson", NULL};
static const char *const proxy_names[] = {"v1", "v2", NULL};
static const char *const resume_names[] = {"any", "id", "ticket", NULL};
static const char *const psk_names[] = {"psk_dhe_ke", "psk_ke", "any", NULL};
static const char *const close_names[] = {"fin", "notify", "rst", NULL};

static const char *parse_cpus(void *target, const char *value) {
    return cpu_list_parse(target, value);
}

static const char *parse_requests(void *target, const char *value) {
    uint64_t *requests = target;

    requests_given = true;
    if (strcmp(value, "inf") == 0)
        *requests = UINT64_MAX;
    else if (!parse_uint(value, requests))
        return "must be a whole number or inf";
    return NULL;
}

static const char *parse_rate(void *target, const char *value) {
    char *end;
    double rate = isdigit((unsigned char)*value) ? strtod(value, &end) : 0;

    if (rate <= 0 || *end || rate > RATE_MAX || strpbrk(value, "xX"))
        return "must be a number above 0, at most 10000000";
    *(double *)target = rate;
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
     .max = CONNECTIONS_MAX},
    {"workers", 'w', OPTION_UINT, "N", "processes (1)", &plan.workers, .min = 1, .max = PREFORK_WORKERS_MAX},
    {"cpus", 0, OPTION_PARSE, "LIST", "run worker i on the i-th CPU of the list, such as 0-2,4", &plan.cpus,
     .parse = parse_cpus},
    {"duration", 'd', OPTION_DURATION, "T", "how long to measure (10s, or without end if -n is given)",
     &plan.duration_ns, .min = NS_PER_MS},
    {"warmup", 0, OPTION_DURATION, "T", "load of the same kind before that, not measured (0)", &plan.warmup_ns},
    {"ramp", 0, OPTION_DURATION, "T",
     "reach the full load in this time, before the warm-up and not measured: the connections begin one after the "
     "other, "
     "and --rate rises from 0 in a straight line (0)",
     &plan.pacing.ramp_ns},
    {"requests", 'n', OPTION_UINT, "N",
     "stop after N transactions were begun in the measured time (connections, with --requests-per-connection 0), "
     "failed "
     "ones included; with -d: whichever comes first",
     &plan.pacing.limit, .min = 1},
    {"requests-per-connection", 0, OPTION_PARSE, "N|inf",
     "transactions on each connection (1); 0: handshake only; inf: keep-alive", &plan.requests_per_connection,
     .parse = parse_requests},
    {"rate", 0, OPTION_PARSE, "R",
     "open loop: R new transactions a second, over all workers, whatever the target does (connections, if each has one "
     "transaction or none). One that finds all -c connections at work waits for the first that is free: it is late, "
     "and "
     "that is part of its latency, which counts from the moment when it was to begin. What waits at the end may still "
     "begin for 2 s",
     &plan.pacing.rate_per_s, .parse = parse_rate},
    {"arrivals", 0, OPTION_CHOICE, "fixed|poisson",
     "with --rate: evenly spaced (fixed), or at random, independent of each other, in the same order in every run",
     &arrivals_choice, .choices = arrivals_names},
    {"burst", 0, OPTION_UINT, "N",
     "N connections at once, one transaction each (or none), then stop; their latency counts from that one moment. "
     "With "
     "--warmup T they are opened in that time and rest, and what leaves at once, at its end, is their requests",
     &burst, .min = 1, .max = CONNECTIONS_MAX},
    {"hold", 0, OPTION_FLAG, NULL,
     "keep -c connections open for the duration: each has a transaction when it is opened, and then one in every "
     "--hold-interval, in turn: those of 50ms, or of a twentieth of the interval if that is less, at one moment. One "
     "that is lost is an error, and opened again",
     &plan.hold},
    {"hold-interval", 0, OPTION_DURATION, "T", "how often each held connection is asked whether it is alive (30s)",
     &plan.hold_interval_ns, .min = NS_PER_MS},
    {"coalesce", 0, OPTION_DURATION, "T",
     "closed loop and --hold: handle what happens in batches, one every T. A generator that is mostly idle costs less "
     "for it; latencies are up to T longer at each step (0; with --hold 2ms)",
     &coalesce_ns, .max = 100 * NS_PER_MS},
    {"timeout", 0, OPTION_DURATION, "T", "longest connect, handshake or standstill of a transaction (10s)",
     &plan.timeout_ns, .min = NS_PER_MS},
    {"close", 0, OPTION_CHOICE, "fin|notify|rst",
     "how a connection is ended: close_notify and FIN, then reading until the target closes too, 1 s at most (notify); "
     "the same without close_notify; or at once with RST",
     &close_choice, .choices = close_names},
    {"sticky", 0, OPTION_FLAG, NULL,
     "each of the -c connection slots stays with one of several URLs instead of using them in turn. One that refuses a "
     "connection, or does not answer in time, is not used any more: its slots go on with the others",
     &plan.sticky},
    {"unix", 0, OPTION_STRING, "PATH", "connect to this UNIX socket instead", &plan.unix_path},
    {"source", 0, OPTION_PARSE, "CIDR",
     "connect from the addresses of this network in turn, such as 127.1.0.0/16 or ::1: each has local ports of its own",
     &plan.source, .parse = source_parse},
    {"proxy-protocol", 0, OPTION_CHOICE, "v1|v2",
     "begin each connection with a PROXY header that tells its own two addresses (of a UNIX socket: UNKNOWN or LOCAL)",
     &proxy_choice, .choices = proxy_names},
    {"i-own-the-target", 0, OPTION_FLAG, NULL, "required for every target that is not loopback", &owns_target},
    {.help = "TLS (https:// only)"},
    {"engine", 0, OPTION_CHOICE, "light|openssl",
     "what speaks TLS: light costs a fraction of the server's CPU, and its connections HAVE NO SECRECY: their keys can "
     "be computed from their packets, and certificates are measured, not verified; openssl is an ordinary client "
     "(light, or openssl where light does not speak what is asked, which is then said)",
     &engine_choice, .choices = engine_names},
    {"key-share", 0, OPTION_CHOICE, "base|reuse|fresh",
     "light engine: send the group's base point, which costs nothing (base), one key pair made at the start, or a new "
     "one for each connection; to the server they are the same",
     &key_share_choice, .choices = key_share_names},
    {"reuse", 0, OPTION_PARSE, "never|always|every:N",
     "each of the -c connection slots begins a new TLS session with every connection (never), with its first only, or "
     "with exactly one in N. Slots share nothing, so the first connection of each is always a full handshake, -c in "
     "all; "
     "--warmup or --ramp keeps them out of the measured time. A session that fails to arrive or is refused means "
     "another "
     "full one",
     &plan.sessions, .parse = session_policy_parse},
    {"resume-with", 0, OPTION_CHOICE, "id|ticket|any",
     "keep only sessions that resume in this way (any); id means TLS 1.2 or older", &resume_choice,
     .choices = resume_names},
    {"psk-mode", 0, OPTION_CHOICE, "psk_dhe_ke|psk_ke|any",
     "how TLS 1.3 sessions are offered to be resumed: with a new key exchange (psk_dhe_ke), without (psk_ke, light "
     "engine "
     "only), or as the server likes. One that does not resume so means a full handshake, so a key share is always sent",
     &psk_choice, .choices = psk_names},
    {"tls-version", 0, OPTION_STRING, "V", "the only version to speak: TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3",
     &tls_version},
    {"cipher", 0, OPTION_STRING, "NAME",
     "a TLS 1.3 suite, or a colon-separated list for the older versions; either "
     "leaves the other versions out",
     &tls.cipher},
    {"group", 0, OPTION_STRING, "NAME", "key exchange group(s), colon-separated, such as X25519", &tls.groups},
    {"sigalgs", 0, OPTION_STRING, "NAMES", "signature algorithms to offer, colon-separated", &tls.sigalgs},
    {"sni", 0, OPTION_STRING, "NAME", "server name to send (the URL's host, unless it is an address)", &sni},
    {"alpn", 0, OPTION_STRING, "NAMES", "protocols to offer, comma-separated; which was chosen is in the result",
     &tls.alpn},
    {"verify-peer", 0, OPTION_FLAG, NULL,
     "check certificates: one that does not verify, or is for another name or address than the URL's (or --sni's), is "
     "tls_protocol",
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
    {"histogram", 0, OPTION_STRING, "FILE",
     "write the transaction latencies as a percentile distribution in milliseconds, in the layout of HdrHistogram's "
     ".hgrm files (-: standard output)",
     &plan.histogram_file},
    {"progress", 0, OPTION_FLAG, NULL, "a line a second on standard error", &plan.progress},
    {"help", 'h', OPTION_HELP, NULL, "print this and exit", NULL},
    {"version", 'V', OPTION_VERSION, NULL, "print the version and exit", NULL},
};

static const struct option_table table = {
    .program = "loadgen",
    .usage = "[options] URL [URL ...]",
    .summary =
        "Puts load on an HTTP or HTTPS server and counts what it got. Several URLs are used in turn, connection by\n"
        "connection, sharing TLS sessions. Without --rate, --burst or --hold it is a closed loop: each of the -c\n"
        "connections begins the next transaction when its last has ended, so a slow target is asked less, and "
        "latencies\n"
        "do not show what a stall would have done to load that keeps coming.\n\n"
        "Latencies: connect is from connect() to connected, a handshake from there until it is done. Closed loop: ttfb "
        "is\n"
        "from the beginning of the request to the first byte of the response, transaction from the same moment to its\n"
        "last byte (so connect + handshake + transaction is the whole of a connection with one transaction). Open "
        "loop:\n"
        "ttfb and transaction count from the moment at which the transaction was to begin; with one transaction a\n"
        "connection or none, that is when the connection was to begin, so they contain connect and handshake.\n"
        "start_delay is from that moment to the real beginning, service from there to the end, and connection, for\n"
        "--requests-per-connection 0, from that moment to the end of the handshake. Bytes are those of HTTP, without "
        "TLS.\n\n"
        "Exit status: 0 measured without errors, 1 measured with errors, 2 bad usage, 3 nobody listens there.",
    .options = options,
    .count = sizeof options / sizeof *options,
};

/* ---- Do they go together? ---- */

struct given {
    const char *option;
    bool given;
};

/* Ends the program if one of the options was given beside this one; the last has no name. */
static void refuse_beside(const char *option, const struct given *others) {
    for (; others->option; others++)
        if (others->given)
            fail(EXIT_USAGE, "%s: cannot be combined with %s", option, others->option);
}

static void check_burst(void) {
    refuse_beside("--burst", (const struct given[]){{"--connections", plan.connections > 0},
                                                    {"--duration", plan.duration_ns > 0},
                                                    {"--requests", plan.pacing.limit > 0},
                                                    {"--ramp", plan.pacing.ramp_ns > 0},
                                                    {"--rate", plan.pacing.rate_per_s > 0},
                                                    {"--hold", plan.hold},
                                                    {NULL, false}});
    if (plan.requests_per_connection > 1)
        fail(EXIT_USAGE, "--burst: %" PRIu64 ": is one transaction a connection, or none (--requests-per-connection)",
             burst);
    if (plan.warmup_ns && plan.requests_per_connection == 0)
        fail(EXIT_USAGE, "--warmup: there is nothing to open before a --burst of handshakes");
    plan.pacing.arrivals = ARRIVALS_BURST;
    plan.connections = plan.pacing.limit = burst;
}

/* Held connections are the slots of a slow open loop: they take turns, so each has its turn once in the interval. */
static void check_hold(void) {
    refuse_beside("--hold", (const struct given[]){{"--rate", plan.pacing.rate_per_s > 0},
                                                   {"--requests", plan.pacing.limit > 0},
                                                   {"--requests-per-connection", requests_given},
                                                   {NULL, false}});
    if (!plan.hold_interval_ns)
        plan.hold_interval_ns = HOLD_INTERVAL_NS;
    plan.requests_per_connection = UINT64_MAX;
    plan.pacing.arrivals = ARRIVALS_FIXED;
    plan.pacing.rate_per_s = (double)plan.connections * 1e9 / (double)plan.hold_interval_ns;
    /* Nobody who holds thousands of connections asks each at its own microsecond, and each would wake us up. */
    plan.pacing.batch_ns = plan.hold_interval_ns / HOLD_BATCHES;
    if (plan.pacing.batch_ns > HOLD_BATCH_NS)
        plan.pacing.batch_ns = HOLD_BATCH_NS;
    if (coalesce_ns == UINT64_MAX)
        coalesce_ns = HOLD_COALESCE_NS;
}

static void check_load(void) {
    if (arrivals_choice >= 0 && plan.pacing.rate_per_s <= 0)
        fail(EXIT_USAGE, "--arrivals: %s: is used with --rate only", arrivals_names[arrivals_choice]);
    if (plan.hold_interval_ns && !plan.hold)
        fail(EXIT_USAGE, "--hold-interval: is used with --hold only");
    if (burst)
        check_burst();
    else if (!plan.duration_ns && !plan.pacing.limit)
        plan.duration_ns = 10 * NS_PER_S;
    if (!plan.connections)
        plan.connections = CONNECTIONS_UNSAID;
    if (plan.hold)
        check_hold();
    else if (plan.pacing.rate_per_s > 0)
        plan.pacing.arrivals = arrivals_choice == 1 ? ARRIVALS_POISSON : ARRIVALS_FIXED;
    if (coalesce_ns != UINT64_MAX)
        plan.coalesce_ns = coalesce_ns;
    if (plan.coalesce_ns && plan.pacing.arrivals != ARRIVALS_NONE && !plan.hold)
        fail(EXIT_USAGE, "--coalesce: not in the open loop, where every arrival has its moment");
    plan.opens_ahead =
        burst ? plan.warmup_ns > 0 : plan.pacing.arrivals != ARRIVALS_NONE && plan.requests_per_connection > 1;
    if (plan.histogram_file && plan.requests_per_connection == 0)
        fail(EXIT_USAGE, "--histogram: %s: there are no transactions with --requests-per-connection 0",
             plan.histogram_file);
    if (proxy_choice >= 0)
        plan.proxy_protocol = proxy_choice == 0 ? PROXY_PROTOCOL_V1 : PROXY_PROTOCOL_V2;
}

static void check_source(void) {
    char text[ADDRESS_TEXT_MAX];
    struct address culprit;

    if (plan.source.count == 0)
        return;
    if (plan.unix_path)
        fail(EXIT_USAGE, "--source: cannot be combined with --unix");
    for (int i = 0; i < plan.targets; i++) {
        int error = source_check(&plan.source, &plan.target[i].address, &culprit);
        if (!error)
            continue;
        fail(EXIT_USAGE, "--source: %s cannot be the source of a connection to %s: %s", source_format(&culprit, text),
             plan.target[i].url, strerror(error));
    }
}

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
        {"--ca", tls.ca_file != NULL},         {"--key-share", key_share_choice >= 0},
        {"--psk-mode", psk_choice >= 0},
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
    if (plan.sticky && count == 1)
        fail(EXIT_USAGE, "--sticky: is used with several URLs only");
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

static void choose_engine(void) {
    const char *light = NULL, *reason;

    if (engine_choice != ENGINE_OPENSSL) {
        light = engine_light_new(&plan.engine, &plan.engine_config);
        if (!light)
            return;
        if (engine_choice == ENGINE_LIGHT || key_share_choice >= 0)
            fail(EXIT_USAGE, "%s", light);
    } else if (key_share_choice >= 0) {
        fail(EXIT_USAGE, "--key-share: %s: is used with --engine light only", key_share_names[key_share_choice]);
    }
    reason = engine_openssl_new(&plan.engine, &plan.engine_config);
    if (reason)
        fail(EXIT_USAGE, "%s", reason);
    if (light)
        log_info("engine openssl, not light: %s", light);
}

static void check_tls(void) {
    plan.engine_config = tls;
    plan.engine_config.resume = plan.sessions.reuse != REUSE_NEVER;
    plan.engine_config.resume_with = resume_choice < 0 ? RESUME_WITH_ANY : (enum resume_with)resume_choice;
    plan.engine_config.session_arrived = client_session_arrived;
    if (sni && strlen(sni) > SERVER_NAME_MAX)
        fail(EXIT_USAGE, "--sni: %zu letters: a server name has %d at most", strlen(sni), SERVER_NAME_MAX);
    plan.server_name = sni;
    if (tls_version) {
        plan.engine_config.tls_version = tls_version_parse(tls_version);
        if (!plan.engine_config.tls_version)
            fail(EXIT_USAGE, "--tls-version: %s: must be one of TLSv1 TLSv1.1 TLSv1.2 TLSv1.3", tls_version);
    }
    if (resume_choice >= 0 && !plan.engine_config.resume)
        fail(EXIT_USAGE, "--resume-with: %s: nothing is resumed with --reuse never", resume_names[resume_choice]);
    if (psk_choice >= 0 && !plan.engine_config.resume)
        fail(EXIT_USAGE, "--psk-mode: %s: nothing is resumed with --reuse never", psk_names[psk_choice]);
    plan.engine_config.psk_mode = psk_choice < 0 ? PSK_MODE_DHE_KE : (enum psk_mode)psk_choice;
    if (tls.ca_file && !tls.verify_peer)
        fail(EXIT_USAGE, "--ca: %s: is used with --verify-peer only", tls.ca_file);
    if (tls.ca_file && access(tls.ca_file, R_OK) != 0)
        fail(EXIT_USAGE, "--ca: %s: %s", tls.ca_file, strerror(errno));
    if (plan.close_how == CLOSE_RST && plan.requests_per_connection == 0 && plan.engine_config.resume)
        fail(EXIT_USAGE, "--close: rst: a TLS 1.3 ticket comes after the handshake, and RST would lose it");
    plan.engine_config.key_share = key_share_choice < 0 ? KEY_SHARE_BASE : (enum key_share_kind)key_share_choice;
    /* Nothing may follow where the connection rests, or is ended by the socket alone. */
    plan.engine_config.flush_handshake =
        plan.opens_ahead || (plan.requests_per_connection == 0 && plan.close_how != CLOSE_NOTIFY);
    choose_engine();
}

static void check_descriptors(void) {
    uint64_t needed = (plan.connections + plan.workers - 1) / plan.workers + OTHER_DESCRIPTORS;
    struct rlimit limit;

    if (plan.connections < plan.workers)
        fail(EXIT_USAGE, "--connections: %" PRIu64 ": fewer than the %" PRIu64 " workers", plan.connections,
             plan.workers);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    if (limit.rlim_cur < needed + LINGERERS_MAX) {
        limit.rlim_cur = limit.rlim_max < needed + LINGERERS_MAX ? limit.rlim_max : (rlim_t)(needed + LINGERERS_MAX);
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur < needed)
        fail(EXIT_USAGE,
             "--connections: %" PRIu64 ": a worker needs %" PRIu64 " descriptors, and the limit is %" PRIu64
             " (ulimit -n, or more --workers)",
             plan.connections, needed, (uint64_t)limit.rlim_cur);
    plan.lingerers = limit.rlim_cur - needed < LINGERERS_MAX ? (int)(limit.rlim_cur - needed) : LINGERERS_MAX;
}

static void check_files(void) {
    const struct {
        const char *option, *file;
    } files[] = {{"--json", plan.json_file}, {"--series", plan.series_file}, {"--histogram", plan.histogram_file}};

    for (int i = 0; i < 3; i++) {
        output_check(files[i].option, files[i].file);
        for (int j = 0; j < i; j++)
            if (files[i].file && files[j].file && strcmp(files[i].file, files[j].file) == 0)
                fail(EXIT_USAGE, "%s: %s: %s writes there already", files[i].option, files[i].file, files[j].option);
    }
}

int main(int argc, char **argv) {
    int operand;

    log_open("loadgen");
    operand = options_parse(&table, argc, argv);
    plan.close_how = (enum close_how)close_choice;
    check_load();
    read_targets(argc - operand, argv + operand);
    if (plan.target[0].tls) {
        check_tls();
    } else {
        check_plain_http();
        plan.engine = engine_plain_new();
    }
    check_http();
    check_descriptors();
    check_source();
    ports_check(&plan);
    check_files();
    return master_run(&plan);
}
