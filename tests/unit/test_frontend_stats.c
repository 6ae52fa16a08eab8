/* SPDX-License-Identifier: MIT */
/* The process that shows the statistics reads names of frontends while the master, in a reload, writes others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "frontend_stats.h"
#include "listeners.h"

#define CHANGES 30000

static struct frontend_stats stats;
static uint32_t done;

static struct address path_of(char letter) {
    struct address address = {.length = sizeof address.sockaddr.local};

    address.sockaddr.local.sun_family = AF_UNIX;
    memset(address.sockaddr.local.sun_path, letter, sizeof address.sockaddr.local.sun_path - 1);
    return address;
}

static void *change(void *unused) {
    const struct address addresses[] = {path_of('a'), path_of('b')};

    for (int i = 0; i < CHANGES; i++)
        frontend_stats_show(&stats, 0, i % 3 == 2 ? NULL : &addresses[i % 2]);
    frontend_stats_show(&stats, 0, &addresses[0]);
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
    return unused;
}

/* Of one letter throughout, or there is none. */
static void check_name(struct frontend_counters *sums) {
    json_t *all = frontend_stats_json(&stats, sums), *name = json_object_get(json_array_get(all, 0), "address");
    const char *text = json_string_value(name);

    if (text)
        assert_int_equal(strspn(text, *text == 'a' ? "a" : "b"),
                         sizeof((struct address *)0)->sockaddr.local.sun_path - 1);
    assert_int_equal(json_array_size(all), text ? 1 : 0);
    json_decref(all);
}

static void a_name_is_never_half_of_one_and_half_of_another(void **state) {
    (void)state;
    static struct frontend_counters sums[LISTENER_PLACES];
    pthread_t writer;

    frontend_stats_init(&stats, 1);
    assert_int_equal(pthread_create(&writer, NULL, change, NULL), 0);
    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE))
        check_name(sums);
    pthread_join(writer, NULL);
    check_name(sums);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_name_is_never_half_of_one_and_half_of_another)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
