/* SPDX-License-Identifier: MIT */
#include "sync_inbox.h"

#include "clock.h"
#include "units.h"

#include <openssl/crypto.h>
#include <stdlib.h>

/* A datagram that is this much older, or younger, than its sender's clock says now, is not taken. */
#define MISDATED_US (5 * INT64_C(1000000))
/* Clocks drift: a proof is asked for again after so long. */
#define PROOF_NS (60 * NS_PER_S)
/* After a question or an answer there may be more of them, */
#define ANSWERS_S 0.1
/* and who pulls sessions has clients that wait, now and later. */
#define PULLS_S 60.
/* No session lives longer (RFC 8446, 4.6.1); who says so makes our sums overflow. */
#define LIFETIME_MAX_MS (UINT64_C(7) * 24 * 3600 * 1000)

/* A datagram while it is taken. */
struct arrival {
    struct sync_head head;
    const struct address *from;
    struct sync_stranger *stranger; /* NULL: it is known, or gets no reply */
    uint64_t date_us, arrived_us;   /* of the sender's clock, and of ours */
    int64_t lag_us;
    struct reader messages;
    bool catching_up; /* what follows answers our catching up: these two are what SYNC_CAUGHT_UP says */
    uint64_t asked, next;
    bool new; /* a session went into the store */
};

bool sync_inbox_init(struct sync_inbox *inbox, struct ev_loop *loop, const struct session_sync *sync,
                     struct sync_outbox *outbox) {
    inbox->sync = sync;
    inbox->outbox = outbox;
    inbox->stranger = EVP_CIPHER_CTX_new();
    sync_catch_up_init(&inbox->catch_up, loop, outbox, &inbox->senders);
    return inbox->stranger && sync_strangers_init(&inbox->strangers) && sync_senders_init(&inbox->senders, sync->keys);
}

static void expect_answers(struct sync_inbox *inbox, double for_s) {
    if (inbox->answers_s < for_s)
        inbox->answers_s = for_s;
}

static void reply(struct sync_inbox *inbox, const uint8_t *addressee, const struct address *to,
                  const struct sync_message *message) {
    uint8_t bytes[SYNC_PACKET_BYTES_MAX];
    struct writer writer = sync_outbox_writer(bytes, addressee);

    expect_answers(inbox, ANSWERS_S);
    if (sync_message_write(&writer, NULL, message))
        sync_outbox_reply(inbox->outbox, to, &writer);
}

/* Asks the sender to prove that it is alive. */
static void challenge(struct sync_inbox *inbox, const uint8_t *sender, const struct address *to) {
    uint8_t nonce[SYNC_NONCE_BYTES];
    const struct sync_message message = {.kind = SYNC_CHALLENGE, .nonce = nonce};

    sync_senders_nonce(&inbox->senders, sender, monotonic_ns(), nonce);
    reply(inbox, sender, to, &message);
    sync_count(&inbox->sync->counters->challenges_sent, 1);
}

/* Whoever asks, known or not: it only learns that we are alive. */
static void answer_challenge(struct sync_inbox *inbox, const struct arrival *arrival,
                             const struct sync_message *message) {
    const struct sync_message proof = {.kind = SYNC_PROOF,
                                       .nonce = message->nonce,
                                       .number = __atomic_load_n(&inbox->sync->next[SYNC_TO_ALL], __ATOMIC_SEQ_CST)};

    if (arrival->head.stream == SYNC_TO_ONE)
        reply(inbox, arrival->head.sender, arrival->from, &proof);
}

static bool is_proof(const struct sync_inbox *inbox, const struct arrival *arrival,
                     const struct sync_message *message) {
    return message->kind == SYNC_PROOF && arrival->head.stream == SYNC_TO_ONE && message->number > 0 &&
           sync_senders_check_nonce(&inbox->senders, arrival->head.sender, monotonic_ns(), message->nonce);
}

/* Its clock showed the one date while ours showed the other. */
static void set_clock(struct sync_inbox *inbox, struct sync_sender *sender, const struct arrival *arrival) {
    sender->behind_us = (int64_t)(arrival->arrived_us - arrival->date_us);
    sender->proven_ns = monotonic_ns();
    sync_count(&inbox->sync->counters->proofs_taken, 1);
}

/* A sender that is not known: nothing of it is taken but a proof. */
static enum sync_rejection meet(struct sync_inbox *inbox, struct arrival *arrival) {
    static struct sync_session before;
    struct sync_sender *sender = NULL;
    struct sync_message message;

    before.length = 0;
    while (sync_message_read(&arrival->messages, &before, &message)) {
        if (message.kind == SYNC_CHALLENGE && sync_stranger_reply(arrival->stranger, SYNC_REPLY_PROOF, monotonic_ns()))
            answer_challenge(inbox, arrival, &message);
        if (!is_proof(inbox, arrival, &message))
            continue;
        sender = sync_senders_add(&inbox->senders, &arrival->head, message.number);
        if (!sender)
            return SYNC_crowded;
        break;
    }
    if (arrival->messages.failed)
        return SYNC_malformed;
    if (!sender) {
        if (sync_stranger_reply(arrival->stranger, SYNC_REPLY_CHALLENGE, monotonic_ns()))
            challenge(inbox, arrival->head.sender, arrival->from);
        return SYNC_unproven;
    }
    set_clock(inbox, sender, arrival);
    sender->address = *arrival->from;
    sender->heard_ns = monotonic_ns();
    sender->catch_up_due = true;
    inbox->sync->counters->peers++;
    sync_catch_up_go_on(&inbox->catch_up);
    return SYNC_TAKEN;
}

/* The sender's date in seconds of our clock; no later than a session can live. */
static uint64_t local_seconds(const struct sync_sender *sender, uint64_t date_ms, uint64_t now_ms) {
    int64_t left_ms = (int64_t)(date_ms + (uint64_t)(sender->behind_us / 1000) - now_ms);

    if (left_ms <= 0)
        return 0;
    return (now_ms + ((uint64_t)left_ms < LIFETIME_MAX_MS ? (uint64_t)left_ms : LIFETIME_MAX_MS)) / 1000;
}

static void count_rejection(const struct sync_inbox *inbox, enum sync_rejection reason) {
    sync_count(&inbox->sync->counters->rejected[reason], 1);
}

static void count_put(const struct sync_inbox *inbox, enum session_put_result result) {
    struct sync_counters *counters = inbox->sync->counters;

    switch (result) {
    case SESSION_KEPT_FOR_ANOTHER:
        sync_count(&counters->sessions_evicted, 1);
        sync_count(&counters->sessions_applied, 1);
        break;
    case SESSION_KEPT:
    case SESSION_KEPT_FOR_EXPIRED:
        sync_count(&counters->sessions_applied, 1);
        break;
    case SESSION_THERE_ALREADY:
        sync_count(&counters->sessions_known, 1);
        break;
    case SESSION_WITHDRAWN:
        count_rejection(inbox, SYNC_withdrawn);
        break;
    case SESSION_TOO_LARGE:
        count_rejection(inbox, SYNC_too_large);
        break;
    case SESSION_NO_ROOM: /* what is here already is worth more than what another had first */
        break;
    }
}

static void take_session(struct sync_inbox *inbox, const struct sync_sender *sender, struct arrival *arrival,
                         const struct sync_message *message) {
    uint64_t now_ms = realtime_ns() / NS_PER_MS, expires_s = local_seconds(sender, message->expires_ms, now_ms);

    if (expires_s <= now_ms / 1000) {
        count_rejection(inbox, SYNC_expired);
        return;
    }
    count_put(inbox, session_store_add(inbox->sync->store, message->id, message->id_length, message->session,
                                       message->session_length, now_ms / 1000, expires_s, arrival->catching_up));
    arrival->new = true;
}

static void take_withdrawal(struct sync_inbox *inbox, const struct sync_sender *sender,
                            const struct sync_message *message) {
    uint64_t now_ms = realtime_ns() / NS_PER_MS, until_s = local_seconds(sender, message->expires_ms, now_ms);
    struct sync_counters *counters = inbox->sync->counters;
    enum session_put_result result =
        session_store_withdraw(inbox->sync->store, message->id, message->id_length, now_ms / 1000, until_s);

    if (result == SESSION_THERE_ALREADY)
        sync_count(&counters->withdrawals_applied, 1);
    if (result == SESSION_KEPT_FOR_ANOTHER)
        sync_count(&counters->sessions_evicted, 1);
}

static void answer_pull(struct sync_inbox *inbox, const struct arrival *arrival, const struct sync_message *message) {
    static uint8_t bytes[SESSION_BYTES_MAX];
    uint8_t packet[SYNC_PACKET_BYTES_MAX];
    struct writer writer = sync_outbox_writer(packet, arrival->head.sender);
    struct sync_message answer = {
        .kind = SYNC_NEW, .id = message->id, .id_length = message->id_length, .session = bytes};
    uint64_t expires_s = 0;
    bool expired;

    answer.session_length = session_store_get(inbox->sync->store, message->id, message->id_length, bytes,
                                              realtime_ns() / NS_PER_S, false, &expired, &expires_s);
    if (!answer.session_length)
        return;
    answer.expires_ms = expires_s * 1000;
    sync_outbox_widen(&writer);
    if (sync_message_write(&writer, NULL, &answer))
        sync_outbox_reply(inbox->outbox, arrival->from, &writer);
    sync_count(&inbox->sync->counters->pulls_answered, 1);
}

static void take_ticket_key(struct sync_inbox *inbox, const struct sync_sender *sender,
                            const struct sync_message *message) {
    uint64_t now_ms = realtime_ns() / NS_PER_MS, expires_s = local_seconds(sender, message->expires_ms, now_ms);

    if (!inbox->sync->ticket_keys || expires_s <= now_ms / 1000)
        return;
    switch (foreign_keys_put(inbox->sync->foreign_keys, &message->key, message->key_use != SYNC_KEY_OPENS, expires_s)) {
    case FOREIGN_KEY_NEW:
        sync_count(&inbox->sync->counters->ticket_keys_applied, 1);
        break;
    case FOREIGN_KEY_NO_ROOM:
        count_rejection(inbox, SYNC_crowded);
        break;
    case FOREIGN_KEY_KNOWN:
        break;
    }
}

static void take_message(struct sync_inbox *inbox, struct sync_sender *sender, struct arrival *arrival,
                         const struct sync_message *message) {
    bool has_store = inbox->sync->store != NULL;

    switch (message->kind) {
    case SYNC_CHALLENGE:
        answer_challenge(inbox, arrival, message);
        break;
    case SYNC_PROOF:
        if (is_proof(inbox, arrival, message))
            set_clock(inbox, sender, arrival);
        break;
    case SYNC_NEW:
        if (has_store)
            take_session(inbox, sender, arrival, message);
        break;
    case SYNC_DEL:
        if (has_store)
            take_withdrawal(inbox, sender, message);
        break;
    case SYNC_GET:
        expect_answers(inbox, PULLS_S);
        if (has_store)
            answer_pull(inbox, arrival, message);
        break;
    case SYNC_CATCH_UP:
        sync_catch_up_answer(inbox->outbox, sender->id, arrival->from, message->number);
        break;
    case SYNC_CAUGHT_UP:
        arrival->catching_up = true;
        arrival->asked = message->number;
        arrival->next = message->next;
        break;
    case SYNC_TICKET_KEY:
        take_ticket_key(inbox, sender, message);
        break;
    }
}

static void count_lag(struct sync_counters *counters, uint64_t lag_us) {
    sync_count(&counters->lag_us_sum, lag_us);
    sync_count(&counters->lag_count, 1);
    counters->lag_us_last = lag_us;
    if (lag_us > counters->lag_us_max)
        counters->lag_us_max = lag_us;
}

static bool holds_proof(const struct sync_inbox *inbox, const struct arrival *arrival) {
    static struct sync_session before;
    struct reader messages = arrival->messages;
    struct sync_message message;

    before.length = 0;
    while (sync_message_read(&messages, &before, &message))
        if (is_proof(inbox, arrival, &message))
            return true;
    return false;
}

static bool is_far(int64_t off_us) {
    return off_us > MISDATED_US || off_us < -MISDATED_US;
}

/* How long a datagram was on its way, beyond the shortest since the last proof. False: it is not of this time. */
static bool check_date(const struct sync_inbox *inbox, struct sync_sender *sender, struct arrival *arrival) {
    arrival->lag_us = (int64_t)(arrival->arrived_us - arrival->date_us - (uint64_t)sender->behind_us);
    if (is_far(arrival->lag_us))
        return holds_proof(inbox, arrival); /* its clock, or ours, was set */
    if (arrival->lag_us < 0) {
        sender->behind_us += arrival->lag_us;
        arrival->lag_us = 0;
    }
    return true;
}

/* Its clock, or ours, may have been set, or somebody keeps back all that it sends. */
static void challenge_misdated(struct sync_inbox *inbox, struct sync_sender *sender, const struct address *to,
                               uint64_t now_ns) {
    if (now_ns - sender->misdated_ns < SYNC_REPLY_NS)
        return;
    sender->misdated_ns = now_ns;
    challenge(inbox, sender->id, to);
}

/* A sender that is known. */
static enum sync_rejection hear(struct sync_inbox *inbox, struct sync_sender *sender, struct arrival *arrival) {
    static struct sync_session before;
    struct sync_counters *counters = inbox->sync->counters;
    uint64_t now_ns = monotonic_ns(), not_counted = 0;
    uint32_t stream = arrival->head.stream;
    struct sync_message message;

    /* The proof has overtaken it, or it was recorded before: nobody can tell. Catching up brings its sessions. */
    if (arrival->head.number <= sender->before_proof[stream])
        return SYNC_unproven;
    if (!replay_window_take(&sender->window[stream], arrival->head.number,
                            stream == SYNC_TO_ALL ? &counters->lost : &not_counted))
        return SYNC_replayed;
    if (!check_date(inbox, sender, arrival)) {
        challenge_misdated(inbox, sender, arrival->from, now_ns);
        return SYNC_misdated;
    }
    sender->heard_ns = now_ns;
    sender->address = *arrival->from;
    if (stream == SYNC_TO_ONE)
        expect_answers(inbox, ANSWERS_S);
    before.length = 0;
    while (sync_message_read(&arrival->messages, &before, &message))
        take_message(inbox, sender, arrival, &message);
    OPENSSL_cleanse(&message.key, sizeof message.key);
    if (arrival->messages.failed)
        return SYNC_malformed;
    if (arrival->catching_up)
        sync_catch_up_answered(&inbox->catch_up, sender, arrival->asked, arrival->next);
    if (arrival->new &&stream == SYNC_TO_ALL)
        count_lag(counters, (uint64_t)arrival->lag_us);
    if (now_ns > sender->proven_ns + PROOF_NS) { /* proven_ns may be later: the proof may have been in this very one */
        sender->proven_ns = now_ns - PROOF_NS + NS_PER_S; /* again in a second, if there is no answer */
        challenge(inbox, sender->id, arrival->from);
    }
    return SYNC_TAKEN;
}

/* What is for one goes to the whole of a group. */
static bool is_for_us(const struct sync_inbox *inbox, struct arrival *arrival) {
    const uint8_t *addressee;

    if (arrival->head.stream == SYNC_TO_ALL)
        return true;
    addressee = reader_take(&arrival->messages, SYNC_SENDER_BYTES);
    return addressee && memcmp(addressee, inbox->sync->id, SYNC_SENDER_BYTES) == 0;
}

static struct sync_stranger *hear_stranger(struct sync_inbox *inbox, const struct arrival *arrival) {
    int64_t off_us = (int64_t)(arrival->arrived_us - arrival->date_us);

    return sync_strangers_hear(&inbox->strangers, &arrival->head,
                               is_far(off_us) ? SYNC_OF_ANOTHER_TIME : SYNC_OF_THIS_TIME, monotonic_ns());
}

static enum sync_rejection take_sealed(struct sync_inbox *inbox, const uint8_t *datagram, size_t length,
                                       const struct address *from, uint64_t arrived_us) {
    static uint8_t opened[SYNC_PACKET_BYTES_MAX];
    struct arrival arrival = {.from = from, .arrived_us = arrived_us};
    enum sync_rejection rejection = sync_packet_read_head(datagram, length, &arrival.head);
    struct sync_sender *sender;
    EVP_CIPHER_CTX *cipher;

    if (rejection != SYNC_TAKEN)
        return rejection;
    /* Our own comes back from a group that stays on this host; from elsewhere, somebody else has sent it. */
    if (memcmp(arrival.head.sender, inbox->sync->id, SYNC_SENDER_BYTES) == 0)
        return sharing_is_multicast(&inbox->sync->sharing.own) ? SYNC_TAKEN : SYNC_replayed;
    sender = sync_senders_find(&inbox->senders, arrival.head.sender);
    if (!sender && sync_strangers_have_heard(&inbox->strangers, &arrival.head))
        return SYNC_unproven;
    cipher = sender ? sender->open : inbox->stranger;
    if ((!sender && !sync_cipher_set(cipher, inbox->senders.keys, arrival.head.sender, false)) ||
        !sync_packet_open(cipher, &arrival.head, datagram, length, opened, &arrival.date_us, &arrival.messages))
        return SYNC_forged;
    if (!is_for_us(inbox, &arrival))
        return sharing_is_multicast(&inbox->sync->sharing.own) ? SYNC_TAKEN : SYNC_misaddressed;
    if (!sender)
        arrival.stranger = hear_stranger(inbox, &arrival);
    return sender ? hear(inbox, sender, &arrival) : meet(inbox, &arrival);
}

/* stud's have no numbers: what is there already, or was withdrawn, stays as it is, and nothing lives longer for it. */
static enum sync_rejection take_stud(struct sync_inbox *inbox, const uint8_t *datagram, size_t length) {
    const struct session_sync *sync = inbox->sync;
    uint64_t now_s = realtime_ns() / NS_PER_S, born_s;
    struct stud_session session;
    enum sync_rejection rejection = sync_stud_read(sync->stud_key, datagram, length, &session);

    if (rejection != SYNC_TAKEN)
        return rejection;
    if (session.born_s > now_s + sync->lifetime_s)
        return SYNC_misdated;
    born_s = session.born_s < now_s ? session.born_s : now_s;
    if (born_s + sync->lifetime_s <= now_s)
        return SYNC_expired;
    count_put(inbox, session_store_add(sync->store, session.id, session.id_length, session.bytes, session.length, now_s,
                                       born_s + sync->lifetime_s, false));
    return SYNC_TAKEN;
}

void sync_inbox_take(struct sync_inbox *inbox, const uint8_t *datagram, size_t length, const struct address *from,
                     uint64_t arrived_us) {
    struct sync_counters *counters = inbox->sync->counters;
    enum sync_rejection rejection;

    sync_count(&counters->datagrams_received, 1);
    sync_count(&counters->bytes_received, length);
    rejection = inbox->sync->sharing.format == SHARING_STUD ? take_stud(inbox, datagram, length)
                                                            : take_sealed(inbox, datagram, length, from, arrived_us);
    if (rejection != SYNC_TAKEN)
        count_rejection(inbox, rejection);
}

void sync_inbox_look_around(struct sync_inbox *inbox) {
    inbox->sync->counters->peers = (uint64_t)sync_senders_expire(&inbox->senders, monotonic_ns());
    foreign_keys_expire(inbox->sync->foreign_keys, realtime_ns() / NS_PER_S);
    sync_catch_up_go_on(&inbox->catch_up);
}
