/* SPDX-License-Identifier: MIT */
#include "master.h"

#include "admission.h"
#include "backends.h"
#include "log.h"
#include "prefork.h"
#include "session_store.h"
#include "stats.h"
#include "stats_server.h"
#include "tls_context.h"
#include "worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct master {
    const struct proxy_settings *settings;
    struct address frontend, stats_address; /* with the ports that were given */
    SSL_CTX *tls;
    struct stats stats;
    struct admission *admission;
    struct backends *backends;
    struct prefork pool;
    struct stats_server stats_server;
    int listener[PREFORK_WORKERS_MAX];
    int stats_listener; /* -1: none */
    bool has_pidfile;
};

static int run_worker(int index, struct ev_loop *loop, void *context) {
    struct master *master = context;
    struct worker worker = {
        .loop = loop,
        .settings = master->settings,
        .tls = master->tls,
        .counters = &master->stats.worker[index],
        .index = index,
        .admission.admission = master->admission,
        .backends.backends = master->backends,
    };

    /* Each worker holds its own queue only: a socket is gone when the last holder has closed it. */
    for (int i = 0; i < master->pool.workers; i++)
        if (master->listener[i] != master->listener[index])
            close(master->listener[i]);
    if (master->stats_listener >= 0)
        close(master->stats_listener);
    tls_context_count_in(master->tls, worker.counters);
    return worker_run(&worker, master->listener[index]);
}

static void close_listeners(struct master *master) {
    for (int i = 0; i < master->pool.workers; i++)
        if (i == 0 || master->listener[i] != master->listener[0])
            close(master->listener[i]);
    if (address_is_local(&master->frontend))
        unlink(master->frontend.sockaddr.local.sun_path);
}

/* What the statistics leave in the file system, and the pid file. */
static void remove_files(const struct master *master) {
    if (master->stats_listener >= 0 && address_is_local(&master->stats_address))
        unlink(master->stats_address.sockaddr.local.sun_path);
    if (master->has_pidfile)
        unlink(master->settings->pidfile);
}

static void worker_ended(int index, int wait_status, void *context) {
    (void)wait_status;
    struct master *master = context;

    stats_close_all(&master->stats, index);
    admission_worker_ended(master->admission, index);
}

static void signalled(int signal_number, void *context) {
    struct master *master = context;

    if (signal_number == SIGHUP || (signal_number == SIGTERM && master->pool.ending))
        return;
    if (!master->pool.ending) {
        log_info("%s", signal_number == SIGTERM ? "draining: connections may end" : "stopping");
        close_listeners(master);
    }
    /* Workers ignore SIGINT, which a terminal sends to all of them at once: only the master decides. */
    prefork_end(&master->pool, signal_number == SIGINT ? SIGKILL : signal_number);
}

static bool listen_on(struct address *address, uint64_t backlog, int *fds, int count, const char *option) {
    char text[ADDRESS_TEXT_MAX];

    if (address_listen(address, (int)backlog, fds, count))
        return true;
    log_error("--%s: %s: cannot listen: %s", option, address_format(address, text), strerror(errno));
    return false;
}

static bool write_pidfile(const char *path) {
    FILE *file = fopen(path, "w");

    if (file && fprintf(file, "%d\n", (int)getpid()) > 0 && fclose(file) == 0)
        return true;
    log_error("--pidfile: %s: %s", path, strerror(errno));
    return false;
}

static void announce(const char *what, const struct address *address) {
    char text[ADDRESS_TEXT_MAX];

    printf("%s on %s\n", what, address_format(address, text));
    fflush(stdout);
}

/* All or nothing: what one of them refuses leaves no file of another behind. */
static bool open_all(struct master *master) {
    const struct proxy_settings *settings = master->settings;

    master->stats_address = settings->stats;
    if (settings->has_stats && !listen_on(&master->stats_address, 16, &master->stats_listener, 1, "stats"))
        return false;
    if (listen_on(&master->frontend, settings->backlog, master->listener, master->pool.workers, "frontend")) {
        master->has_pidfile = settings->pidfile && write_pidfile(settings->pidfile);
        if (settings->keepalive_s && !address_is_local(&master->frontend))
            for (int i = 0; i < master->pool.workers; i++)
                address_set_keepalive(master->listener[i], (int)settings->keepalive_s);
        if (master->has_pidfile || !settings->pidfile)
            return true;
        close_listeners(master);
    }
    remove_files(master);
    return false;
}

int master_run(const struct proxy_settings *settings) {
    static struct master master; /* static: its address goes into forked workers and callbacks */
    struct session_store *store = NULL;
    struct ticket_keys *keys = ticket_keys_new();
    const char *reason;

    if (!keys)
        fail(EXIT_FAILED, "session tickets: no random numbers");
    if (settings->session_cache)
        store = session_store_new(settings->session_cache,
                                  settings->client_ca ? SESSION_BYTES_WITH_CERTIFICATE : SESSION_BYTES);

    master.settings = settings;
    master.frontend = settings->frontend;
    master.stats_listener = -1;
    reason = tls_context_new(&master.tls, settings, store, keys);
    if (reason)
        fail(EXIT_USAGE, "%s", reason);
    if (settings->test_only)
        return 0;
    master.pool = (struct prefork){
        .workers = (int)settings->workers,
        .cpus = &settings->cpus,
        .respawn = true,
        .run = run_worker,
        .signalled = signalled,
        .ended = worker_ended,
        .context = &master,
    };
    if (!open_all(&master))
        return EXIT_USAGE;
    stats_init(&master.stats, master.pool.workers);
    master.admission = admission_new(settings->maxconn, master.pool.workers);
    master.backends = backends_new(&settings->backend_addresses);
    prefork_start(&master.pool, EV_DEFAULT);
    ticket_keys_rotate_every(
        keys, EV_DEFAULT, settings->ticket_rotation_ns ? settings->ticket_rotation_ns : settings->session_lifetime_ns);
    backends_refresh(master.backends, settings->backend, settings->backend_refresh_ns, EV_DEFAULT);
    if (settings->has_stats) {
        stats_server_start(&master.stats_server, EV_DEFAULT, master.stats_listener, &master.stats);
        announce("stats", &master.stats_address);
    }
    announce("listening", &master.frontend);
    ev_run(EV_DEFAULT, 0);
    remove_files(&master);
    return 0;
}
