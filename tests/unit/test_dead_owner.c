/* SPDX-License-Identifier: MIT */
/*
 * A worker that is killed while it really holds a lock that all workers take. Without these, the others would wait for
 * it for ever, or trust what it left half done.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "admission.h"
#include "session_store.h"

#define NOW   UINT64_C(1000)
#define LATER UINT64_C(2000)

/* Where the process ends itself: with the lock just taken, or with all done and the lock about to be given back. */
enum death { NONE, AFTER_LOCK, BEFORE_UNLOCK };

static enum death death;

/* The program's own functions stand before those of the C library, whose they call. */
int pthread_mutex_lock(pthread_mutex_t *mutex) {
    static int (*lock)(pthread_mutex_t *);
    int result;

    if (!lock)
        lock = (int (*)(pthread_mutex_t *))(uintptr_t)dlsym(RTLD_NEXT, "pthread_mutex_lock");
    result = lock(mutex);
    if (death == AFTER_LOCK)
        kill(getpid(), SIGKILL);
    return result;
}

int pthread_mutex_unlock(pthread_mutex_t *mutex) {
    static int (*unlock)(pthread_mutex_t *);

    if (!unlock)
        unlock = (int (*)(pthread_mutex_t *))(uintptr_t)dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    if (death == BEFORE_UNLOCK)
        kill(getpid(), SIGKILL);
    return unlock(mutex);
}

static void nobody(void *owner) {
    (void)owner;
}

static int admitted_count;

static void admitted(void *owner) {
    (void)owner;
    admitted_count++;
}

/* A worker that begins, takes one place, and dies with the lock the second time it takes it. */
_Noreturn static void hold_a_place_and_die(struct admission *admission, enum death when) {
    struct admission_queue queue = {.admission = admission, .worker = 1, .admitted = nobody, .left = nobody};
    struct waiter waiter = {.fd = -1};

    if (!admission_queue_start(&queue, ev_loop_new(EVFLAG_AUTO)) || !admission_ask(&queue, &waiter))
        _exit(1);
    death = when;
    admission_give_back(&queue);
    _exit(2); /* it should be dead */
}

static void killed(pid_t child) {
    int status;

    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void places_are_given_on_when_the_lock_s_owner_dies(void **state) {
    (void)state;
    static const enum death deaths[] = {AFTER_LOCK, BEFORE_UNLOCK};

    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) {
        struct admission *admission = admission_new(2, 2);
        struct admission_queue queue = {.admission = admission, .worker = 0, .admitted = admitted, .left = nobody};
        struct waiter held = {.fd = -1}, waiter = {.fd = -1};
        int pair[2];
        pid_t child;

        alarm(60);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        assert_true(admission_queue_start(&queue, ev_loop_new(EVFLAG_AUTO)));
        assert_true(admission_ask(&queue, &held)); /* one of two; the other worker takes the second */
        child = fork();
        if (child == 0)
            hold_a_place_and_die(admission, deaths[i]);
        killed(child);
        admitted_count = 0;
        waiter.fd = pair[0];
        /* Dead, but its end is not known yet. What it had done is counted as it was found. */
        if (!admission_ask(&queue, &waiter)) {
            ev_run(queue.loop, EVRUN_NOWAIT);
            assert_int_equal(admitted_count, 0);
            admission_worker_ended(admission, 1);
            ev_run(queue.loop, EVRUN_NOWAIT);
            assert_int_equal(admitted_count, 1);
        } else {
            assert_int_equal(deaths[i], BEFORE_UNLOCK);
            admission_worker_ended(admission, 1);
            ev_run(queue.loop, EVRUN_NOWAIT);
        }
        /* Two places are taken, no more and no less. */
        waiter.fd = pair[1];
        assert_false(admission_ask(&queue, &waiter));
        admission_leave(&queue, &waiter);
        admission_give_back(&queue);
        admission_give_back(&queue);
        assert_true(admission_ask(&queue, &held));
        assert_true(admission_ask(&queue, &held));
        assert_false(admission_ask(&queue, &waiter));
        close(queue.hang_up_watcher.fd);
        ev_loop_destroy(queue.loop);
        close(pair[0]);
        close(pair[1]);
        free(admission);
    }
}

static void id_of(uint8_t number, uint8_t *id) {
    memset(id, number, SESSION_ID_MAX);
}

static void put(struct session_store *store, uint8_t number) {
    uint8_t id[SESSION_ID_MAX];

    id_of(number, id);
    assert_int_equal(session_store_put(store, id, sizeof id, &number, 1, NOW, LATER), SESSION_KEPT);
}

static size_t get(struct session_store *store, uint8_t number) {
    uint8_t id[SESSION_ID_MAX], bytes[SESSION_BYTES_MAX];
    uint64_t expires_s;
    bool expired;

    id_of(number, id);
    return session_store_get(store, id, sizeof id, bytes, NOW, false, &expired, &expires_s);
}

static void the_store_forgets_and_serves_on_when_the_lock_s_owner_dies(void **state) {
    (void)state;
    static const enum death deaths[] = {AFTER_LOCK, BEFORE_UNLOCK};

    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) {
        struct session_store *store = session_store_new(10, SESSION_BYTES);
        pid_t child;

        alarm(60);
        put(store, 1);
        assert_int_equal(get(store, 1), 1);
        child = fork();
        if (child == 0) {
            death = deaths[i];
            put(store, 2);
            _exit(2);
        }
        killed(child);
        /* Whatever it left is not believed. */
        assert_int_equal(get(store, 1), 0);
        assert_int_equal(get(store, 2), 0);
        for (uint8_t number = 1; number <= 10; number++)
            put(store, number);
        for (uint8_t number = 1; number <= 10; number++)
            assert_int_equal(get(store, number), 1);
        assert_int_equal(session_store_count(store), 10);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_are_given_on_when_the_lock_s_owner_dies),
        cmocka_unit_test(the_store_forgets_and_serves_on_when_the_lock_s_owner_dies),
    };

    return cmocka_run_group_tests_name("dead_owner", tests, NULL, NULL);
}
