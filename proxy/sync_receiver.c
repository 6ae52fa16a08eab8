/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "sync_receiver.h"

#include "clock.h"
#include "session_wait.h"
#include "units.h"

#include <math.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Datagrams that come within this time of each other make it rest, for as long at first. */
#define REST_S 0.0125
/* Withdrawals wait for no longer. */
#define LONGEST_REST_S  0.1
#define SHORTEST_REST_S 0.001
/* What a socket is to hold from one moment to the next, though less came before: its room limits rests too. */
#define DATAGRAMS_A_SECOND 15000

#define ONE_TURN      32 /* datagrams */
#define TURNS_AT_ONCE 8  /* after which others have their turn */
#define TURNS_AT_MOST 64 /* where a client waits for what came last */

/* Of the socket's memory that a datagram of the usual length takes. */
#define DATAGRAM_ROOM 2304

/* The system's date of its arrival, in microseconds; without one, now. */
static uint64_t arrived_us(struct msghdr *header) {
    const struct cmsghdr *control = CMSG_FIRSTHDR(header);
    struct timespec date;

    if (!control || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_TIMESTAMPNS)
        return realtime_ns() / 1000;
    memcpy(&date, CMSG_DATA(control), sizeof date);
    return (uint64_t)date.tv_sec * 1000000 + (uint64_t)date.tv_nsec / 1000;
}

/* How many there were, ONE_TURN at most. */
static int receive_some(struct sync_receiver *receiver) {
    static uint8_t bytes[ONE_TURN][SYNC_PACKET_BYTES_MAX + 1];
    static struct address from[ONE_TURN];
    static uint8_t control[ONE_TURN][CMSG_SPACE(sizeof(struct timespec))] __attribute__((aligned(8)));
    struct mmsghdr headers[ONE_TURN];
    struct iovec vectors[ONE_TURN];
    int count;

    for (int i = 0; i < ONE_TURN; i++) {
        vectors[i] = (struct iovec){bytes[i], sizeof bytes[i]};
        headers[i].msg_hdr = (struct msghdr){.msg_name = &from[i].sockaddr,
                                             .msg_namelen = sizeof from[i].sockaddr,
                                             .msg_iov = &vectors[i],
                                             .msg_iovlen = 1,
                                             .msg_control = control[i],
                                             .msg_controllen = sizeof control[i]};
    }
    count = recvmmsg(receiver->sync->fd, headers, ONE_TURN, 0, NULL);
    for (int i = 0; i < count; i++) {
        from[i].length = headers[i].msg_hdr.msg_namelen;
        sync_inbox_take(receiver->inbox, bytes[i], headers[i].msg_len, &from[i], arrived_us(&headers[i].msg_hdr));
    }
    return count > 0 ? count : 0;
}

/* How many there were, in so many turns at most. */
static int receive(struct sync_receiver *receiver, int turns) {
    int count = ONE_TURN, all = 0;

    __atomic_add_fetch(receiver->sync->takes, 1, __ATOMIC_SEQ_CST);
    for (int turn = 0; turn < turns && count == ONE_TURN; turn++) {
        count = receive_some(receiver);
        all += count;
    }
    __atomic_add_fetch(receiver->sync->takes, 1, __ATOMIC_SEQ_CST);
    session_waits_wake(receiver->sync);
    receiver->awake_until = fmax(receiver->awake_until, ev_now(receiver->loop) + receiver->inbox->answers_s);
    receiver->inbox->answers_s = 0.;
    receiver->taken += all;
    return all;
}

static bool may_rest(const struct sync_receiver *receiver) {
    return !receiver->sync->sharing.pull_ns && ev_now(receiver->loop) >= receiver->awake_until;
}

static void rest(struct sync_receiver *receiver, ev_tstamp for_s) {
    receiver->rest.repeat = for_s;
    receiver->taken = 0;
    ev_timer_again(receiver->loop, &receiver->rest);
}

/* So many were taken at once: there may be more. */
static bool is_much(int count) {
    return count == ONE_TURN * TURNS_AT_ONCE;
}

static void datagrams_came(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)events;
    struct sync_receiver *receiver = watcher->data;
    int count = receive(receiver, TURNS_AT_ONCE);
    bool often = count > 1 || ev_now(loop) < receiver->came + REST_S;

    receiver->came = ev_now(loop);
    if (!often || !may_rest(receiver))
        return;
    ev_io_stop(loop, watcher);
    rest(receiver, is_much(count) ? SHORTEST_REST_S : fmin(REST_S, receiver->longest_rest_s));
}

static void rested(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)events;
    struct sync_receiver *receiver = timer->data;
    int count = receive(receiver, TURNS_AT_ONCE);

    if (!receiver->taken || !may_rest(receiver)) {
        ev_timer_stop(loop, timer);
        ev_io_start(loop, &receiver->datagrams);
        return;
    }
    receiver->came = ev_now(loop);
    if (is_much(count) || receiver->taken > receiver->room / 2)
        rest(receiver, SHORTEST_REST_S);
    else if (receiver->taken > receiver->room / 4 && timer->repeat > SHORTEST_REST_S)
        rest(receiver, timer->repeat / 2);
    else if (receiver->taken < receiver->room / 8)
        rest(receiver, fmin(timer->repeat * 2, receiver->longest_rest_s));
    else
        rest(receiver, timer->repeat);
}

void sync_receiver_awake(struct sync_receiver *receiver) {
    if (ev_is_active(&receiver->rest))
        rested(receiver->loop, &receiver->rest, 0);
}

/* A client waits for what may lie there. */
static void hurry(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop, (void)events;
    uint64_t count;

    (void)!read(watcher->fd, &count, sizeof count);
    receive(watcher->data, TURNS_AT_MOST);
}

/* One that had our place before may have died while it took something. */
static void end_the_last_take(const struct session_sync *sync) {
    uint64_t takes = __atomic_load_n(sync->takes, __ATOMIC_SEQ_CST);

    __atomic_store_n(sync->takes, takes + takes % 2, __ATOMIC_SEQ_CST);
}

void sync_receiver_begin(struct sync_receiver *receiver, struct ev_loop *loop, const struct session_sync *sync,
                         struct sync_inbox *inbox) {
    int bytes = 0;
    socklen_t size = sizeof bytes;

    *receiver = (struct sync_receiver){.loop = loop, .sync = sync, .inbox = inbox};
    getsockopt(sync->fd, SOL_SOCKET, SO_RCVBUF, &bytes, &size);
    receiver->room = bytes / DATAGRAM_ROOM;
    receiver->longest_rest_s = fmin(LONGEST_REST_S, fmax(SHORTEST_REST_S, receiver->room / (double)DATAGRAMS_A_SECOND));
    end_the_last_take(sync);
    ev_io_init(&receiver->datagrams, datagrams_came, sync->fd, EV_READ);
    receiver->datagrams.data = receiver;
    ev_io_start(loop, &receiver->datagrams);
    ev_io_init(&receiver->hurry, hurry, sync->hurry, EV_READ);
    receiver->hurry.data = receiver;
    ev_io_start(loop, &receiver->hurry);
    ev_init(&receiver->rest, rested);
    receiver->rest.data = receiver;
}
