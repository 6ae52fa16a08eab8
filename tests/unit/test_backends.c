/* SPDX-License-Identifier: MIT */
/* Without these, connections are lost to an address that is known to be down, or all go to one of several. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "backends.h"

static void list_of(struct address_list *list, int count) {
    static const char *const texts[] = {"127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"};

    list->count = count;
    for (int i = 0; i < count; i++)
        assert_null(address_parse(&list->address[i], texts[i]));
}

static void choose(struct backend_choice *choice, uint32_t *tried, ev_tstamp now, const char *expected) {
    const struct address *address = backend_choose(choice, tried, now);
    char text[ADDRESS_TEXT_MAX];

    if (expected)
        assert_string_equal(address ? address_format(address, text) : "none", expected);
    else
        assert_null(address);
}

static void new_connections_go_round(void **state) {
    (void)state;
    struct address_list list;
    struct backend_choice choice = {0};

    list_of(&list, 3);
    choice.backends = backends_new(&list);
    for (int round = 0; round < 2; round++) {
        choose(&choice, &(uint32_t){0}, 1, "127.0.0.1:1");
        choose(&choice, &(uint32_t){0}, 1, "127.0.0.2:1");
        choose(&choice, &(uint32_t){0}, 1, "127.0.0.3:1");
    }
}

static void one_connection_tries_each_once(void **state) {
    (void)state;
    struct address_list list;
    struct backend_choice choice = {0};
    uint32_t tried = 0;

    list_of(&list, 3);
    choice.backends = backends_new(&list);
    choose(&choice, &tried, 1, "127.0.0.1:1");
    choose(&choice, &tried, 1, "127.0.0.2:1");
    choose(&choice, &tried, 1, "127.0.0.3:1");
    choose(&choice, &tried, 1, NULL);
}

static void one_that_is_down_is_left_out_for_a_while(void **state) {
    (void)state;
    struct address_list list;
    struct backend_choice choice = {0};

    list_of(&list, 2);
    choice.backends = backends_new(&list);
    choose(&choice, &(uint32_t){0}, 100, "127.0.0.1:1");
    backend_is_down(&choice, &list.address[0], 100);
    for (int i = 0; i < 4; i++)
        choose(&choice, &(uint32_t){0}, 101, "127.0.0.2:1");
    choose(&choice, &(uint32_t){0}, 103, "127.0.0.1:1");
}

static void where_all_are_down_all_are_tried(void **state) {
    (void)state;
    struct address_list list;
    struct backend_choice choice = {0};
    uint32_t tried = 0;

    list_of(&list, 2);
    choice.backends = backends_new(&list);
    choose(&choice, &tried, 100, "127.0.0.1:1");
    backend_is_down(&choice, &list.address[0], 100);
    choose(&choice, &tried, 100, "127.0.0.2:1");
    backend_is_down(&choice, &list.address[1], 100);
    tried = 0;
    choose(&choice, &tried, 101, "127.0.0.1:1");
    choose(&choice, &tried, 101, "127.0.0.2:1");
    choose(&choice, &tried, 101, NULL);
}

/* A reload: those that run hear of it, and what they know to be down stays so. */
static void other_addresses_are_heard_of_at_once(void **state) {
    (void)state;
    struct address_list list;
    struct backend_choice choice = {0};
    struct backends *backends;

    list_of(&list, 2);
    choice.backends = backends = backends_new(&list);
    choose(&choice, &(uint32_t){0}, 100, "127.0.0.1:1");
    backend_is_down(&choice, &list.address[1], 100);
    list_of(&list, 3);
    backends_replace(backends, &list);
    choose(&choice, &(uint32_t){0}, 101, "127.0.0.3:1");
    choose(&choice, &(uint32_t){0}, 101, "127.0.0.1:1");
    choose(&choice, &(uint32_t){0}, 101, "127.0.0.3:1");
    list_of(&list, 1);
    backends_replace(backends, &list);
    choose(&choice, &(uint32_t){0}, 101, "127.0.0.1:1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_connections_go_round),
        cmocka_unit_test(one_connection_tries_each_once),
        cmocka_unit_test(one_that_is_down_is_left_out_for_a_while),
        cmocka_unit_test(where_all_are_down_all_are_tried),
        cmocka_unit_test(other_addresses_are_heard_of_at_once),
    };

    return cmocka_run_group_tests_name("backends", tests, NULL, NULL);
}
