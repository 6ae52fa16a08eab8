/* SPDX-License-Identifier: MIT */
#include "master.h"

#include "access_log.h"
#include "admission.h"
#include "background.h"
#include "configuration.h"
#include "descriptor_limit.h"
#include "log.h"
#include "pidfile.h"
#include "prefork.h"
#include "privileges.h"
#include "resolver.h"
#include "stats.h"
#include "stats_server.h"
#include "sync_process.h"
#include "tls_engine.h"
#include "units.h"
#include "worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* While long connections drain, so many generations of workers may be there at once. */
#define GENERATIONS 8

struct master {
    struct configuration current;
    struct configuration *other; /* in a reload: the one that is not the current one */
    settings_reader *reread;
    struct resumption resumption;
    struct admission *admission;  /* NULL: no limit */
    struct privileges privileges; /* of the workers */
    struct address stats_address; /* with the port that was given */
    struct stats stats;
    struct prefork pool;
    int stats_listener;  /* -1: none */
    int reloads_to_tell; /* workers of before may still take a connection */
};

/* In a forked process: what it keeps beyond its sockets, nobody may write to or has to wait for. */
static void let_go(const struct master *master) {
    pidfile_let_go();
    if (!master->other)
        return;
    if (master->other->access_log >= 0)
        close(master->other->access_log);
    listeners_close(&master->other->listeners, &master->current.listeners);
}

static void drop_privileges(const struct master *master) {
    const char *reason = privileges_drop(&master->privileges);

    if (reason)
        fail(EXIT_FAILED, "%s", reason);
}

/* NULL: out of memory. */
static struct door *make_doors(const struct master *master, const struct prefork_worker *self) {
    const struct listeners *listeners = &master->current.listeners;
    struct door *doors = calloc((size_t)listeners->count, sizeof *doors);

    for (int i = 0; doors && i < listeners->count; i++) {
        const struct listener *listener = listeners->all[i];
        doors[i] = (struct door){
            .tls = master->current.tls.of[i],
            .counters = frontend_stats_of(&master->stats.frontends, self->slot, listener->place),
            .leaving = listener->leaving,
            .listener = listener->fd[self->index],
        };
        address_format(&listener->address, doors[i].name);
    }
    return doors;
}

static int run_worker(const struct prefork_worker *self, struct ev_loop *loop, void *context) {
    struct master *master = context;
    struct configuration *current = &master->current;
    struct worker worker = {
        .loop = loop,
        .settings = current->settings,
        .doors = make_doors(master, self),
        .door_count = current->listeners.count,
        .counters = &master->stats.process[self->slot].counters,
        .clients = master->stats.clients ? &master->stats.clients[self->slot] : NULL,
        .self = self,
        .admission.admission = master->admission,
        .admission.worker = self->slot,
        .backends.backends = current->backends,
    };
    int status;

    if (!worker.doors)
        fail(EXIT_FAILED, "out of memory");
    let_go(master);
    if (worker.clients)
        client_table_take_over(worker.clients);
    listeners_keep(&current->listeners, self->index);
    if (master->stats_listener >= 0)
        close(master->stats_listener);
    resumption_begin(&master->resumption);
    tls_contexts_begin(&current->tls, worker.counters, self->slot, loop);
    access_log_start(&worker.access_log, loop, current->access_log,
                     (enum access_log_format)current->settings->log_format, worker.counters);
    drop_privileges(master);
    status = worker_run(&worker);
    access_log_close(&worker.access_log);
    free(worker.doors);
    return status;
}

static void begin_service(const struct master *master) {
    let_go(master);
    if (master->current.access_log >= 0)
        close(master->current.access_log);
    listeners_keep(&master->current.listeners, -1);
    /* It lives as long as the master: a signal to all of them does not end it before. */
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    drop_privileges(master);
}

static int run_stats(struct ev_loop *loop, void *context) {
    static struct stats_server server;
    struct master *master = context;

    begin_service(master);
    if (master->resumption.sync)
        close(master->resumption.sync->fd);
    stats_server_start(&server, loop, master->stats_listener, &master->stats);
    ev_run(loop, 0);
    return 0;
}

static int run_sync(struct ev_loop *loop, void *context) {
    static struct sync_priority priority;
    struct master *master = context;

    sync_priority_begin(&priority);
    begin_service(master);
    if (master->stats_listener >= 0)
        close(master->stats_listener);
    return sync_process_run(master->resumption.sync, &priority, loop);
}

static void add_service(struct master *master, int (*run)(struct ev_loop *, void *), const char *name) {
    master->pool.service[master->pool.services++] = (struct prefork_service){run, name};
}

/* What the statistics leave in the file system, and the pid file. */
static void remove_files(const struct master *master) {
    if (master->stats_listener >= 0 && address_is_local(&master->stats_address))
        unlink(master->stats_address.sockaddr.local.sun_path);
    if (master->current.settings->pidfile)
        pidfile_remove(master->current.settings->pidfile);
}

/* A start that has made its files and is not over yet. */
static struct start {
    const struct master *master;
    pid_t pid; /* 0: it is over */
} starting;

/* At exit: workers that cannot be forked end a start in the middle. A worker that fails comes here too. */
static void take_back(void) {
    if (starting.pid != getpid())
        return;
    listeners_unlink(&starting.master->current.listeners);
    configuration_remove_log(&starting.master->current);
    remove_files(starting.master);
}

static void worker_starting(const struct prefork_worker *worker, void *context) {
    struct master *master = context;

    stats_begin(&master->stats, worker->slot, worker->index);
}

static void worker_ended(const struct prefork_worker *worker, int wait_status, void *context) {
    (void)wait_status;
    struct master *master = context;

    stats_end(&master->stats, worker->slot);
    admission_worker_ended(master->admission, worker->slot);
}

/* What the pool takes from the settings; the rest it has for life. */
static void set_up_pool(struct master *master) {
    const struct proxy_settings *settings = master->current.settings;

    master->pool.cpus = &settings->cpus;
    master->pool.drain_limit_s = (ev_tstamp)settings->drain_timeout_ns / NS_PER_S;
    log_quiet(settings->quiet);
}

/* What the master does by the clock. */
static void set_clocks(const struct master *master) {
    const struct proxy_settings *settings = master->current.settings;

    backends_refresh(master->current.backends, settings, &master->privileges, EV_DEFAULT);
    ticket_keys_rotate_every(master->resumption.ticket_keys, EV_DEFAULT,
                             settings->ticket_rotation_ns ? settings->ticket_rotation_ns
                                                          : settings->session_lifetime_ns);
}

/* NULL, or one line. A backend that is a number or a path has its addresses. */
static const char *find_backend(struct proxy_settings *settings, const struct privileges *privileges) {
    static char refusal[512];
    const char *reason = resolver_resolve(&settings->backend_addresses, settings->backend, privileges);

    if (!reason)
        return NULL;
    snprintf(refusal, sizeof refusal, "--backend: %.255s: %s", settings->backend, reason);
    return refusal;
}

/* In the statistics, the frontends that the other configuration has not got; NULL: there is no other. */
static void show_frontends(struct master *master, const struct listeners *listeners, const struct listeners *others,
                           bool shown) {
    for (int i = 0; i < listeners->count; i++) {
        const struct listener *listener = listeners->all[i];

        if (!listeners_have(others, listener))
            frontend_stats_show(&master->stats.frontends, listener->place, shown ? &listener->address : NULL);
    }
}

static const char *make_next(struct master *master, struct configuration *next) {
    static char refusal[128];
    const char *reason = master->reread(&next->settings), *fixed;

    if (reason)
        return reason;
    fixed = settings_fixed_difference(master->current.settings, next->settings);
    if (fixed) {
        snprintf(refusal, sizeof refusal, "--%s: cannot be changed while the proxy runs", fixed);
        reason = refusal;
    }
    if (!reason)
        reason = session_sync_check_reload(master->resumption.sync, master->current.settings, next->settings);
    if (!reason)
        reason = find_backend(next->settings, &master->privileges);
    if (reason) {
        settings_free(next->settings);
        return reason;
    }
    reason = configuration_make(next, next->settings, &master->resumption);
    if (reason) {
        settings_free(next->settings);
        return reason;
    }
    reason = listeners_open(&next->listeners, &master->current.listeners, next->settings);
    if (reason)
        configuration_free(next);
    return reason;
}

/* Workers that retire still have the sockets of frontends that are no more: they take who is in the queues. */
static void renewed(bool is_there, void *context) {
    struct master *master = context;
    const struct listeners *next = &master->current.listeners, *old = &master->other->listeners;

    if (is_there)
        listeners_let_in(next, old);
    listeners_leave(is_there ? old : next, is_there ? next : old);
}

static void tell_new_frontends(const struct listeners *listeners, const struct listeners *earlier) {
    char text[ADDRESS_TEXT_MAX];

    for (int i = 0; i < listeners->count; i++)
        if (!listeners_have(earlier, listeners->all[i]))
            log_info("listening on %s", address_format(&listeners->all[i]->address, text));
}

/* Who reads that it has been reloaded, and connects, is served as the new configuration says. */
static void settled(void *context) {
    struct master *master = context;

    for (; master->reloads_to_tell; master->reloads_to_tell--) {
        log_info("reloaded: earlier connections may end");
        stats_add(&master->stats.master->reloads, 1);
    }
}

static void reload(struct master *master) {
    struct configuration next, old = master->current;
    const char *reason = make_next(master, &next);

    if (!reason) {
        master->current = next;
        master->other = &old;
        set_up_pool(master);
        show_frontends(master, &next.listeners, &old.listeners, true);
        reason = prefork_renew(&master->pool);
        master->other = NULL;
        if (reason) {
            master->current = old;
            set_up_pool(master);
            show_frontends(master, &next.listeners, &old.listeners, false);
            listeners_close(&next.listeners, &old.listeners);
        } else {
            set_clocks(master);
            master->current.access_log_is_new = false;
            master->privileges.root = next.settings->chroot; /* the same, in memory that stays */
            tell_new_frontends(&next.listeners, &old.listeners);
            show_frontends(master, &old.listeners, &next.listeners, false);
            listeners_close(&old.listeners, &next.listeners);
        }
        configuration_free(reason ? &next : &old);
    }
    if (reason) {
        tls_engine_give_back();
        log_error("reload: %s: the old configuration stays", reason);
        stats_add(&master->stats.master->reloads_refused, 1);
        return;
    }
    tls_engine_keep();
    stats_add(&master->stats.master->generation, 1);
    master->reloads_to_tell++;
    if (prefork_is_settled(&master->pool))
        settled(master);
}

static void signalled(int signal_number, void *context) {
    struct master *master = context;

    if (master->pool.ending && signal_number != SIGINT)
        return;
    if (signal_number == SIGHUP) {
        reload(master);
        return;
    }
    if (!master->pool.ending) {
        log_info("%s", signal_number == SIGTERM ? "draining: connections may end" : "stopping");
        listeners_leave(&master->current.listeners, NULL);
        listeners_close(&master->current.listeners, NULL);
    }
    /* Workers ignore SIGINT, which a terminal sends to all of them at once: only the master decides. */
    prefork_end(&master->pool, signal_number == SIGINT ? SIGKILL : signal_number);
}

static bool listen_for_stats(struct master *master) {
    char text[ADDRESS_TEXT_MAX];

    if (address_listen(&master->stats_address, 16, &master->stats_listener, 1))
        return true;
    log_error("--stats: %s: cannot listen: %s", address_format(&master->stats_address, text), strerror(errno));
    return false;
}

static bool write_pidfile(const char *path) {
    const char *reason = path ? pidfile_write(path) : NULL;

    if (reason)
        log_error("%s", reason);
    return !reason;
}

static void announce(const char *what, const struct address *address) {
    char text[ADDRESS_TEXT_MAX];

    printf("%s on %s\n", what, address_format(address, text));
    fflush(stdout);
}

static void announce_all(const struct master *master) {
    if (master->stats_listener >= 0)
        announce("stats", &master->stats_address);
    if (master->resumption.sync)
        announce("shared cache", &master->resumption.sync->sharing.own);
    for (int i = 0; i < master->current.listeners.count; i++)
        announce("listening", &master->current.listeners.all[i]->address);
}

static bool open_sync(struct session_sync *sync) {
    char text[ADDRESS_TEXT_MAX];

    if (session_sync_open(sync))
        return true;
    log_error("--shared-cache: %s: %s", address_format(&sync->sharing.own, text), strerror(errno));
    return false;
}

/* All or nothing: what one of them refuses leaves no file of another behind. */
static bool open_all(struct master *master) {
    const struct proxy_settings *settings = master->current.settings;
    struct listeners *listeners = &master->current.listeners;
    const char *reason;

    master->stats_address = settings->stats;
    master->stats_listener = -1;
    if (master->resumption.sync && !open_sync(master->resumption.sync))
        return false;
    if (settings->has_stats && !listen_for_stats(master))
        return false;
    reason = listeners_open(listeners, NULL, settings);
    if (reason)
        log_error("%s", reason);
    if (!reason && write_pidfile(settings->pidfile))
        return true;
    listeners_leave(listeners, NULL);
    listeners_close(listeners, NULL);
    remove_files(master);
    return false;
}

/* Whatever can be refused, before there is anything that would have to be taken back. */
static void prepare(struct master *master, struct proxy_settings *settings) {
    const char *reason = privileges_find(&master->privileges, settings->user, settings->group, settings->chroot);

    if (!reason)
        reason = find_backend(settings, &master->privileges);
    if (!reason)
        reason = resumption_new(&master->resumption, settings, (int)settings->workers * GENERATIONS);
    if (!reason)
        reason = configuration_make(&master->current, settings, &master->resumption);
    if (!reason && settings->test_only && settings->pidfile)
        reason = pidfile_check(settings->pidfile);
    if (reason)
        fail(EXIT_USAGE, "%s", reason);
}

/* libev would abort. */
static void loop_failed(const char *what) {
    fail(EXIT_FAILED, "%s: %s", what, strerror(errno));
}

/*
 * Once there is something to be tidied up at the end, and --daemon has said that it runs, a signal that comes before
 * the pool watches for it has to wait.
 */
static void hold_signals_back(bool hold) {
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &signals, NULL);
}

int master_run(struct proxy_settings *settings, settings_reader *reread) {
    static struct master master; /* static: its address goes into forked workers and callbacks */

    if (settings->daemon && !settings->test_only)
        background_start();
    prepare(&master, settings);
    if (settings->test_only)
        return 0;
    descriptor_limit_raise();
    master.reread = reread;
    master.pool = (struct prefork){
        .workers = (int)settings->workers,
        .generations = GENERATIONS,
        .respawn = true,
        .run = run_worker,
        .workers_take_signals = true,
        .starting = worker_starting,
        .renewed = renewed,
        .settled = settled,
        .signalled = signalled,
        .ended = worker_ended,
        .context = &master,
    };
    set_up_pool(&master);
    if (settings->has_stats)
        add_service(&master, run_stats, "proxy-stats");
    if (master.resumption.sync)
        add_service(&master, run_sync, "proxy-sync");
    stats_init(&master.stats, master.pool.workers, master.pool.workers * GENERATIONS,
               settings->has_stats ? settings->top_clients : 0);
    master.stats.sync = master.resumption.sync ? master.resumption.sync->counters : NULL;
    stats_add(&master.stats.master->generation, 1);
    master.admission = admission_new(settings->maxconn, master.pool.workers * GENERATIONS);
    hold_signals_back(true);
    if (!open_all(&master)) {
        configuration_remove_log(&master.current);
        return EXIT_USAGE;
    }
    show_frontends(&master, &master.current.listeners, NULL, true);
    starting = (struct start){&master, getpid()};
    atexit(take_back);
    ev_set_syserr_cb(loop_failed);
    if (settings->daemon) {
        announce_all(&master);
        background_ready(); /* before the workers: what they inherit goes nowhere */
    }
    if (settings->daemon || settings->syslog)
        log_to_syslog(settings->syslog_facility);
    prefork_start(&master.pool, EV_DEFAULT);
    starting.pid = 0;
    master.current.access_log_is_new = false;
    hold_signals_back(false);
    set_clocks(&master);
    if (!settings->daemon)
        announce_all(&master);
    ev_run(EV_DEFAULT, 0);
    prefork_finish(&master.pool);
    remove_files(&master);
    return 0;
}
