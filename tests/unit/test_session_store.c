/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "session_store.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOW   UINT64_C(1000)
#define LATER UINT64_C(2000)

static void id_of(uint32_t number, uint8_t *id) {
    memset(id, 0, SESSION_ID_MAX);
    memcpy(id, &number, sizeof number);
}

static enum session_put_result put(struct session_store *store, uint32_t number) {
    uint8_t id[SESSION_ID_MAX];

    id_of(number, id);
    return session_store_put(store, id, sizeof id, (const uint8_t *)&number, sizeof number, NOW, LATER);
}

/* True if the session is there and is the one that was put. */
static bool holds(struct session_store *store, uint32_t number) {
    uint8_t id[SESSION_ID_MAX], bytes[SESSION_BYTES_MAX];
    uint32_t found;
    uint64_t expires_s;
    bool expired;

    id_of(number, id);
    if (session_store_get(store, id, sizeof id, bytes, NOW, false, &expired, &expires_s) != sizeof number)
        return false;
    memcpy(&found, bytes, sizeof found);
    assert_int_equal(found, number);
    return true;
}

static void a_small_cache_holds_as_many_as_it_was_given(void **state) {
    (void)state;
    struct session_store *store = session_store_new(100, SESSION_BYTES);

    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(put(store, i), SESSION_KEPT);
    for (uint32_t i = 0; i < 100; i++)
        assert_true(holds(store, i));
    assert_int_equal(session_store_count(store), 100);
}

static void a_full_cache_forgets_what_was_used_longest_ago(void **state) {
    (void)state;
    struct session_store *store = session_store_new(3, SESSION_BYTES);

    put(store, 1);
    put(store, 2);
    put(store, 3);
    assert_true(holds(store, 1)); /* now 2 is the oldest */
    put(store, 4);
    assert_false(holds(store, 2));
    assert_true(holds(store, 1) && holds(store, 3) && holds(store, 4));
    assert_int_equal(session_store_count(store), 3);
}

static void a_large_cache_neither_loses_nor_mixes_up_sessions(void **state) {
    (void)state;
    const uint32_t sessions = 50000;
    struct session_store *store = session_store_new(sessions * 2, SESSION_BYTES);

    for (uint32_t i = 0; i < sessions; i++)
        put(store, i);
    for (uint32_t i = 0; i < sessions; i++)
        assert_true(holds(store, i));
    for (uint32_t i = 0; i < sessions; i += 2) {
        uint8_t id[SESSION_ID_MAX];
        id_of(i, id);
        session_store_remove(store, id, sizeof id);
    }
    for (uint32_t i = 0; i < sessions; i++)
        assert_int_equal(holds(store, i), i % 2 == 1);
    assert_int_equal(session_store_count(store), sessions / 2);
}

static void putting_again_replaces(void **state) {
    (void)state;
    struct session_store *store = session_store_new(10, SESSION_BYTES);
    uint8_t id[SESSION_ID_MAX], bytes[SESSION_BYTES_MAX];
    uint64_t expires_s;
    bool expired;

    id_of(7, id);
    session_store_put(store, id, sizeof id, (const uint8_t *)"old", 3, NOW, LATER);
    session_store_put(store, id, sizeof id, (const uint8_t *)"newer", 5, NOW, LATER);
    assert_int_equal(session_store_get(store, id, sizeof id, bytes, NOW, false, &expired, &expires_s), 5);
    assert_memory_equal(bytes, "newer", 5);
    assert_int_equal(session_store_count(store), 1);
}

static void an_expired_session_is_gone_at_its_second(void **state) {
    (void)state;
    struct session_store *store = session_store_new(10, SESSION_BYTES);
    uint8_t id[SESSION_ID_MAX], bytes[SESSION_BYTES_MAX];
    uint64_t expires_s;
    bool expired;

    id_of(7, id);
    session_store_put(store, id, sizeof id, (const uint8_t *)"x", 1, NOW, LATER);
    assert_int_equal(session_store_get(store, id, sizeof id, bytes, LATER - 1, false, &expired, &expires_s), 1);
    assert_false(expired);
    assert_int_equal(session_store_get(store, id, sizeof id, bytes, LATER, false, &expired, &expires_s), 0);
    assert_true(expired);
    assert_int_equal(session_store_get(store, id, sizeof id, bytes, LATER, false, &expired, &expires_s), 0);
    assert_false(expired); /* it is not there at all now */
    assert_int_equal(session_store_count(store), 0);
}

static void what_was_taken_is_not_there_again(void **state) {
    (void)state;
    struct session_store *store = session_store_new(10, SESSION_BYTES);
    uint8_t id[SESSION_ID_MAX], bytes[SESSION_BYTES_MAX];
    uint64_t expires_s;
    bool expired;

    id_of(7, id);
    session_store_put(store, id, sizeof id, (const uint8_t *)"x", 1, NOW, LATER);
    assert_int_equal(session_store_get(store, id, sizeof id, bytes, NOW, true, &expired, &expires_s), 1);
    assert_int_equal(session_store_get(store, id, sizeof id, bytes, NOW, true, &expired, &expires_s), 0);
    assert_int_equal(session_store_count(store), 0);
}

static void who_makes_room_is_told_apart(void **state) {
    (void)state;
    struct session_store *store = session_store_new(2, SESSION_BYTES);
    uint8_t id[SESSION_ID_MAX];

    id_of(1, id);
    session_store_put(store, id, sizeof id, (const uint8_t *)"x", 1, NOW - 1, NOW);
    assert_int_equal(put(store, 2), SESSION_KEPT);
    assert_int_equal(put(store, 3), SESSION_KEPT_FOR_EXPIRED);
    assert_int_equal(put(store, 4), SESSION_KEPT_FOR_ANOTHER);
    assert_true(holds(store, 3) && holds(store, 4));
}

static void ids_of_other_length_are_other_ids(void **state) {
    (void)state;
    struct session_store *store = session_store_new(10, SESSION_BYTES);
    uint8_t id[SESSION_ID_MAX] = {0}, bytes[SESSION_BYTES_MAX];
    uint64_t expires_s;
    bool expired;

    session_store_put(store, id, 16, (const uint8_t *)"x", 1, NOW, LATER);
    assert_int_equal(session_store_get(store, id, 32, bytes, NOW, false, &expired, &expires_s), 0);
    assert_int_equal(session_store_get(store, id, 16, bytes, NOW, false, &expired, &expires_s), 1);
}

static void what_is_too_large_is_refused(void **state) {
    (void)state;
    static const size_t sizes[] = {SESSION_BYTES, SESSION_BYTES_WITH_CERTIFICATE};
    uint8_t id[SESSION_ID_MAX] = {0}, bytes[SESSION_BYTES_MAX + 1] = {0};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct session_store *store = session_store_new(10, sizes[i]);
        assert_int_equal(session_store_put(store, id, sizeof id, bytes, sizes[i] + 1, NOW, LATER), SESSION_TOO_LARGE);
        assert_int_equal(session_store_put(store, id, sizeof id, bytes, sizes[i], NOW, LATER), SESSION_KEPT);
        assert_int_equal(session_store_put(store, id, SESSION_ID_MAX + 1, bytes, 1, NOW, LATER), SESSION_TOO_LARGE);
        assert_int_equal(session_store_count(store), 1);
    }
}

static void what_another_host_says_replaces_nothing(void **state) {
    (void)state;
    struct session_store *store = session_store_new(2, SESSION_BYTES);
    uint8_t id[SESSION_ID_MAX], bytes[SESSION_BYTES_MAX];
    uint64_t expires_s;
    bool expired;

    id_of(7, id);
    assert_int_equal(session_store_add(store, id, sizeof id, (const uint8_t *)"one", 3, NOW, LATER, false),
                     SESSION_KEPT);
    assert_int_equal(session_store_add(store, id, sizeof id, (const uint8_t *)"other", 5, NOW, LATER + 1, false),
                     SESSION_THERE_ALREADY);
    assert_int_equal(session_store_get(store, id, sizeof id, bytes, NOW, false, &expired, &expires_s), 3);
    assert_int_equal(expires_s, LATER);
    put(store, 8);
    id_of(9, id);
    assert_int_equal(session_store_add(store, id, sizeof id, bytes, 3, NOW, LATER, true), SESSION_NO_ROOM);
    assert_int_equal(session_store_add(store, id, sizeof id, bytes, 3, NOW, LATER, false), SESSION_KEPT_FOR_ANOTHER);
    assert_int_equal(session_store_look(store, (const uint8_t[SESSION_ID_MAX]){7}, SESSION_ID_MAX, NOW),
                     SESSION_NOT_THERE);
    id_of(10, id); /* 8 is over by then, and its room may be had */
    assert_int_equal(session_store_add(store, id, sizeof id, bytes, 3, LATER, LATER + 1, true),
                     SESSION_KEPT_FOR_EXPIRED);
}

static void a_session_that_was_withdrawn_does_not_come_back(void **state) {
    (void)state;
    struct session_store *store = session_store_new(10, SESSION_BYTES);
    uint8_t id[SESSION_ID_MAX];
    uint32_t number = 7;

    put(store, number);
    id_of(number, id);
    assert_int_equal(session_store_look(store, id, sizeof id, NOW), SESSION_GOOD);
    assert_int_equal(session_store_look(store, id, sizeof id, LATER), SESSION_DEAD);
    assert_int_equal(session_store_withdraw(store, id, sizeof id, NOW, LATER), SESSION_THERE_ALREADY);
    assert_false(holds(store, number));
    assert_int_equal(session_store_look(store, id, sizeof id, NOW), SESSION_DEAD);
    assert_int_equal(session_store_add(store, id, sizeof id, (const uint8_t *)&number, 4, NOW, LATER, false),
                     SESSION_WITHDRAWN);
    assert_int_equal(session_store_withdraw(store, id, sizeof id, NOW, LATER), SESSION_KEPT);
    assert_false(session_store_remove(store, id, sizeof id));
    /* One that is withdrawn before it has come. */
    id_of(8, id);
    assert_int_equal(session_store_withdraw(store, id, sizeof id, NOW, LATER), SESSION_KEPT);
    assert_int_equal(session_store_add(store, id, sizeof id, (const uint8_t *)&number, 4, NOW, LATER, false),
                     SESSION_WITHDRAWN);
}

static void what_is_remembered_of_the_dead_takes_room(void **state) {
    (void)state;
    struct session_store *store = session_store_new(2, SESSION_BYTES);
    uint8_t id[SESSION_ID_MAX];

    put(store, 1);
    put(store, 2);
    id_of(1, id);
    assert_int_equal(session_store_withdraw(store, id, sizeof id, NOW, LATER), SESSION_THERE_ALREADY);
    assert_true(holds(store, 2));
    id_of(3, id); /* 1 is no session any more, and nothing is lost with it */
    assert_int_equal(session_store_withdraw(store, id, sizeof id, NOW, LATER), SESSION_KEPT);
    id_of(4, id);
    assert_int_equal(session_store_withdraw(store, id, sizeof id, NOW, LATER), SESSION_KEPT_FOR_ANOTHER);
    assert_false(holds(store, 2));
    put(store, 5);
    put(store, 6);
    id_of(7, id);
    assert_int_equal(session_store_withdraw(store, id, sizeof id, LATER, LATER + 1), SESSION_KEPT_FOR_EXPIRED);
}

static void a_walk_meets_every_session_that_is_good(void **state) {
    (void)state;
    const uint32_t sessions = 20000;
    struct session_store *store = session_store_new(sessions, SESSION_BYTES);
    static struct stored_session session;
    static uint8_t met[20000];
    uint8_t id[SESSION_ID_MAX];
    uint64_t at = 0;
    uint32_t number, count = 0;

    assert_false(session_store_walk(store, &at, 100, NOW, &session));
    assert_int_equal(at, 0); /* what was never used is passed over */
    for (uint32_t i = 0; i < sessions / 2; i++)
        put(store, i);
    id_of(3, id);
    session_store_remove(store, id, sizeof id);
    id_of(4, id);
    session_store_withdraw(store, id, sizeof id, NOW, LATER);
    id_of(5, id);
    session_store_put(store, id, sizeof id, id, 4, NOW, NOW);
    at = 0;
    do {
        if (!session_store_walk(store, &at, 7, NOW, &session))
            continue;
        memcpy(&number, session.bytes, sizeof number);
        assert_int_equal(session.length, sizeof number);
        assert_int_equal(session.expires_s, LATER);
        assert_int_equal(met[number]++, 0);
        count++;
    } while (at);
    assert_int_equal(count, sessions / 2 - 3);
}

/* Children that do nothing but use the store, killed again and again: sooner or later inside a lock. */
static void a_worker_killed_anywhere_leaves_the_store_usable(void **state) {
    (void)state;
    struct session_store *store = session_store_new(64, SESSION_BYTES);

    for (int round = 0; round < 200; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            for (uint32_t i = 0;; i++) {
                put(store, i % 1000);
                holds(store, i * 7 % 1000);
            }
        usleep(1000);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        put(store, 5);
        assert_true(holds(store, 5));
    }
    for (uint32_t i = 0; i < 1000; i++)
        put(store, i);
    assert_int_equal(session_store_count(store), 64);
    for (uint32_t i = 1000 - 64; i < 1000; i++)
        assert_true(holds(store, i));
}

static void what_one_process_puts_another_gets(void **state) {
    (void)state;
    struct session_store *store = session_store_new(10000, SESSION_BYTES);
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        for (uint32_t i = 0; i < 1000; i++)
            put(store, i);
        _exit(0);
    }
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    for (uint32_t i = 0; i < 1000; i++)
        assert_true(holds(store, i));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_cache_holds_as_many_as_it_was_given),
        cmocka_unit_test(a_full_cache_forgets_what_was_used_longest_ago),
        cmocka_unit_test(a_large_cache_neither_loses_nor_mixes_up_sessions),
        cmocka_unit_test(putting_again_replaces),
        cmocka_unit_test(an_expired_session_is_gone_at_its_second),
        cmocka_unit_test(what_was_taken_is_not_there_again),
        cmocka_unit_test(who_makes_room_is_told_apart),
        cmocka_unit_test(ids_of_other_length_are_other_ids),
        cmocka_unit_test(what_is_too_large_is_refused),
        cmocka_unit_test(what_another_host_says_replaces_nothing),
        cmocka_unit_test(a_session_that_was_withdrawn_does_not_come_back),
        cmocka_unit_test(what_is_remembered_of_the_dead_takes_room),
        cmocka_unit_test(a_walk_meets_every_session_that_is_good),
        cmocka_unit_test(a_worker_killed_anywhere_leaves_the_store_usable),
        cmocka_unit_test(what_one_process_puts_another_gets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
