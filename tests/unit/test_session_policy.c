/* SPDX-License-Identifier: MIT */
/* Without these, "every 100" is a guess: which handshakes offer a session, with an engine that only counts references.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "session_policy.h"

static int sessions_alive;
static bool single_use;

static bool fake_single_use(const void *session) {
    (void)session;
    return single_use;
}

static void fake_free(void *session) {
    (void)session;
    sessions_alive--;
}

static const struct engine engine = {.session_single_use = fake_single_use, .session_free = fake_free};

static void *new_session(void) {
    static char sessions[1000000];

    return &sessions[sessions_alive++];
}

static struct session_policy policy_of(const char *text) {
    struct session_policy policy;

    assert_null(session_policy_parse(&policy, text));
    return policy;
}

/* One connection to a server that always resumes and always issues a new session. True if it was a full handshake. */
static bool connect_once(struct session_slot *slot) {
    bool full = session_slot_offer(slot) == NULL;

    session_slot_used(slot);
    session_slot_completed(slot);
    session_slot_keep(slot, new_session());
    return full;
}

static void one_full_in_every_aligned_run_of_n(void **state) {
    static const uint64_t every[] = {1, 2, 3, 10, 100, 101};
    (void)state;

    for (size_t e = 0; e < sizeof every / sizeof *every; e++) {
        struct session_policy policy = {.reuse = REUSE_EVERY, .every = every[e]};
        for (uint64_t index = 0; index < 7; index++) {
            struct session_slot slot;
            session_slot_init(&slot, &policy, &engine, index, 7);
            for (int block = 0; block < 20; block++) {
                int full = 0;
                for (uint64_t i = 0; i < every[e]; i++)
                    full += connect_once(&slot);
                assert_int_equal(full, 1);
            }
            session_slot_end(&slot);
        }
    }
    assert_int_equal(sessions_alive, 0);
}

static void full_handshakes_of_slots_do_not_coincide(void **state) {
    struct session_policy policy = policy_of("every:50");
    struct session_slot slots[10];
    (void)state;

    for (uint64_t i = 0; i < 10; i++)
        session_slot_init(&slots[i], &policy, &engine, i, 10);
    for (int round = 0; round < 500; round++) {
        int full = 0;
        for (int i = 0; i < 10; i++)
            full += connect_once(&slots[i]);
        if (round >= 50)
            assert_true(full <= 1);
    }
    for (int i = 0; i < 10; i++)
        session_slot_end(&slots[i]);
    assert_int_equal(sessions_alive, 0);
}

static void always_is_full_once(void **state) {
    struct session_policy policy = policy_of("always");
    struct session_slot slot;
    (void)state;

    session_slot_init(&slot, &policy, &engine, 3, 4);
    assert_true(connect_once(&slot));
    for (int i = 0; i < 1000; i++)
        assert_false(connect_once(&slot));
    session_slot_end(&slot);
}

static void never_offers_nothing(void **state) {
    struct session_policy policy = policy_of("never");
    struct session_slot slot;
    (void)state;

    session_slot_init(&slot, &policy, &engine, 0, 1);
    for (int i = 0; i < 10; i++)
        assert_true(connect_once(&slot));
    session_slot_end(&slot);
    assert_int_equal(sessions_alive, 0);
}

static void a_ticket_is_offered_once(void **state) {
    struct session_policy policy = policy_of("always");
    struct session_slot slot;
    (void)state;

    session_slot_init(&slot, &policy, &engine, 0, 1);
    connect_once(&slot);
    single_use = true;
    assert_non_null(session_slot_offer(&slot));
    session_slot_used(&slot);
    assert_null(session_slot_offer(&slot));
    single_use = false;
    session_slot_keep(&slot, new_session());
    session_slot_used(&slot);
    assert_non_null(session_slot_offer(&slot));
    session_slot_end(&slot);
    assert_int_equal(sessions_alive, 0);
}

/* A single-use session that was offered, in a handshake that came to nothing. */
static void come_to_nothing(struct session_slot *slot, bool target_was_gone) {
    assert_non_null(session_slot_offer(slot));
    session_slot_used(slot);
    session_slot_failed(slot, target_was_gone);
}

static void where_the_target_was_gone_a_session_is_offered_once_more(void **state) {
    struct session_policy policy = policy_of("always");
    struct session_slot slot;
    (void)state;

    session_slot_init(&slot, &policy, &engine, 0, 1);
    single_use = true;
    session_slot_keep(&slot, new_session());
    come_to_nothing(&slot, true);
    assert_int_equal(sessions_alive, 1);
    come_to_nothing(&slot, true);
    assert_int_equal(sessions_alive, 0);
    assert_null(session_slot_offer(&slot));
    session_slot_keep(&slot, new_session());
    come_to_nothing(&slot, false);
    assert_null(session_slot_offer(&slot));
    /* Used up by a handshake that was completed, and then the connection is lost. */
    session_slot_keep(&slot, new_session());
    come_to_nothing(&slot, true);
    assert_non_null(session_slot_offer(&slot));
    session_slot_used(&slot);
    session_slot_completed(&slot);
    session_slot_failed(&slot, true);
    assert_null(session_slot_offer(&slot));
    assert_int_equal(sessions_alive, 0);
    single_use = false;
    session_slot_keep(&slot, new_session());
    come_to_nothing(&slot, false);
    come_to_nothing(&slot, true);
    assert_non_null(session_slot_offer(&slot));
    session_slot_end(&slot);
    assert_int_equal(sessions_alive, 0);
}

static void a_failed_handshake_is_due_again(void **state) {
    struct session_policy policy = policy_of("every:2");
    struct session_slot slot;
    (void)state;

    session_slot_init(&slot, &policy, &engine, 0, 1);
    assert_true(connect_once(&slot));
    assert_false(connect_once(&slot));
    assert_null(session_slot_offer(&slot)); /* fails */
    assert_null(session_slot_offer(&slot)); /* fails again */
    assert_true(connect_once(&slot));
    assert_false(connect_once(&slot));
    session_slot_end(&slot);
}

static void nonsense_is_refused(void **state) {
    static const char *const bad[] = {
        "", "sometimes", "every", "every:", "every:0", "every:-1", "every:1x", "every:99999999999"};
    struct session_policy policy;
    (void)state;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_non_null(session_policy_parse(&policy, bad[i]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_full_in_every_aligned_run_of_n),
        cmocka_unit_test(full_handshakes_of_slots_do_not_coincide),
        cmocka_unit_test(always_is_full_once),
        cmocka_unit_test(never_offers_nothing),
        cmocka_unit_test(a_ticket_is_offered_once),
        cmocka_unit_test(where_the_target_was_gone_a_session_is_offered_once_more),
        cmocka_unit_test(a_failed_handshake_is_due_again),
        cmocka_unit_test(nonsense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
