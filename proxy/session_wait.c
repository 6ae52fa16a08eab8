/* SPDX-License-Identifier: MIT */
#include "session_wait.h"

#include "bytes.h"
#include "clock.h"
#include "stats.h"
#include "sync_socket.h"
#include "tls_state.h"
#include "units.h"

#include <stdlib.h>
#include <unistd.h>

/* Of one worker at once: a client may ask for what nobody has, as often as it likes. */
#define WAITS_MAX 256

/* For what lies unread. It is a fraction of a millisecond, unless proxy-sync is kept from running, or has died. */
#define UNREAD_NS (5 * NS_PER_MS)

#define TLS13_ON_THE_WIRE 0x0304

/* A ClientHello that waits. It belongs to its SSL, and ends with it at the latest. */
struct session_wait {
    struct session_wait *previous, *next;
    ev_io *client;
    bool waiting;
    uint64_t takes; /* when there have been so many, all is taken that had come */
    uint8_t id[SESSION_ID_MAX];
    size_t id_length;
    ev_timer timer;
};

static int wait_index = -1;

/* Those of a worker, of all its contexts: one of them alone would take the others' wakening. */
static struct {
    struct session_sync *sync;
    struct ev_loop *loop; /* of session_waits_begin; before it NULL */
    struct worker_counters *counters;
    int slot;
    int count;
    struct session_wait *first;
    ev_io answered;
} worker;

static void stop_waiting(struct session_wait *wait) {
    if (!wait->waiting)
        return;
    wait->waiting = false;
    worker.count--;
    ev_timer_stop(worker.loop, &wait->timer);
    *(wait->previous ? &wait->previous->next : &worker.first) = wait->next;
    if (wait->next)
        wait->next->previous = wait->previous;
}

static void free_wait(void *parent, void *wait, CRYPTO_EX_DATA *data, int index, long number, void *user) {
    (void)parent, (void)data, (void)index, (void)number, (void)user;

    if (wait)
        stop_waiting(wait);
    free(wait);
}

/* The connection's watcher, which need not be active, has it shake hands again. */
static void go_on(struct session_wait *wait) {
    stop_waiting(wait);
    ev_feed_event(worker.loop, wait->client, EV_READ);
}

static void time_is_over(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    go_on(timer->data);
}

static enum session_presence look(const uint8_t *id, size_t id_length) {
    return session_store_look(worker.sync->store, id, id_length, realtime_ns() / NS_PER_S);
}

/* Whoever waits from here on is woken; what came just before is seen by looking. */
static void ask_to_be_woken(void) {
    __atomic_store_n(&worker.sync->waiting[worker.slot], 1, __ATOMIC_SEQ_CST);
}

static bool pulls(void) {
    return worker.sync->sharing.pull_ns > 0;
}

static uint64_t takes(void) {
    return __atomic_load_n(worker.sync->takes, __ATOMIC_SEQ_CST);
}

/* Nothing more is to be expected. */
static bool is_over(const struct session_wait *wait) {
    return !pulls() && takes() >= wait->takes;
}

static void something_came(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop, (void)events;
    struct session_wait *next;
    uint64_t count;

    (void)!read(watcher->fd, &count, sizeof count);
    if (worker.first)
        ask_to_be_woken();
    for (struct session_wait *wait = worker.first; wait; wait = next) {
        bool over = is_over(wait);
        enum session_presence presence = look(wait->id, wait->id_length);

        next = wait->next;
        if (presence == SESSION_NOT_THERE && !over)
            continue;
        if (presence == SESSION_GOOD)
            stats_add(pulls() ? &worker.counters->session_pulls_found : &worker.counters->session_waits_found, 1);
        go_on(wait);
    }
}

void session_waits_wake(const struct session_sync *sync) {
    const uint64_t one = 1;

    for (int slot = 0; slot < sync->slots; slot++)
        if (__atomic_load_n(&sync->waiting[slot], __ATOMIC_SEQ_CST) &&
            __atomic_exchange_n(&sync->waiting[slot], 0, __ATOMIC_SEQ_CST))
            (void)!write(sync->wake[slot], &one, sizeof one);
}

/* RFC 8446, 4.2.1 */
static bool offers_tls13(SSL *ssl) {
    const unsigned char *bytes;
    struct reader versions;
    size_t length;

    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_supported_versions, &bytes, &length) != 1)
        return false;
    versions = reader_of(bytes, length);
    for (struct reader list = reader_vector(&versions, 1); list.left >= 2;)
        if (reader_u16(&list) == TLS13_ON_THE_WIRE)
            return true;
    return false;
}

static bool speaks_tls13(SSL *ssl) {
    long newest = SSL_get_max_proto_version(ssl);

    return newest == 0 || newest >= TLS1_3_VERSION;
}

/* RFC 8446, 4.2.11: the first identity, as only it is looked up where tickets name a session. */
static size_t find_stateful_ticket(SSL *ssl, const uint8_t **id) {
    const unsigned char *bytes;
    struct reader extension, identities, identity;
    size_t length;

    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_psk, &bytes, &length) != 1)
        return 0;
    extension = reader_of(bytes, length);
    identities = reader_vector(&extension, 2);
    identity = reader_vector(&identities, 2);
    *id = identity.at;
    return identity.left == SESSION_ID_MAX ? identity.left : 0;
}

/* The ID that the store will be asked for; its length, or 0. */
static size_t find_id(const struct session_waits *waits, SSL *ssl, const uint8_t **id) {
    const unsigned char *ticket;
    size_t length;

    if (offers_tls13(ssl) && speaks_tls13(ssl))
        return waits->stateless_tickets ? 0 : find_stateful_ticket(ssl, id);
    /* Beside a ticket, the ID is made up (RFC 5077, 3.4). */
    if (waits->stateless_tickets && SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_session_ticket, &ticket, &length) == 1 &&
        length)
        return 0;
    length = SSL_client_hello_get0_session_id(ssl, id);
    return length <= SESSION_ID_MAX ? length : 0;
}

/*
 * After nothing was found, so many takes before: it may have been on its way into the store, or lie unread. In this
 * order: what a take that begins meanwhile has taken out of the socket is seen by there having been another take.
 */
static bool may_have_come(uint64_t takes_before) {
    return takes_before % 2 || sync_socket_has_more(worker.sync->fd) || takes() != takes_before;
}

/* The others are asked. How long it is to be waited for. */
static uint64_t begin_pull(const struct session_waits *waits, const struct session_wait *wait) {
    announcer_get(waits->announcer, wait->id, wait->id_length);
    stats_add(&worker.counters->session_pulls, 1);
    return worker.sync->sharing.pull_ns;
}

/* The same. */
static uint64_t hurry(struct session_wait *wait) {
    const uint64_t one = 1;

    /* One that has begun already may have passed it by. */
    wait->takes = (takes() + 1) / 2 * 2 + 2;
    (void)!write(worker.sync->hurry, &one, sizeof one);
    stats_add(&worker.counters->session_waits, 1);
    return UNREAD_NS;
}

/* False: it cannot be waited for. */
static bool begin_wait(const struct session_waits *waits, SSL *ssl, const uint8_t *id, size_t id_length) {
    ev_io *client = SSL_get_app_data(ssl);
    struct session_wait *wait;
    uint64_t limit_ns;

    if (!client || worker.count >= WAITS_MAX || !(wait = calloc(1, sizeof *wait)))
        return false;
    *wait = (struct session_wait){.next = worker.first, .client = client, .id_length = id_length};
    memcpy(wait->id, id, id_length);
    ask_to_be_woken();
    if (!SSL_set_ex_data(ssl, wait_index, wait)) {
        free(wait);
        return false;
    }
    limit_ns = pulls() ? begin_pull(waits, wait) : hurry(wait);
    wait->waiting = true;
    worker.count++;
    if (worker.first)
        worker.first->previous = wait;
    worker.first = wait;
    ev_now_update(worker.loop); /* a turn of the loop may have lasted longer than the limit */
    ev_timer_init(&wait->timer, time_is_over, (ev_tstamp)limit_ns / NS_PER_S, 0.);
    wait->timer.data = wait;
    ev_timer_start(worker.loop, &wait->timer);
    return true;
}

/* Called again and again while it says that it waits: SSL_CTX_set_client_hello_cb(3). */
int session_waits_hello(const struct session_waits *waits, SSL *ssl) {
    const struct session_wait *wait = SSL_get_ex_data(ssl, wait_index);
    const uint8_t *id = NULL;
    uint64_t takes_before;
    size_t id_length;

    if (wait)
        return wait->waiting ? SSL_CLIENT_HELLO_RETRY : SSL_CLIENT_HELLO_SUCCESS;
    id_length = find_id(waits, ssl, &id);
    takes_before = takes();
    /* Of one that is dead nobody has more than this host knows. */
    if (!id_length || look(id, id_length) != SESSION_NOT_THERE)
        return SSL_CLIENT_HELLO_SUCCESS;
    if (!pulls() && !may_have_come(takes_before))
        return SSL_CLIENT_HELLO_SUCCESS;
    return begin_wait(waits, ssl, id, id_length) ? SSL_CLIENT_HELLO_RETRY : SSL_CLIENT_HELLO_SUCCESS;
}

void session_waits_serve(void) {
    if (wait_index < 0)
        wait_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_wait);
}

void session_waits_begin(const struct session_waits *waits, struct ev_loop *loop, struct worker_counters *counters,
                         int slot) {
    if (worker.loop == loop)
        return;
    worker.sync = waits->sync;
    worker.loop = loop;
    worker.counters = counters;
    worker.slot = slot;
    ev_io_init(&worker.answered, something_came, worker.sync->wake[slot], EV_READ);
    ev_io_start(loop, &worker.answered);
    ev_unref(loop); /* alone, it does not keep the loop running */
}
