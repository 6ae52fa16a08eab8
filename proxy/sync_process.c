/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "sync_process.h"

#include "log.h"
#include "stats.h"
#include "sync_catch_up.h"
#include "sync_inbox.h"
#include "sync_socket.h"
#include "units.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/*
 * What is announced is sent at once. What follows, either way, within this time of each other is handled together: to
 * be woken, and a datagram, cost more than a session. Where clients wait for an answer the time is shorter, and what
 * comes is taken when it comes.
 */
#define COLLECT_S           0.002
#define COLLECT_FOR_PULLS_S 0.001
/* Peers learn of a new ticket key within this time, and hear of us in any case after so many of them. */
#define TICK_S        0.1
#define TICKS_A_BEAT  10
#define ONE_TURN      32 /* datagrams */
#define TURNS_AT_ONCE 8  /* before announcements are looked at again */
/* A withdrawal that is lost leaves a dead session alive elsewhere: it is told so often, a tick apart. */
#define TOLD_AGAIN 2
#define DELS_MAX   256

struct told_del {
    int left;
    uint8_t id[SESSION_ID_MAX];
    size_t id_length;
    uint64_t expires_s;
};

struct sync_process {
    struct ev_loop *loop;
    struct session_sync *sync;
    struct sync_outbox outbox;
    struct sync_inbox inbox;
    struct told_del del[DELS_MAX]; /* the last ones, in a ring */
    unsigned next_del;
    uint64_t generation; /* of ticket keys that peers have been told of */
    int ticks;
    ev_io datagrams, announced;
    ev_timer collect, tick;
};

static void tell_del(struct sync_process *process, const struct told_del *del) {
    const struct sync_message message = {
        .kind = SYNC_DEL, .id = del->id, .id_length = del->id_length, .expires_ms = del->expires_s * 1000};

    sync_outbox_add(&process->outbox, &message, 0);
}

static void pass_del_on(struct sync_process *process, const struct announcement *announcement) {
    struct told_del *del = &process->del[process->next_del++ % DELS_MAX];

    *del = (struct told_del){
        .left = TOLD_AGAIN, .id_length = announcement->id_length, .expires_s = announcement->expires_s};
    memcpy(del->id, announcement->id, sizeof del->id);
    tell_del(process, del);
    stats_add(&process->sync->counters->withdrawals_announced, 1);
}

static void pass_new_on(struct sync_process *process, const struct announcement *announcement) {
    const struct sync_message message = {.kind = SYNC_NEW,
                                         .expires_ms = announcement->expires_s * 1000,
                                         .id = announcement->id,
                                         .id_length = announcement->id_length,
                                         .session = announcement->bytes,
                                         .session_length = announcement->length};

    sync_outbox_add(&process->outbox, &message, announcement->born_us);
    stats_add(&process->sync->counters->sessions_announced, 1);
}

static void pass_get_on(struct sync_process *process, const struct announcement *announcement) {
    const struct sync_message message = {
        .kind = SYNC_GET, .id = announcement->id, .id_length = announcement->id_length};

    sync_outbox_add(&process->outbox, &message, 0);
    stats_add(&process->sync->counters->pulls_asked, 1);
}

/* stud's datagrams know new sessions only. */
static void pass_on_as_stud(struct sync_process *process, const struct announcement *announcement) {
    const struct session_sync *sync = process->sync;
    const struct stud_session session = {
        .id = announcement->id,
        .id_length = announcement->id_length,
        .bytes = announcement->bytes,
        .length = announcement->length,
        .born_s = (uint32_t)(announcement->expires_s - sync->lifetime_s),
    };
    uint8_t datagram[STUD_PACKET_BYTES];
    size_t length;

    if (announcement->kind != ANNOUNCE_NEW)
        return;
    length = sync_stud_make(sync->stud_key, &session, datagram);
    if (!length)
        return;
    sync_outbox_count(&process->outbox, length, sync_socket_send_all(sync->fd, &sync->sharing, datagram, length),
                      sync_socket_targets(&sync->sharing));
    stats_add(&sync->counters->sessions_announced, 1);
}

static void pass_on(struct sync_process *process, const struct announcement *announcement) {
    if (process->sync->sharing.format == SHARING_STUD)
        pass_on_as_stud(process, announcement);
    else if (announcement->kind == ANNOUNCE_NEW)
        pass_new_on(process, announcement);
    else if (announcement->kind == ANNOUNCE_DEL)
        pass_del_on(process, announcement);
    else
        pass_get_on(process, announcement);
}

/* Workers in turn, so that a busy one does not keep the others waiting. False: nothing was there. */
static bool collect_announcements(struct sync_process *process) {
    struct session_sync *sync = process->sync;
    static struct announcement announcement;
    bool any = false, more = true;

    while (more) {
        more = false;
        for (int slot = 0; slot < sync->slots; slot++)
            if (announcements_take(sync->announcements, slot, &announcement)) {
                pass_on(process, &announcement);
                any = more = true;
            }
    }
    sync_outbox_flush(&process->outbox);
    return any;
}

/* False: nothing more is there. */
static bool receive_some(struct sync_process *process) {
    static uint8_t bytes[ONE_TURN][SYNC_PACKET_BYTES_MAX + 1];
    static struct address from[ONE_TURN];
    struct mmsghdr headers[ONE_TURN];
    struct iovec vectors[ONE_TURN];
    int count;

    for (int i = 0; i < ONE_TURN; i++) {
        vectors[i] = (struct iovec){bytes[i], sizeof bytes[i]};
        headers[i].msg_hdr = (struct msghdr){.msg_name = &from[i].sockaddr,
                                             .msg_namelen = sizeof from[i].sockaddr,
                                             .msg_iov = &vectors[i],
                                             .msg_iovlen = 1};
    }
    count = recvmmsg(process->sync->fd, headers, ONE_TURN, 0, NULL);
    for (int i = 0; i < count; i++) {
        from[i].length = headers[i].msg_hdr.msg_namelen;
        sync_inbox_take(&process->inbox, bytes[i], headers[i].msg_len, &from[i]);
    }
    return count == ONE_TURN;
}

static void receive(struct sync_process *process) {
    for (int turn = 0; turn < TURNS_AT_ONCE && receive_some(process); turn++)
        ;
}

static void datagrams_came(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop, (void)events;
    receive(watcher->data);
}

static void collect_more(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct sync_process *process = timer->data;

    receive(process);
    if (collect_announcements(process) || !announcements_sleep(process->sync->announcements))
        return;
    ev_timer_stop(loop, timer);
    ev_io_start(loop, &process->datagrams);
}

static void start_collecting(struct sync_process *process) {
    ev_timer_again(process->loop, &process->collect);
    if (!process->sync->sharing.pull_ns)
        ev_io_stop(process->loop, &process->datagrams);
}

static void something_announced(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop, (void)events;
    struct sync_process *process = watcher->data;

    announcements_wake(process->sync->announcements);
    collect_announcements(process);
    start_collecting(process);
}

static void tell_dels_again(struct sync_process *process) {
    for (int i = 0; i < DELS_MAX; i++)
        if (process->del[i].left) {
            process->del[i].left--;
            tell_del(process, &process->del[i]);
        }
}

/* The keys are told of with every beat: whoever missed one has them a second later. */
static void beat(struct sync_process *process) {
    sync_outbox_flush(&process->outbox);
    sync_catch_up_write_keys(process->sync, &process->outbox.batch);
    sync_outbox_beat(&process->outbox);
}

static void time_passed(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct sync_process *process = timer->data;
    const struct session_sync *sync = process->sync;
    uint64_t generation = sync->ticket_keys ? ticket_keys_generation(sync->ticket_keys) : 0;

    tell_dels_again(process);
    if (generation != process->generation || process->ticks++ % TICKS_A_BEAT == 0) {
        process->generation = generation;
        beat(process);
        sync_inbox_look_around(&process->inbox);
    }
    sync_outbox_flush(&process->outbox);
}

static bool set_up(struct sync_process *process) {
    const struct session_sync *sync = process->sync;
    struct sync_keys *keys = sync_keys_new(sync->secret);

    foreign_keys_begin(sync->foreign_keys);
    return keys && sync_outbox_init(&process->outbox, sync, keys) &&
           sync_inbox_init(&process->inbox, process->loop, sync, &process->outbox, keys);
}

int sync_process_run(struct session_sync *sync, struct ev_loop *loop) {
    static struct sync_process process;

    process.loop = loop;
    process.sync = sync;
    if (!set_up(&process)) {
        log_error("--shared-cache: the TLS library failed");
        return EXIT_FAILED;
    }
    ev_io_init(&process.datagrams, datagrams_came, sync->fd, EV_READ);
    process.datagrams.data = &process;
    ev_io_start(loop, &process.datagrams);
    if (sync->announcements) {
        ev_io_init(&process.announced, something_announced, announcements_descriptor(sync->announcements), EV_READ);
        process.announced.data = &process;
        ev_io_start(loop, &process.announced);
        ev_init(&process.collect, collect_more);
        process.collect.repeat = sync->sharing.pull_ns ? COLLECT_FOR_PULLS_S : COLLECT_S;
        process.collect.data = &process;
        start_collecting(&process); /* what was announced before, to one that died, did not wake us */
    }
    if (sync->sharing.format != SHARING_STUD) {
        ev_timer_init(&process.tick, time_passed, 0., TICK_S);
        process.tick.data = &process;
        ev_timer_start(loop, &process.tick);
    }
    ev_run(loop, 0);
    return 0;
}
