/* SPDX-License-Identifier: MIT */
#include "sync_process.h"

#include "log.h"
#include "sync_catch_up.h"
#include "sync_flood.h"
#include "sync_priority.h"
#include "sync_receiver.h"

/* Peers learn of a new ticket key within this time, and hear of us in any case after so many of them. */
#define TICK_S       0.1
#define TICKS_A_BEAT 10
#define KEYS_TOLD    3

struct sync_process {
    struct ev_loop *loop;
    struct session_sync *sync;
    struct sync_outbox outbox;
    struct sync_inbox inbox;
    struct sync_receiver receiver;
    struct sync_flood flood;
    struct sync_priority *priority;
    uint64_t generation; /* of ticket keys that peers have been told of */
    int keys_due;        /* times that the last ones are still to be told */
    int ticks;
    ev_timer tick;
};

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
    sync_receiver_awake(&process->receiver);
}

static bool set_up(struct sync_process *process) {
    const struct session_sync *sync = process->sync;

    if (sync->store)
        session_store_begin(sync->store);
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
    sync_receiver_begin(&process.receiver, loop, sync, &process.inbox);
    ev_timer_init(&process.tick, time_passed, 0., TICK_S);
    process.tick.data = &process;
    ev_timer_start(loop, &process.tick);
    ev_run(loop, 0);
    return 0;
}
