/* SPDX-License-Identifier: MIT */
#include "address.h"
#include "affinity.h"
#include "descriptor_limit.h"
#include "log.h"
#include "options.h"
#include "prefork.h"
#include "ring.h"
#include "server.h"
#include "service_model.h"
#include "tls_credentials.h"
#include "units.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum mode { MODE_HTTP, MODE_HTTPS, MODE_SOCK };
static const char *const mode_names[] = {"http", "https", "sock", NULL};

static const char *listen_text, *certificate_file, *key_file;
static int tls_min, tls_max;
static uint64_t workers = 1, backlog = 4096, idle_timeout_ns = 300 * NS_PER_S;
static struct cpu_list cpus;
static int io_uring = 1; /* index into off_on */
static const char *const off_on[] = {"off", "on", NULL};
static bool quiet, accept_proxy, accept_ip, accept_ipv4;
static struct service_model service_model;

static const char *parse_cpus(void *target, const char *value) {
    return cpu_list_parse(target, value);
}

static const char *parse_tls_version(void *target, const char *value) {
    *(int *)target = tls_version_parse(value);
    return *(int *)target ? NULL : "not one of TLSv1, TLSv1.1, TLSv1.2 and TLSv1.3";
}

static const struct option_spec options[] = {
    {.help = "sockets and workers"},
    {"listen", 'l', OPTION_STRING, "ADDR",
     "HOST:PORT, [HOST]:PORT or *:PORT, of sock the path of its socket file. Port 0 is any free one. "
     "(127.0.0.1:0; sock has no default)",
     &listen_text, NULL, NULL, 0, 0},
    {"workers", 'n', OPTION_UINT, "N", "worker processes (1)", &workers, NULL, NULL, 1, PREFORK_WORKERS_MAX},
    {"cpus", 0, OPTION_PARSE, "LIST", "worker i runs on the i-th of these CPUs, such as 0-2,4", &cpus, NULL, parse_cpus,
     0, 0},
    {"backlog", 'B', OPTION_UINT, "N", "connections that may wait for a worker (4096)", &backlog, NULL, NULL, 1,
     1 << 20},
    {"idle-timeout", 0, OPTION_DURATION, "TIME", "close a connection on which nothing moved for so long (5m)",
     &idle_timeout_ns, NULL, NULL, NS_PER_MS, 0},
    {"io-uring", 0, OPTION_CHOICE, "on|off",
     "answer requests that repeat through io_uring, where the system has it and allows it; see `io_uring` in /whoami "
     "(on)",
     &io_uring, off_on, NULL, 0, 0},
    {.help = "what a proxy says of its client before the request, or before TLS; a connection without it is refused"},
    {"accept-proxy", 0, OPTION_FLAG, NULL, "a PROXY header of version 1 or 2 (proxy: --write-proxy)", &accept_proxy,
     NULL, NULL, 0, 0},
    {"accept-ip", 0, OPTION_FLAG, NULL,
     "the address family in one octet, as this system numbers it, and the 4 or 16 octets of the address (proxy: "
     "--write-ip)",
     &accept_ip, NULL, NULL, 0, 0},
    {"accept-ipv4", 0, OPTION_FLAG, NULL, "the four octets of an IPv4 address (proxy: --write-ipv4)", &accept_ipv4,
     NULL, NULL, 0, 0},
    {.help = "how long a request takes"},
    {"service-model", 0, OPTION_PARSE, "MODEL",
     "none, fixed:TIME, or quadratic:MIN,DIVISOR: the larger of MIN and n^2/DIVISOR ms, with n requests in flight in "
     "the whole server. (none)",
     &service_model, NULL, service_model_parse, 0, 0},
    {.help = "https"},
    {"cert", 0, OPTION_STRING, "FILE", "certificate and its chain, PEM", &certificate_file, NULL, NULL, 0, 0},
    {"key", 0, OPTION_STRING, "FILE", "its private key, PEM (the file of --cert)", &key_file, NULL, NULL, 0, 0},
    {"tls-min", 0, OPTION_PARSE, "VERSION", "oldest version that is spoken (TLSv1.2)", &tls_min, NULL,
     parse_tls_version, 0, 0},
    {"tls-max", 0, OPTION_PARSE, "VERSION", "newest version that is spoken (TLSv1.3)", &tls_max, NULL,
     parse_tls_version, 0, 0},
    {.help = "this program"},
    {"quiet", 'q', OPTION_FLAG, NULL, "only errors on standard error", &quiet, NULL, NULL, 0, 0},
    {"version", 'V', OPTION_VERSION, NULL, "the version", NULL, NULL, NULL, 0, 0},
    {"help", 'h', OPTION_HELP, NULL, "this help; what can be asked of the server is at /?h", NULL, NULL, NULL, 0, 0},
};

static const struct option_table table = {
    .program = "echo-backend",
    .usage = "http|https|sock [options]",
    .summary =
        "The origin of the benchmarks: echoes the body of a POST or PUT, and answers GET and HEAD with an object\n"
        "as the query asks for it (/?s=16k). sock is http on a UNIX socket.",
    .options = options,
    .count = sizeof options / sizeof *options,
};

static enum mode read_mode(int argc, char **argv) {
    int operand = options_parse(&table, argc, argv);

    if (operand == argc)
        fail(EXIT_USAGE, "mode: none given: must be one of http https sock");
    if (operand + 1 < argc)
        fail(EXIT_USAGE, "%s: one operand too many: the mode is %s already", argv[operand + 1], argv[operand]);
    for (int i = 0; mode_names[i]; i++)
        if (strcmp(mode_names[i], argv[operand]) == 0)
            return (enum mode)i;
    fail(EXIT_USAGE, "%s: unknown mode: must be one of http https sock", argv[operand]);
}

static void read_address(struct address *address, enum mode mode) {
    const char *reason;

    if (!listen_text && mode == MODE_SOCK)
        fail(EXIT_USAGE, "--listen: not given: sock needs the path of its socket file");
    if (!listen_text)
        listen_text = "127.0.0.1:0";
    reason = address_parse(address, listen_text);
    if (!reason && mode == MODE_SOCK && !address_is_local(address))
        reason = "sock needs the path of a socket file, which begins with /";
    if (!reason && mode != MODE_SOCK && address_is_local(address))
        reason = "a UNIX socket is what mode sock is for";
    if (reason)
        fail(EXIT_USAGE, "--listen: %s: %s", listen_text, reason);
}

static SSL_CTX *make_tls_context(void) {
    static SSL_CTX *context; /* static: freed by nobody when one of these refusals ends the program */
    static const unsigned char session_context[] = "echo-backend";
    const char *reason;

    if (!certificate_file)
        fail(EXIT_USAGE, "--cert: not given: https needs a certificate");
    context = SSL_CTX_new(TLS_server_method());
    if (!context)
        fail(EXIT_FAILED, "the TLS library gives no context");
    /* Benchmarks use keys and versions that nobody should use any more. */
    SSL_CTX_set_security_level(context, 0);
    if (!SSL_CTX_set_min_proto_version(context, tls_min ? tls_min : TLS1_2_VERSION) ||
        !SSL_CTX_set_max_proto_version(context, tls_max ? tls_max : TLS1_3_VERSION) ||
        (tls_min && tls_max && tls_min > tls_max))
        fail(EXIT_USAGE, "--tls-min, --tls-max: no such range: the TLS library does not speak it");
    reason = tls_credentials_load(context, certificate_file, key_file);
    if (reason)
        fail(EXIT_USAGE, "%s", reason);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1); /* else each record is two system calls */
    /* Resumption is by tickets, whose keys all workers share: a cache of sessions would be each worker's own. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(context, session_context, sizeof session_context - 1);
    SSL_CTX_set_num_tickets(context, 1);
    return context;
}

static enum prologue_kind read_prologue(void) {
    if (accept_proxy + accept_ip + accept_ipv4 > 1)
        fail(EXIT_USAGE, "--accept-proxy, --accept-ip, --accept-ipv4: only one of them can come first");
    return accept_proxy ? PROLOGUE_PROXY : accept_ip ? PROLOGUE_IP : accept_ipv4 ? PROLOGUE_IPV4 : PROLOGUE_NONE;
}

/*
 * libev calls this one instead of the C library's. It has no way to be told how to wait, nor to be asked for its
 * descriptor and for how long.
 */
int epoll_wait(int epoll_fd, struct epoll_event *events, int events_max, int timeout_ms) {
    return ring_wait(epoll_fd, events, events_max, timeout_ms);
}

static void worker_ended(const struct prefork_worker *worker, int wait_status, void *context) {
    (void)wait_status;
    const struct server *server = context;

    if (server->service)
        service_worker_ended(server->service, worker->index);
}

static int run_worker(const struct prefork_worker *self, struct ev_loop *loop, void *context) {
    return server_run(self->index, loop, context);
}

int main(int argc, char **argv) {
    static int listeners[PREFORK_WORKERS_MAX];
    static struct prefork pool;
    struct server server = {.listeners = listeners};
    struct address address;
    char text[ADDRESS_TEXT_MAX];
    enum mode mode;

    log_open("echo-backend");
    mode = read_mode(argc, argv);
    log_quiet(quiet);
    read_address(&address, mode);
    if (mode == MODE_HTTPS)
        server.tls = make_tls_context();
    else if (certificate_file || key_file || tls_min || tls_max)
        fail(EXIT_USAGE, "--cert, --key, --tls-min, --tls-max: given with %s: only https uses them", mode_names[mode]);
    server.workers = (int)workers;
    server.local = address_is_local(&address);
    server.io_uring = io_uring;
    server.idle_timeout_ns = idle_timeout_ns;
    server.prologue = read_prologue();
    descriptor_limit_raise();
    if (!address_listen(&address, (int)backlog, listeners, server.workers))
        fail(EXIT_USAGE, "--listen: %s: %s", listen_text, strerror(errno));

    if (service_model.kind != SERVICE_NONE)
        server.service = service_new(&service_model, server.workers);
    if (!server.local)
        for (int i = 0; i < server.workers; i++)
            address_set_reno(listeners[i]);
    pool.workers = server.workers;
    pool.cpus = &cpus;
    pool.respawn = true;
    pool.run = run_worker;
    pool.ended = worker_ended;
    pool.context = &server;
    prefork_start(&pool, ev_default_loop(0));
    printf("listening on %s\n", address_format(&address, text));
    fflush(stdout);
    ev_run(ev_default_loop(0), 0);

    if (server.local)
        unlink(address.sockaddr.local.sun_path);
    SSL_CTX_free(server.tls);
    return 0;
}
