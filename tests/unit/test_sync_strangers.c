/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sync_strangers.h"

#include <stdlib.h>
#include <string.h>

#define NOW  UINT64_C(1000000000000)
#define MANY (100 * SYNC_STRANGER_PLACES)

static struct sync_strangers strangers;

static int set_up(void **state) {
    (void)state;
    return sync_strangers_init(&strangers) ? 0 : -1;
}

/* Of a sender with that number: its ID is as good as random. */
static struct sync_head head_of(uint32_t sender, enum sync_stream stream, uint64_t number) {
    struct sync_head head = {.stream = stream, .number = number};
    uint64_t spread = (sender + 1) * UINT64_C(0x9e3779b97f4a7c15);

    spread = (spread ^ spread >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    spread ^= spread >> 32;
    memcpy(head.sender, &spread, sizeof spread);
    return head;
}

/* What becomes of a datagram whose sender is not known: true if it gets that reply. */
static bool replied(struct sync_head head, enum sync_recency recency, enum sync_reply reply, uint64_t now_ns) {
    return !sync_strangers_have_heard(&strangers, &head) &&
           sync_stranger_reply(sync_strangers_hear(&strangers, &head, recency, now_ns), reply, now_ns);
}

static void what_has_come_before_gets_no_reply(void **state) {
    (void)state;
    assert_true(replied(head_of(1, SYNC_TO_ALL, 7), SYNC_OF_ANOTHER_TIME, SYNC_REPLY_CHALLENGE, NOW));
    for (uint64_t number = 1; number <= 7; number++)
        for (int recency = 0; recency < SYNC_RECENCIES; recency++)
            assert_false(
                replied(head_of(1, SYNC_TO_ALL, number), recency, SYNC_REPLY_CHALLENGE, NOW + 100 * SYNC_REPLY_NS));
    assert_true(replied(head_of(1, SYNC_TO_ALL, 8), SYNC_OF_THIS_TIME, SYNC_REPLY_CHALLENGE, NOW + SYNC_REPLY_NS));
    /* Each stream has numbers of its own. */
    assert_true(replied(head_of(1, SYNC_TO_ONE, 1), SYNC_OF_THIS_TIME, SYNC_REPLY_PROOF, NOW + SYNC_REPLY_NS));
}

static void a_sender_gets_one_reply_of_a_kind_at_a_time(void **state) {
    (void)state;
    assert_true(replied(head_of(1, SYNC_TO_ALL, 1), SYNC_OF_THIS_TIME, SYNC_REPLY_CHALLENGE, NOW));
    assert_true(replied(head_of(1, SYNC_TO_ONE, 1), SYNC_OF_THIS_TIME, SYNC_REPLY_PROOF, NOW));
    for (uint64_t number = 2; number < 10; number++) {
        uint64_t now_ns = NOW + SYNC_REPLY_NS - number;

        assert_false(replied(head_of(1, SYNC_TO_ALL, number), SYNC_OF_THIS_TIME, SYNC_REPLY_CHALLENGE, now_ns));
        assert_false(replied(head_of(1, SYNC_TO_ONE, number), SYNC_OF_THIS_TIME, SYNC_REPLY_PROOF, now_ns));
    }
    assert_true(replied(head_of(1, SYNC_TO_ALL, 10), SYNC_OF_THIS_TIME, SYNC_REPLY_CHALLENGE, NOW + SYNC_REPLY_NS));
}

/* As many as were ever recorded, one after the other, all within the time of one reply; how many were replied to. */
static int replay_many(uint64_t number, enum sync_recency recency, uint64_t now_ns) {
    int count = 0;

    for (uint32_t sender = 0; sender < MANY; sender++)
        count += replied(head_of(sender, SYNC_TO_ALL, number), recency, SYNC_REPLY_CHALLENGE, now_ns);
    return count;
}

static void replies_have_an_end_however_many_senders_were_recorded(void **state) {
    uint64_t number = 1;

    (void)state;
    for (uint64_t now_ns = NOW; number < 10; now_ns += SYNC_REPLY_NS, number++) {
        int count = replay_many(number, SYNC_OF_ANOTHER_TIME, now_ns);

        assert_in_range(count, SYNC_STRANGER_PLACES / 2, SYNC_STRANGER_PLACES);
        assert_int_equal(replay_many(number, SYNC_OF_ANOTHER_TIME, now_ns + SYNC_REPLY_NS - 1), 0);
    }
}

static void senders_that_were_recorded_leave_the_places_of_those_of_now_alone(void **state) {
    (void)state;
    for (uint32_t sender = MANY; sender < MANY + 100; sender++) {
        uint64_t now_ns = NOW + sender * SYNC_REPLY_NS;

        replay_many(sender, SYNC_OF_ANOTHER_TIME, now_ns);
        assert_true(replied(head_of(sender, SYNC_TO_ALL, 1), SYNC_OF_THIS_TIME, SYNC_REPLY_CHALLENGE, now_ns));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_has_come_before_gets_no_reply, set_up),
        cmocka_unit_test_setup(a_sender_gets_one_reply_of_a_kind_at_a_time, set_up),
        cmocka_unit_test_setup(replies_have_an_end_however_many_senders_were_recorded, set_up),
        cmocka_unit_test_setup(senders_that_were_recorded_leave_the_places_of_those_of_now_alone, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
