/* SPDX-License-Identifier: MIT */
/*
 * A worker that a client has taken over can write whatever it likes to all that it shares. Without these, it could lead
 * the master, which may be root, to a place of its choice, or hold it up for ever.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* cmocka has one of its own */

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "admission.h"
#include "backends.h"
#include "stats.h"
#include "ticket_keys.h"

#define WORKERS 2
#define SLOTS   8

/* All that the master shares with its workers and touches itself while they run. */
struct fixture {
    struct stats stats;
    struct admission *admission;
    struct backends *backends;
    struct ticket_keys *keys;
    struct address_list list;
};

static struct fixture fixture;

static int set_up(void **state) {
    (void)state;
    assert_null(address_resolve(&fixture.list, "127.0.0.1:1"));
    stats_init(&fixture.stats, WORKERS, SLOTS, 10);
    fixture.admission = admission_new(3, SLOTS);
    fixture.backends = backends_new(&fixture.list);
    fixture.keys = ticket_keys_new();
    assert_non_null(fixture.keys);
    for (int slot = 0; slot < SLOTS; slot++)
        stats_begin(&fixture.stats, slot, slot % WORKERS);
    return 0;
}

/* A pattern, or with -1 noise: over all memory that is shared. Returns how many bytes that was. */
static size_t scribble(int pattern) {
    FILE *maps = fopen("/proc/self/maps", "re");
    size_t written = 0;
    char line[512], access[5];
    unsigned long begin, end;

    assert_non_null(maps);
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %4s", &begin, &end, access) == 3 && strcmp(access, "rw-s") == 0) {
            unsigned char *bytes = (unsigned char *)begin;
            for (size_t i = 0; i < end - begin; i++)
                bytes[i] = pattern < 0 ? (unsigned char)rand() : (unsigned char)pattern;
            written += end - begin;
        }
    fclose(maps);
    return written;
}

/* What happens in the master while workers come and go, between any two stores of one that is hostile. */
static void be_master(int pattern) {
    for (int slot = 0; slot < SLOTS; slot++) {
        scribble(pattern);
        stats_end(&fixture.stats, slot);
        scribble(pattern);
        admission_worker_ended(fixture.admission, slot);
        scribble(pattern);
        stats_begin(&fixture.stats, slot, slot % WORKERS);
    }
    stats_add(&fixture.stats.master->reloads, 1);
    backends_replace(fixture.backends, &fixture.list);
    backends_free(fixture.backends);
    if (!ticket_keys_rotate(fixture.keys))
        _exit(2);
}

/* So that a crash, or a wait that never ends, is seen as what it is. */
static void in_a_process(void (*run)(int), int argument) {
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        run(argument);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void the_master_survives_whatever_is_in_shared_memory(void **state) {
    (void)state;
    static const int patterns[] = {0, 1, 0x7f, 0x80, 0xff, -1};
    /* Each worker's own lock, and all its counters: the memory is really found. */
    assert_true(scribble(0) > SLOTS * sizeof(struct worker_counters));
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        in_a_process(be_master, patterns[i]);
    for (int seed = 1; seed <= 20; seed++) {
        srand((unsigned)seed);
        in_a_process(be_master, -1);
    }
}

/* The process that shows the statistics has no rights, but it is to be there still. */
static void be_statistics(int pattern) {
    FILE *nowhere = fopen("/dev/null", "we");

    scribble(pattern);
    stats_write_json(&fixture.stats, nowhere);
    stats_write_prometheus(&fixture.stats, nowhere);
    fclose(nowhere);
}

static void the_statistics_survive_it_too(void **state) {
    (void)state;
    static const int patterns[] = {0, 1, 0x7f, 0x80, 0xff, -1};

    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        in_a_process(be_statistics, patterns[i]);
}

static void a_worker_is_counted_where_the_master_put_it(void **state) {
    (void)state;
    uint64_t before = fixture.stats.ended[1].bytes_to_client;

    stats_begin(&fixture.stats, 3, 1);
    fixture.stats.process[3].counters.bytes_to_client = 7;
    fixture.stats.process[3].worker = 0; /* says the worker */
    stats_end(&fixture.stats, 3);
    assert_int_equal(fixture.stats.ended[1].bytes_to_client, before + 7);
    assert_int_equal(fixture.stats.process[3].worker, -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_master_survives_whatever_is_in_shared_memory),
        cmocka_unit_test(the_statistics_survive_it_too),
        cmocka_unit_test(a_worker_is_counted_where_the_master_put_it),
    };

    return cmocka_run_group_tests_name("hostile_worker", tests, set_up, NULL);
}
