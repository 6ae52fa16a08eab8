/* SPDX-License-Identifier: MIT */
/*
 * tls-floor: what the TLS library alone costs a server for a handshake and its records, with no socket, no event loop
 * and no second process. It is the limit that a terminator linked with the same library can come near to. On a
 * connection that stays, nearly all of a terminator's cost is the kernel's, so the limit of that is a bare relay, with
 * its system calls (--mode relay, tls_floor_relay.c).
 *
 * Otherwise client and server are in this process and talk over BIO pairs. Only the server's side is timed: a batch of
 * connections goes through the same stage together, first all clients, then all servers, and the CPU clock of the
 * process is read before and after all the servers' steps. So its own cost, some 300 ns, is spread over the batch.
 */
#include "affinity.h"
#include "clock.h"
#include "log.h"
#include "options.h"
#include "tls_credentials.h"
#include "tls_floor_relay.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH      32
#define PIPE_BYTES (64 * 1024) /* as much as is under way in one direction */
#define PIECE      (16 * 1024)

enum mode { MODE_FULL, MODE_RESUMED, MODE_KEEP_ALIVE, MODE_RELAY };
static const char *const mode_names[] = {"full", "resumed", "keep-alive", "relay", NULL};
enum origin { ORIGIN_TCP, ORIGIN_UNIX };
static const char *const origin_names[] = {"tcp", "unix", NULL};
enum resume_with { RESUME_WITH_ANY, RESUME_WITH_ID, RESUME_WITH_TICKET };
static const char *const resume_names[] = {"any", "id", "ticket", NULL};

static const char *certificate_file, *key_file, *version_text, *cipher, *group, *json_file;
static int mode = -1, resume_with = -1, origin = -1, version;
static uint64_t request_bytes = UINT64_MAX, response_bytes = UINT64_MAX, duration_ns = NS_PER_S;
static struct cpu_list cpus;

static const char *parse_cpus(void *target, const char *value) {
    return cpu_list_parse(target, value);
}

static const struct option_spec options[] = {
    {"cert", 0, OPTION_STRING, "FILE", "the server's certificate with its chain, PEM", &certificate_file},
    {"key", 0, OPTION_STRING, "FILE", "its private key (in the certificate's file)", &key_file},
    {"tls-version", 0, OPTION_STRING, "V", "TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3", &version_text},
    {"cipher", 0, OPTION_STRING, "NAME", "the only cipher (what the library prefers)", &cipher},
    {"group", 0, OPTION_STRING, "NAME", "the only key exchange group (what the library prefers)", &group},
    {"resume-with", 0, OPTION_CHOICE, "id|ticket|any", "with --mode resumed (any: by ticket)", &resume_with,
     .choices = resume_names},
    {"mode", 0, OPTION_CHOICE, "full|resumed|keep-alive|relay",
     "an operation is a connection with such a handshake, one request and one response, from SSL_new to SSL_free; or a "
     "request and its response on a connection that stays (keep-alive); or that through a bare relay, from TLS over "
     "TCP "
     "to a plain socket and back, with the system calls that this takes (relay)",
     &mode, .choices = mode_names},
    {"origin", 0, OPTION_CHOICE, "tcp|unix", "with --mode relay: the plain socket (tcp)", &origin,
     .choices = origin_names},
    {"request-bytes", 0, OPTION_SIZE, "N", "application bytes of a request, head and body", &request_bytes, .min = 1},
    {"response-bytes", 0, OPTION_SIZE, "N", "application bytes of a response, head and body", &response_bytes,
     .min = 1},
    {"duration", 0, OPTION_DURATION, "T", "how long to measure, both sides included (1s)", &duration_ns,
     .min = NS_PER_MS},
    {"cpus", 0, OPTION_PARSE, "LIST", "run on the first of these CPUs, the relay's peers on the last", &cpus,
     .parse = parse_cpus},
    {"json", 0, OPTION_STRING, "FILE", "write the result as one JSON object (-: standard output)", &json_file},
    {"help", 'h', OPTION_HELP, NULL, "print this and exit", NULL},
    {"version", 'V', OPTION_VERSION, NULL, "print the version and exit", NULL},
};

static const struct option_table table = {
    .program = "tls-floor",
    .usage = "--cert FILE --tls-version V --mode MODE --request-bytes N --response-bytes N [options]",
    .summary =
        "Measures the CPU time that the TLS library alone takes on a server's side, in memory, or a bare relay on\n"
        "loopback.\n"
        "Exit status: 0 measured, 1 the library did not do what was asked, 2 bad usage.",
    .options = options,
    .count = sizeof options / sizeof *options,
};

static SSL_CTX *client_context, *server_context;

/* One connection of the batch, used again and again. */
struct pair {
    SSL *client, *server;
    BIO *client_bio, *server_bio; /* the two ends; kept from connection to connection */
    SSL_SESSION *session;         /* the client's newest */
    uint64_t client_got, server_got, client_put, server_put;
    bool client_shaken, server_shaken, server_done;
};

static struct pair pairs[BATCH];
static uint64_t server_cpu_ns; /* of the relay in its mode */
static uint64_t both_cpu_ns;   /* server and client (and origin), of the measured time */
static char zeros[PIECE], scratch[PIECE];

_Noreturn static void fail_tls(const char *what) {
    unsigned long code = ERR_peek_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    fail(EXIT_FAILED, "%s: %s", what, reason ? reason : "failed");
}

/* ---- Set-up ---- */

static int keep_session(SSL *ssl, SSL_SESSION *session) {
    struct pair *pair = SSL_get_app_data(ssl);

    SSL_SESSION_free(pair->session);
    pair->session = session;
    return 1;
}

static int accept_any_certificate(X509_STORE_CTX *store, void *argument) {
    (void)store, (void)argument;
    return 1;
}

static SSL_CTX *new_context(const SSL_METHOD *method) {
    SSL_CTX *context = SSL_CTX_new(method);

    if (!context)
        fail_tls("SSL_CTX_new");
    SSL_CTX_set_security_level(context, 0); /* old versions and small keys are there to be measured */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    if (SSL_CTX_set_min_proto_version(context, version) != 1 || SSL_CTX_set_max_proto_version(context, version) != 1)
        fail(EXIT_USAGE, "--tls-version: %s: not spoken by %s", version_text, OpenSSL_version(OPENSSL_VERSION));
    if (cipher && (version >= TLS1_3_VERSION ? SSL_CTX_set_ciphersuites(context, cipher)
                                             : SSL_CTX_set_cipher_list(context, cipher)) != 1)
        fail(EXIT_USAGE, "--cipher: %s: is unknown to %s for %s", cipher, OpenSSL_version(OPENSSL_VERSION),
             version_text);
    if (group && SSL_CTX_set1_groups_list(context, group) != 1)
        fail(EXIT_USAGE, "--group: %s: is unknown to %s", group, OpenSSL_version(OPENSSL_VERSION));
    return context;
}

/*
 * Before TLS 1.3 the groups that a client offers are also those in which it takes the certificate's key (RFC 8422,
 * 5.1): it must offer that one too, and the server has nothing but the one asked for to choose.
 */
static void offer_group_of_certificate(void) {
    EVP_PKEY *key = X509_get0_pubkey(SSL_CTX_get0_certificate(server_context));
    char name[64], groups[128];

    if (!group || version >= TLS1_3_VERSION || EVP_PKEY_get_group_name(key, name, sizeof name, NULL) != 1 ||
        strcmp(tls_group_name(OBJ_txt2nid(name)), group) == 0)
        return;
    snprintf(groups, sizeof groups, "%s:%s", group, name);
    if (SSL_CTX_set1_groups_list(client_context, groups) != 1)
        fail_tls(groups);
}

static void make_contexts(void) {
    bool by_id = resume_with == RESUME_WITH_ID;
    const char *reason;

    server_context = new_context(TLS_server_method());
    reason = tls_credentials_load(server_context, certificate_file, key_file);
    if (reason)
        fail(EXIT_USAGE, "%s", reason);
    /* Two TLS 1.3 tickets after a full handshake: the library's default, and so what most products do. */
    SSL_CTX_set_num_tickets(server_context, 2);
    SSL_CTX_set_session_id_context(server_context, (const unsigned char *)"floor", 5);
    SSL_CTX_set_session_cache_mode(server_context, by_id ? SSL_SESS_CACHE_SERVER : SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(server_context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_RENEGOTIATION);

    client_context = new_context(TLS_client_method());
    offer_group_of_certificate();
    SSL_CTX_set_cert_verify_callback(client_context, accept_any_certificate, NULL);
    if (mode == MODE_RESUMED) {
        SSL_CTX_set_session_cache_mode(client_context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(client_context, keep_session);
    }
    if (mode != MODE_RESUMED || by_id) /* who does not resume asks for no ticket */
        SSL_CTX_set_options(client_context, SSL_OP_NO_TICKET);
}

static void make_pairs(void) {
    for (int i = 0; i < BATCH; i++)
        if (BIO_new_bio_pair(&pairs[i].client_bio, PIPE_BYTES, &pairs[i].server_bio, PIPE_BYTES) != 1)
            fail_tls("BIO_new_bio_pair");
}

static void free_pairs(void) {
    for (int i = 0; i < BATCH; i++) {
        SSL_free(pairs[i].client);
        SSL_free(pairs[i].server);
        BIO_free(pairs[i].client_bio);
        BIO_free(pairs[i].server_bio);
        SSL_SESSION_free(pairs[i].session);
    }
}

/* ---- One side's work ---- */

static SSL *open_side(SSL_CTX *context, BIO *bio) {
    SSL *ssl = SSL_new(context);

    if (!ssl)
        fail_tls("SSL_new");
    BIO_up_ref(bio); /* SSL_free takes one */
    SSL_set_bio(ssl, bio, bio);
    return ssl;
}

static bool is_retry(SSL *ssl, int returned) {
    int error = SSL_get_error(ssl, returned);

    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

/* True when the handshake is done. */
static bool shake(SSL *ssl, const char *side) {
    int done;

    ERR_clear_error();
    done = SSL_do_handshake(ssl);
    if (done != 1 && !is_retry(ssl, done))
        fail_tls(side);
    return done == 1;
}

/* Both return true when *count has come to total. */
static bool put(SSL *ssl, uint64_t *count, uint64_t total, const char *side) {
    while (*count < total) {
        uint64_t left = total - *count;
        size_t length = left < PIECE ? (size_t)left : PIECE, written;
        ERR_clear_error();
        int done = SSL_write_ex(ssl, zeros, length, &written);
        if (done != 1) {
            if (!is_retry(ssl, done))
                fail_tls(side);
            return false;
        }
        *count += written;
    }
    return true;
}

static bool get(SSL *ssl, uint64_t *count, uint64_t total, const char *side) {
    while (*count < total) {
        size_t got;
        ERR_clear_error();
        int done = SSL_read_ex(ssl, scratch, sizeof scratch, &got);
        if (done != 1) {
            if (!is_retry(ssl, done))
                fail_tls(side);
            return false;
        }
        *count += got;
    }
    return true;
}

static void step_client(struct pair *pair) {
    if (!pair->client) {
        pair->client = open_side(client_context, pair->client_bio);
        SSL_set_app_data(pair->client, pair);
        SSL_set_connect_state(pair->client);
        if (pair->session)
            SSL_set_session(pair->client, pair->session);
    }
    if (!pair->client_shaken)
        pair->client_shaken = shake(pair->client, "client: handshake");
    if (!pair->client_shaken)
        return;
    put(pair->client, &pair->client_put, request_bytes, "client: write");
    get(pair->client, &pair->client_got, response_bytes, "client: read");
}

/* Timed: all that a server does for a connection, as far as it can go now. */
static void step_server(struct pair *pair) {
    if (!pair->server) {
        pair->server = open_side(server_context, pair->server_bio);
        SSL_set_accept_state(pair->server);
    }
    if (!pair->server_shaken)
        pair->server_shaken = shake(pair->server, "server: handshake");
    if (!pair->server_shaken || !get(pair->server, &pair->server_got, request_bytes, "server: read") ||
        !put(pair->server, &pair->server_put, response_bytes, "server: write"))
        return;
    pair->server_done = true;
}

/* Timed. */
static void end_server(struct pair *pair) {
    SSL_shutdown(pair->server);
    SSL_free(pair->server);
    pair->server = NULL;
}

/* ---- A batch ---- */

static void check(SSL *server, bool resumed) {
    const char *got_version = SSL_get_version(server), *got_cipher = SSL_get_cipher_name(server);
    /* Before TLS 1.3 a resumption exchanges no key. */
    bool has_group = group && (version >= TLS1_3_VERSION || !resumed);

    if (SSL_session_reused(server) != resumed)
        fail(EXIT_FAILED, "a handshake that was to be %s was %s", resumed ? "resumed" : "full",
             resumed ? "full" : "resumed");
    if (SSL_version(server) != version)
        fail(EXIT_FAILED, "%s was asked for and %s negotiated", version_text, got_version);
    if (cipher && strcmp(cipher, got_cipher) != 0)
        fail(EXIT_FAILED, "%s was asked for and %s negotiated", cipher, got_cipher);
    if (has_group && strcmp(group, tls_group_name((int)SSL_get_negotiated_group(server))) != 0)
        fail(EXIT_FAILED, "%s was asked for and %s negotiated", group,
             tls_group_name((int)SSL_get_negotiated_group(server)));
}

static void check_full(SSL *server) {
    check(server, false);
}

static void begin_transactions(void) {
    for (int i = 0; i < BATCH; i++) {
        struct pair *pair = &pairs[i];
        pair->client_got = pair->client_put = pair->server_got = pair->server_put = 0;
        pair->server_done = false;
    }
}

/* Stage after stage, until each pair has made its transaction. */
static void run_transactions(void) {
    bool done = false;

    while (!done) {
        uint64_t before_ns;
        for (int i = 0; i < BATCH; i++)
            step_client(&pairs[i]);
        done = true;
        before_ns = process_cpu_ns();
        for (int i = 0; i < BATCH; i++)
            if (!pairs[i].server_done)
                step_server(&pairs[i]);
        server_cpu_ns += process_cpu_ns() - before_ns;
        for (int i = 0; i < BATCH; i++)
            done = done && pairs[i].server_done;
    }
    for (int i = 0; i < BATCH; i++) {
        step_client(&pairs[i]);
        if (pairs[i].client_got != response_bytes)
            fail(EXIT_FAILED, "client: %" PRIu64 " of %" PRIu64 " bytes came", pairs[i].client_got, response_bytes);
    }
}

static void end_connections(void) {
    uint64_t before_ns = process_cpu_ns();

    for (int i = 0; i < BATCH; i++)
        end_server(&pairs[i]);
    server_cpu_ns += process_cpu_ns() - before_ns;
    for (int i = 0; i < BATCH; i++) {
        struct pair *pair = &pairs[i];
        SSL_set_shutdown(pair->client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* else its session is dropped */
        SSL_free(pair->client);
        pair->client = NULL;
        pair->client_shaken = pair->server_shaken = false;
        (void)BIO_reset(pair->client_bio);
        (void)BIO_reset(pair->server_bio);
    }
}

static void run_connections(bool resumed) {
    begin_transactions();
    run_transactions();
    for (int i = 0; i < BATCH; i++)
        check(pairs[i].server, resumed);
    end_connections();
}

/* Returns the operations done; server_cpu_ns is what they took. What must be there before is made first, untimed. */
static uint64_t measure_library(char *agreed_cipher, size_t cipher_size, char *agreed_group, size_t group_size) {
    bool resumed = mode == MODE_RESUMED, keep_alive = mode == MODE_KEEP_ALIVE;
    uint64_t ops = 0, end_ns, begin_cpu_ns;

    /* The first batch warms up, gets the sessions that are resumed, and shows what is agreed. */
    begin_transactions();
    run_transactions();
    for (int i = 0; i < BATCH; i++)
        check_full(pairs[i].server);
    snprintf(agreed_cipher, cipher_size, "%s", SSL_get_cipher_name(pairs[0].server));
    snprintf(agreed_group, group_size, "%s", tls_group_name((int)SSL_get_negotiated_group(pairs[0].server)));
    if (resumed && version < TLS1_3_VERSION)
        *agreed_group = '\0';
    if (!keep_alive)
        end_connections();
    server_cpu_ns = 0;
    begin_cpu_ns = process_cpu_ns();
    end_ns = monotonic_ns() + duration_ns;
    do {
        if (keep_alive) {
            begin_transactions();
            run_transactions();
        } else {
            run_connections(resumed);
        }
        ops += BATCH;
    } while (monotonic_ns() < end_ns);
    both_cpu_ns = process_cpu_ns() - begin_cpu_ns;
    return ops;
}

/* As measure_library. */
static uint64_t measure_relay(char *agreed_cipher, size_t cipher_size, char *agreed_group, size_t group_size) {
    const struct relay_plan plan = {.server = server_context,
                                    .client = client_context,
                                    .request_bytes = request_bytes,
                                    .response_bytes = response_bytes,
                                    .duration_ns = duration_ns,
                                    .unix_origin = origin == ORIGIN_UNIX,
                                    .cpus = &cpus,
                                    .check = check_full};
    struct relay_cost cost = {0};

    tls_floor_relay(&plan, &cost);
    snprintf(agreed_cipher, cipher_size, "%s", cost.cipher);
    snprintf(agreed_group, group_size, "%s", cost.group);
    server_cpu_ns = cost.relay_cpu_ns;
    both_cpu_ns = cost.all_cpu_ns;
    return cost.ops;
}

/* ---- Main ---- */

static void check_options(int operands) {
    if (operands)
        fail(EXIT_USAGE, "no operands are taken (see --help)");
    if (!certificate_file)
        fail(EXIT_USAGE, "--cert: must be given");
    if (!version_text)
        fail(EXIT_USAGE, "--tls-version: must be given");
    if (mode < 0)
        fail(EXIT_USAGE, "--mode: must be given");
    if (request_bytes == UINT64_MAX)
        fail(EXIT_USAGE, "--request-bytes: must be given");
    if (response_bytes == UINT64_MAX)
        fail(EXIT_USAGE, "--response-bytes: must be given");
    version = tls_version_parse(version_text);
    if (!version)
        fail(EXIT_USAGE, "--tls-version: %s: must be one of TLSv1 TLSv1.1 TLSv1.2 TLSv1.3", version_text);
    if (resume_with >= 0 && mode != MODE_RESUMED)
        fail(EXIT_USAGE, "--resume-with: %s: nothing is resumed in mode %s", resume_names[resume_with],
             mode_names[mode]);
    if (origin >= 0 && mode != MODE_RELAY)
        fail(EXIT_USAGE, "--origin: %s: there is none in mode %s", origin_names[origin], mode_names[mode]);
    if (resume_with == RESUME_WITH_ID && version >= TLS1_3_VERSION)
        fail(EXIT_USAGE, "--resume-with: id: a TLS 1.3 resumption is always by ticket (PSK)");
}

static void report(uint64_t ops, const char *agreed_cipher, const char *agreed_group) {
    double us_per_op = (double)server_cpu_ns / 1e3 / (double)ops;
    char key[64];

    tls_key_name(X509_get0_pubkey(SSL_CTX_get0_certificate(server_context)), key, sizeof key);
    if (!json_file || strcmp(json_file, "-") != 0)
        printf("%s %s %s %s %s: %.2f us of %s CPU an operation (%" PRIu64 " operations)\n", mode_names[mode],
               version_text, agreed_cipher, agreed_group, key, us_per_op, mode == MODE_RELAY ? "relay" : "server", ops);
    if (!json_file)
        return;
    json_t *result =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:f, s:f}", "mode", mode_names[mode], "tls_version", version_text,
                  "cipher", agreed_cipher, "group", agreed_group, "cert_key", key, "ops", (json_int_t)ops,
                  "cpu_us_per_op", us_per_op, "server_share", (double)server_cpu_ns / (double)both_cpu_ns);
    FILE *out = strcmp(json_file, "-") == 0 ? stdout : fopen(json_file, "w");
    if (!out)
        fail(EXIT_FAILED, "--json: %s: %s", json_file, strerror(errno));
    if (mode == MODE_RESUMED)
        json_object_set_new(
            result, "resume_with",
            json_string(resume_names[resume_with == RESUME_WITH_ID ? RESUME_WITH_ID : RESUME_WITH_TICKET]));
    if (mode == MODE_RELAY)
        json_object_set_new(result, "origin", json_string(origin_names[origin == ORIGIN_UNIX]));
    json_dumpf(result, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    fputc('\n', out);
    json_decref(result);
    if (fflush(out) != 0 || (out != stdout && fclose(out) != 0))
        fail(EXIT_FAILED, "--json: %s: %s", json_file, strerror(errno));
}

int main(int argc, char **argv) {
    char agreed_cipher[64], agreed_group[64];
    uint64_t ops;

    log_open("tls-floor");
    check_options(argc - options_parse(&table, argc, argv));
    make_contexts();
    if (mode == MODE_RELAY) {
        ops = measure_relay(agreed_cipher, sizeof agreed_cipher, agreed_group, sizeof agreed_group);
    } else {
        if (cpus.count && !cpu_list_pin(&cpus, 0))
            fail(EXIT_FAILED, "--cpus: %d: %s", cpus.cpu[0], strerror(errno));
        make_pairs();
        ops = measure_library(agreed_cipher, sizeof agreed_cipher, agreed_group, sizeof agreed_group);
        free_pairs();
    }
    report(ops, agreed_cipher, agreed_group);
    SSL_CTX_free(client_context);
    SSL_CTX_free(server_context);
    return EXIT_MEASURED;
}
