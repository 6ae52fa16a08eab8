/* SPDX-License-Identifier: MIT */
/* Without these, places at the backend leak away with every worker that is killed, until nobody is admitted any more.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "admission.h"

#define WORKERS 3
#define LIMIT   5

static int admitted_count, left_count;

static void admitted(void *owner) {
    (void)owner;
    admitted_count++;
}

static void left(void *owner) {
    (void)owner;
    left_count++;
}

static void start_queue(struct admission_queue *queue, struct admission *admission, int worker) {
    *queue = (struct admission_queue){.admission = admission, .worker = worker, .admitted = admitted, .left = left};
    assert_true(admission_queue_start(queue, ev_loop_new(EVFLAG_AUTO)));
    admitted_count = left_count = 0;
}

static void end_queue(struct admission_queue *queue) {
    ev_loop_destroy(queue->loop);
    if (queue->admission)
        close(queue->hang_up_watcher.fd);
}

static void without_a_limit_all_are_admitted(void **state) {
    (void)state;
    struct admission_queue queue;
    struct waiter waiter = {.fd = -1};

    assert_null(admission_new(0, WORKERS));
    start_queue(&queue, NULL, 0);
    for (int i = 0; i < 100; i++)
        assert_true(admission_ask(&queue, &waiter));
    admission_give_back(&queue);
    end_queue(&queue);
}

static void a_place_goes_to_the_first_in_the_queue(void **state) {
    (void)state;
    struct admission *admission = admission_new(1, 1);
    struct admission_queue queue;
    struct waiter held, waiter[3];
    int pair[2];

    start_queue(&queue, admission, 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    held.fd = pair[0];
    assert_true(admission_ask(&queue, &held));
    for (int i = 0; i < 3; i++) {
        waiter[i].fd = dup(pair[0]);
        assert_false(admission_ask(&queue, &waiter[i]));
    }
    admission_leave(&queue, &waiter[0]);
    admission_give_back(&queue);
    ev_run(queue.loop, EVRUN_NOWAIT);
    assert_int_equal(admitted_count, 1);
    assert_ptr_equal(queue.first, &waiter[2]);
    admission_leave(&queue, &waiter[2]);
    admission_give_back(&queue);
    ev_run(queue.loop, EVRUN_NOWAIT);
    assert_true(admission_ask(&queue, &held));
    assert_int_equal(left_count, 0);
    end_queue(&queue);
    free(admission);
    close(pair[0]);
    close(pair[1]);
}

/* A place is granted, and before the worker hears of it, the only one who waited there leaves. */
static void a_place_granted_to_one_who_left_is_not_lost(void **state) {
    (void)state;
    struct admission *admission = admission_new(1, 2);
    struct admission_queue one, other;
    struct waiter held = {.fd = -1}, waiter;
    int pair[2];

    start_queue(&one, admission, 0);
    start_queue(&other, admission, 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    waiter.fd = pair[0];
    assert_true(admission_ask(&one, &held));
    assert_false(admission_ask(&other, &waiter));
    admission_give_back(&one);
    admission_leave(&other, &waiter);
    ev_run(other.loop, EVRUN_NOWAIT);
    assert_int_equal(admitted_count, 0);
    assert_true(admission_ask(&one, &held));
    end_queue(&one);
    end_queue(&other);
    free(admission);
    close(pair[0]);
    close(pair[1]);
}

/* Asks and gives back as fast as it can, until it is killed, perhaps with the lock. */
_Noreturn static void churn(struct admission *admission, int worker) {
    struct admission_queue queue;
    struct waiter waiter;
    int pair[2], holds = 0;

    start_queue(&queue, admission, worker);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        _exit(1);
    waiter.fd = pair[0];
    for (;;) {
        if (admission_ask(&queue, &waiter))
            holds++;
        else
            admission_leave(&queue, &waiter);
        if (holds > 2)
            for (; holds; holds--)
                admission_give_back(&queue);
        admitted_count = 0;
        ev_run(queue.loop, EVRUN_NOWAIT);
        holds += admitted_count;
    }
}

static void killed_workers_leave_every_place_behind_and_no_lock_held(void **state) {
    (void)state;
    struct admission *admission = admission_new(LIMIT, WORKERS);
    struct admission_queue queue;
    struct waiter waiter = {.fd = -1};
    pid_t worker[WORKERS];

    for (int round = 0; round < 60; round++) {
        for (int i = 0; i < WORKERS; i++) {
            worker[i] = fork();
            assert_true(worker[i] >= 0);
            if (worker[i] == 0)
                churn(admission, i);
        }
        for (int i = 0; i < WORKERS; i++) {
            usleep(1000 + (useconds_t)(round * 97 % 1000));
            kill(worker[i], SIGKILL);
            assert_int_equal(waitpid(worker[i], NULL, 0), worker[i]);
            admission_worker_ended(admission, i);
        }
    }
    start_queue(&queue, admission, 0);
    for (int i = 0; i < LIMIT; i++)
        assert_true(admission_ask(&queue, &waiter));
    assert_false(admission_ask(&queue, &waiter));
    end_queue(&queue);
    free(admission);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_limit_all_are_admitted),
        cmocka_unit_test(a_place_goes_to_the_first_in_the_queue),
        cmocka_unit_test(a_place_granted_to_one_who_left_is_not_lost),
        cmocka_unit_test(killed_workers_leave_every_place_behind_and_no_lock_held),
    };

    return cmocka_run_group_tests_name("admission", tests, NULL, NULL);
}
