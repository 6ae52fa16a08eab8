/* SPDX-License-Identifier: MIT */
#include "sync_catch_up.h"

#include "clock.h"
#include "units.h"

#include <openssl/crypto.h>

#define RETRY_S 0.01
/*
 * After half a second without an answer it is the next peer's turn. With half of all datagrams lost, that happens to
 * one in a million; to any whose process gets no CPU.
 */
#define TRIES 50
/* So many places of the store are looked at for one answer: a tenth of a millisecond. */
#define PLACES 2048

static void ask(struct sync_catch_up *catch_up) {
    const struct sync_message message = {.kind = SYNC_CATCH_UP, .number = catch_up->number};
    uint8_t bytes[SYNC_PACKET_BYTES_MAX];
    struct writer writer = sync_outbox_writer(bytes, catch_up->id);

    sync_message_write(&writer, NULL, &message);
    sync_outbox_reply(catch_up->outbox, &catch_up->from->address, &writer);
    ev_timer_again(catch_up->loop, &catch_up->timer);
}

static void end(struct sync_catch_up *catch_up) {
    ev_timer_stop(catch_up->loop, &catch_up->timer);
    catch_up->from = NULL;
    sync_catch_up_go_on(catch_up);
}

/* Whoever was asked may have been forgotten meanwhile, and its place given to another. */
static bool is_there(const struct sync_catch_up *catch_up) {
    return catch_up->from->open && memcmp(catch_up->from->id, catch_up->id, sizeof catch_up->id) == 0;
}

static void ask_again(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    struct sync_catch_up *catch_up = timer->data;
    struct sync_sender *from = catch_up->from;

    if (!is_there(catch_up)) {
        end(catch_up);
    } else if (++catch_up->tries < TRIES) {
        ask(catch_up);
    } else {
        end(catch_up);
        from->catch_up_due = true; /* after the others, or in a second */
    }
}

void sync_catch_up_init(struct sync_catch_up *catch_up, struct ev_loop *loop, struct sync_outbox *outbox,
                        struct sync_senders *senders) {
    *catch_up = (struct sync_catch_up){.loop = loop, .outbox = outbox, .senders = senders};
    ev_init(&catch_up->timer, ask_again);
    catch_up->timer.repeat = RETRY_S;
    catch_up->timer.data = catch_up;
}

void sync_catch_up_go_on(struct sync_catch_up *catch_up) {
    for (int i = 0; i < SYNC_SENDERS_MAX && !catch_up->from; i++) {
        struct sync_sender *sender = &catch_up->senders->sender[i];
        if (!sender->open || !sender->catch_up_due)
            continue;
        sender->catch_up_due = false;
        catch_up->from = sender;
        memcpy(catch_up->id, sender->id, sizeof catch_up->id);
        catch_up->number = 0;
        catch_up->tries = 0;
        sync_count(&catch_up->outbox->sync->counters->catch_ups_begun, 1);
        ask(catch_up);
    }
}

void sync_catch_up_answered(struct sync_catch_up *catch_up, const struct sync_sender *from, uint64_t number,
                            uint64_t next) {
    if (catch_up->from != from || !is_there(catch_up) || number != catch_up->number)
        return;
    if (!next) {
        sync_count(&catch_up->outbox->sync->counters->catch_ups_done, 1);
        end(catch_up);
        return;
    }
    catch_up->number = next;
    catch_up->tries = 0;
    ask(catch_up);
}

bool sync_catch_up_write_keys(const struct session_sync *sync, struct writer *writer) {
    static const uint8_t uses[] = {SYNC_KEY_NEXT, SYNC_KEY_SEALS, SYNC_KEY_OPENS};
    struct listed_key list[LISTED_KEYS_MAX];
    int count = sync->ticket_keys ? ticket_keys_list(sync->ticket_keys, list) : 0;
    bool all = true;

    for (int i = 0; i < count; i++) {
        struct sync_message message = {.kind = SYNC_TICKET_KEY,
                                       .expires_ms = list[i].expires_s * 1000,
                                       .key_use = uses[list[i].age + 1],
                                       .key = list[i].key};
        all = sync_message_write(writer, NULL, &message) && all;
        OPENSSL_cleanse(&message, sizeof message);
    }
    OPENSSL_cleanse(list, sizeof list);
    return all;
}

/* Sessions from that place on, as many as fit; where to go on, or 0. */
static uint64_t write_sessions(struct session_store *store, uint64_t at, struct writer *writer) {
    static struct stored_session session;
    static struct sync_session before;
    uint64_t now_s = realtime_ns() / NS_PER_S;
    bool alone = true;

    before.length = 0;
    for (int looked_at = 0; looked_at < PLACES; looked_at++) {
        struct sync_message message = {.kind = SYNC_NEW, .id = session.id, .session = session.bytes};
        uint64_t here = at;

        if (session_store_walk(store, &at, 1, now_s, &session)) {
            message.expires_ms = session.expires_s * 1000;
            message.id_length = session.id_length;
            message.session_length = session.length;
            if (alone)
                sync_outbox_widen(writer);
            if (!sync_message_write(writer, &before, &message))
                return here;
            sync_outbox_narrow(writer);
            alone = false;
        }
        if (!at)
            break;
    }
    return at;
}

void sync_catch_up_answer(struct sync_outbox *outbox, const uint8_t *from, const struct address *to, uint64_t number) {
    uint8_t bytes[SYNC_PACKET_BYTES_MAX];
    struct writer writer = sync_outbox_writer(bytes, from), first = writer;
    struct sync_message message = {.kind = SYNC_CAUGHT_UP, .number = number};

    /* It comes first, though it is known last where to go on. */
    sync_message_write(&writer, NULL, &message);
    if (number == 0)
        sync_catch_up_write_keys(outbox->sync, &writer);
    if (outbox->sync->store)
        message.next = write_sessions(outbox->sync->store, number, &writer);
    sync_message_write(&first, NULL, &message);
    sync_outbox_reply(outbox, to, &writer);
    OPENSSL_cleanse(bytes, sizeof bytes);
}
