/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "sync_process.h"

#include "log.h"
#include "sync_catch_up.h"
#include "sync_flood.h"
#include "sync_inbox.h"
#include "sync_priority.h"
#include "sync_socket.h"
#include "units.h"

#include <sys/socket.h>

/*
 * To be woken costs more than a datagram: where one comes within this time of the last, or more at once, what comes
 * within it next is taken together. Not where clients wait for an answer.
 */
#define REST_S 0.001
/* Peers learn of a new ticket key within this time, and hear of us in any case after so many of them. */
#define TICK_S        0.1
#define TICKS_A_BEAT  10
#define KEYS_TOLD     3
#define ONE_TURN      32 /* datagrams */
#define TURNS_AT_ONCE 8  /* before the clock is looked at again */

struct sync_process {
    struct ev_loop *loop;
    struct session_sync *sync;
    struct sync_outbox outbox;
    struct sync_inbox inbox;
    struct sync_flood flood;
    struct sync_priority *priority;
    uint64_t generation; /* of ticket keys that peers have been told of */
    int keys_due;        /* times that the last ones are still to be told */
    int ticks;
    ev_tstamp received; /* last */
    ev_io datagrams;
    ev_timer rest, tick;
};

/* How many there were, ONE_TURN at most. */
static int receive_some(struct sync_process *process) {
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
    return count > 0 ? count : 0;
}

/* How many there were. */
static int receive(struct sync_process *process) {
    int count = ONE_TURN, all = 0;

    for (int turn = 0; turn < TURNS_AT_ONCE && count == ONE_TURN; turn++) {
        count = receive_some(process);
        all += count;
    }
    return all;
}

static void datagrams_came(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)events;
    struct sync_process *process = watcher->data;

    int count = receive(process);
    bool many = count > 1 || ev_now(loop) < process->received + REST_S;

    process->received = ev_now(loop);
    if (!many || process->sync->sharing.pull_ns)
        return;
    ev_io_stop(loop, watcher);
    ev_timer_again(loop, &process->rest);
}

static void rested(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)events;
    struct sync_process *process = timer->data;

    if (receive(process)) {
        process->received = ev_now(loop);
        return;
    }
    ev_timer_stop(loop, timer);
    ev_io_start(loop, &process->datagrams);
}

/* The keys are told of with every beat: whoever missed one has them a second later. */
static void beat(struct sync_process *process) {
    sync_outbox_flush(&process->outbox);
    sync_catch_up_write_keys(process->sync, &process->outbox.batch);
    sync_outbox_beat(&process->outbox);
}

static void tell_of_us(struct sync_process *process) {
    const struct session_sync *sync = process->sync;
    uint64_t generation = sync->ticket_keys ? ticket_keys_generation(sync->ticket_keys) : 0;

    if (generation != process->generation)
        process->keys_due = KEYS_TOLD;
    process->generation = generation;
    if (process->keys_due || process->ticks++ % TICKS_A_BEAT == 0) {
        process->keys_due -= process->keys_due > 0;
        beat(process);
        sync_inbox_look_around(&process->inbox);
    }
}

static void time_passed(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct sync_process *process = timer->data;

    sync_priority_look(process->priority);
    sync_flood_look(&process->flood);
    if (process->sync->sharing.format != SHARING_STUD)
        tell_of_us(process);
}

static bool set_up(struct sync_process *process) {
    const struct session_sync *sync = process->sync;

    foreign_keys_begin(sync->foreign_keys);
    sync_flood_begin(&process->flood, sync);
    return sync_outbox_init(&process->outbox, sync) &&
           sync_inbox_init(&process->inbox, process->loop, sync, &process->outbox);
}

int sync_process_run(struct session_sync *sync, struct sync_priority *priority, struct ev_loop *loop) {
    static struct sync_process process;

    process.loop = loop;
    process.sync = sync;
    process.priority = priority;
    if (!set_up(&process)) {
        log_error("--shared-cache: the TLS library failed");
        return EXIT_FAILED;
    }
    ev_io_init(&process.datagrams, datagrams_came, sync->fd, EV_READ);
    process.datagrams.data = &process;
    ev_io_start(loop, &process.datagrams);
    ev_init(&process.rest, rested);
    process.rest.repeat = REST_S;
    process.rest.data = &process;
    ev_timer_init(&process.tick, time_passed, 0., TICK_S);
    process.tick.data = &process;
    ev_timer_start(loop, &process.tick);
    ev_run(loop, 0);
    return 0;
}
