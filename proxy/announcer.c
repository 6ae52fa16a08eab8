/* SPDX-License-Identifier: MIT */
#include "announcer.h"

#include "clock.h"
#include "sync_socket.h"

/* A withdrawal that is lost leaves a dead session alive elsewhere: it is told so often more, so far apart. */
#define TOLD_AGAIN   2
#define TELL_AGAIN_S 0.1
/*
 * A datagram costs more than a session, here and there: what is born within this time shares one. So however many there
 * are, they take no more than so many datagrams a second, until those are full. Others wait for them no longer than
 * this, but those of a worker that is kept from its CPU meanwhile come later.
 */
#define COLLECT_US 1000

static void look_again(struct announcer *announcer, uint64_t in_us) {
    ev_timer_set(&announcer->collect, (ev_tstamp)in_us / 1e6, 0.);
    ev_timer_start(announcer->loop, &announcer->collect);
}

/* To all, with whatever else there is to tell by then. */
static void tell(struct announcer *announcer, const struct sync_message *message, uint64_t born_us) {
    sync_outbox_add(&announcer->outbox, message, born_us);
    if (!ev_is_active(&announcer->collect))
        look_again(announcer, COLLECT_US);
}

/* What is left to wait for what was collected, 0: nothing. */
static uint64_t left_us(const struct announcer *announcer) {
    uint64_t due_us = announcer->outbox.batch_date_us + COLLECT_US, now_us = realtime_ns() / 1000;

    /* A clock that was set back makes nobody wait for longer. */
    return due_us > now_us && due_us <= now_us + COLLECT_US ? due_us - now_us : 0;
}

void announcer_look(struct announcer *announcer) {
    if (announcer->outbox.batch_date_us && !left_us(announcer))
        sync_outbox_flush(&announcer->outbox);
}

/* The timer is of the first of those collected since it was last idle, and those may have left already. */
static void time_passed(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct announcer *announcer = timer->data;
    uint64_t wait_us = announcer->outbox.batch_date_us ? left_us(announcer) : 0;

    if (wait_us)
        look_again(announcer, wait_us);
    else
        sync_outbox_flush(&announcer->outbox);
}

static void tell_del(struct announcer *announcer, const struct told_del *del) {
    const struct sync_message message = {
        .kind = SYNC_DEL, .id = del->id, .id_length = del->id_length, .expires_ms = del->expires_s * 1000};

    tell(announcer, &message, 0);
}

static void tell_dels_again(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)events;
    struct announcer *announcer = timer->data;
    bool any = false;

    for (int i = 0; i < DELS_TOLD_AGAIN; i++)
        if (announcer->del[i].left) {
            announcer->del[i].left--;
            tell_del(announcer, &announcer->del[i]);
            any = true;
        }
    if (!any)
        ev_timer_stop(loop, timer);
}

bool announcer_begin(struct announcer *announcer, struct ev_loop *loop) {
    announcer->loop = loop;
    ev_init(&announcer->collect, time_passed);
    announcer->collect.data = announcer;
    ev_init(&announcer->tell_again, tell_dels_again);
    announcer->tell_again.repeat = TELL_AGAIN_S;
    announcer->tell_again.data = announcer;
    return sync_outbox_init(&announcer->outbox, announcer->sync);
}

/* stud's datagrams hold one session each. */
static void send_as_stud(struct announcer *announcer, const struct stored_session *session) {
    const struct session_sync *sync = announcer->sync;
    const struct stud_session made = {.id = session->id,
                                      .id_length = session->id_length,
                                      .bytes = session->bytes,
                                      .length = session->length,
                                      .born_s = (uint32_t)(session->expires_s - sync->lifetime_s)};
    uint8_t datagram[STUD_PACKET_BYTES];
    size_t length = sync_stud_make(sync->stud_key, &made, datagram);

    if (length)
        sync_outbox_count(sync, length, sync_socket_send_all(sync->fd, &sync->sharing, datagram, length),
                          sync_socket_targets(&sync->sharing));
}

void announcer_new(struct announcer *announcer, const struct stored_session *session) {
    const struct sync_message message = {.kind = SYNC_NEW,
                                         .expires_ms = session->expires_s * 1000,
                                         .id = session->id,
                                         .id_length = session->id_length,
                                         .session = session->bytes,
                                         .session_length = session->length};

    if (announcer->sync->sharing.format == SHARING_STUD)
        send_as_stud(announcer, session);
    else
        tell(announcer, &message, realtime_ns() / 1000);
    sync_count(&announcer->sync->counters->sessions_announced, 1);
}

void announcer_del(struct announcer *announcer, const uint8_t *id, size_t id_length, uint64_t expires_s) {
    struct told_del *del = &announcer->del[announcer->next_del++ % DELS_TOLD_AGAIN];

    if (announcer->sync->sharing.format == SHARING_STUD)
        return;
    *del = (struct told_del){.left = TOLD_AGAIN, .id_length = id_length, .expires_s = expires_s};
    memcpy(del->id, id, id_length);
    tell_del(announcer, del);
    if (!ev_is_active(&announcer->tell_again))
        ev_timer_again(announcer->loop, &announcer->tell_again);
    sync_count(&announcer->sync->counters->withdrawals_announced, 1);
}

void announcer_get(struct announcer *announcer, const uint8_t *id, size_t id_length) {
    const struct sync_message message = {.kind = SYNC_GET, .id = id, .id_length = id_length};

    sync_outbox_add(&announcer->outbox, &message, 0);
    sync_outbox_flush(&announcer->outbox);
    sync_count(&announcer->sync->counters->pulls_asked, 1);
}
