/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* cmocka has one of its own */

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "client_table.h"

static struct client_table new_table(void) {
    struct client_table table;

    client_table_init(&table, client_table_size(10));
    return table;
}

static struct address ipv4(uint32_t number) {
    struct address address = {.length = sizeof address.sockaddr.ipv4};

    address.sockaddr.ipv4.sin_family = AF_INET;
    address.sockaddr.ipv4.sin_addr.s_addr = htonl(number);
    return address;
}

static void add(struct client_table *table, uint32_t number, uint64_t bytes) {
    struct address address = ipv4(number);

    client_table_add(table, &address, bytes, 1);
}

static size_t top(struct client_table *table, struct client_entry *entries, size_t limit, uint64_t *error) {
    return client_table_top(table, 1, entries, limit, error);
}

static void few_clients_are_counted_exactly_the_busiest_first(void **state) {
    (void)state;
    struct client_table table = new_table();
    struct client_entry entries[3];
    char text[INET6_ADDRSTRLEN];
    uint64_t error;

    for (uint32_t client = 1; client <= 100; client++)
        for (int visit = 0; visit < 3; visit++)
            add(&table, client, client * 10);
    assert_int_equal(top(&table, entries, 3, &error), 3);
    assert_int_equal(error, 0);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(entries[i].bytes, (100 - i) * 30);
        assert_int_equal(entries[i].connections, 3);
    }
    assert_string_equal(client_entry_format(&entries[0], text), "0.0.0.100");
}

static void who_is_busy_is_found_among_any_number_of_others(void **state) {
    (void)state;
    struct client_table table = new_table();
    struct client_entry entries[10];
    uint64_t error, all = 0, busy[5] = {0};
    uint32_t passers = 0;

    srand(1);
    for (int i = 0; i < 300000; i++) {
        uint64_t bytes = (uint64_t)(rand() % 1000);
        if (i % 20 == 0) {
            add(&table, (uint32_t)(i / 20 % 5), bytes + 2000);
            busy[i / 20 % 5] += bytes + 2000;
            all += bytes + 2001;
        } else {
            add(&table, 1000 + passers++, bytes);
            all += bytes + 1;
        }
    }
    assert_int_equal(top(&table, entries, 10, &error), 10);
    assert_true(error > 0);
    assert_true(error <= 2 * all / CLIENT_TABLE_FILL(table.size));
    for (int found = 0; found < 5; found++) {
        uint8_t client = entries[found].address[15];
        assert_true(client < 5 && entries[found].address[14] == 0);
        assert_true(entries[found].bytes <= busy[client]);
        assert_true(entries[found].bytes + error >= busy[client]);
    }
}

static void who_comes_after_a_killed_writer_goes_on_with_the_table(void **state) {
    (void)state;
    struct client_table table = new_table();
    struct client_entry entries[10];
    uint64_t error;

    add(&table, 1, 100);
    add(&table, 2, 70);
    /* The writer was killed in the middle: all of its bookkeeping is wrong. */
    table.shared->sequence |= 1;
    table.shared->used = 0;
    client_table_take_over(&table);
    assert_int_equal(table.shared->sequence & 1, 0);
    assert_int_equal(table.shared->used, 2);
    add(&table, 1, 1);
    assert_int_equal(top(&table, entries, 10, &error), 2);
    assert_int_equal(entries[0].bytes, 101);
    assert_int_equal(entries[0].connections, 2);
    assert_int_equal(entries[1].bytes, 70);
}

static void a_client_of_several_tables_is_shown_once(void **state) {
    (void)state;
    struct client_table tables[] = {new_table(), new_table()};
    struct client_entry entries[10];
    uint64_t error;

    add(&tables[0], 1, 100);
    add(&tables[1], 1, 50);
    add(&tables[1], 2, 70);
    assert_int_equal(client_table_top(tables, 2, entries, 10, &error), 2);
    assert_int_equal(entries[0].bytes, 150);
    assert_int_equal(entries[0].connections, 2);
    assert_int_equal(entries[1].bytes, 70);
}

static void addresses_of_both_kinds_are_told_apart(void **state) {
    (void)state;
    struct client_table table = new_table();
    struct address ipv6 = {.length = sizeof ipv6.sockaddr.ipv6}, local = {.length = 2};
    struct client_entry entries[10];
    char text[INET6_ADDRSTRLEN];
    uint64_t error;

    ipv6.sockaddr.ipv6.sin6_family = AF_INET6;
    inet_pton(AF_INET6, "2001:db8::1", &ipv6.sockaddr.ipv6.sin6_addr);
    local.sockaddr.any.sa_family = AF_UNIX;
    client_table_add(&table, &ipv6, 10, 1);
    client_table_add(&table, &local, 1000, 1);
    inet_pton(AF_INET6, "::ffff:0.0.0.7", &ipv6.sockaddr.ipv6.sin6_addr);
    client_table_add(&table, &ipv6, 1, 1); /* IPv4 over a socket of both kinds */
    add(&table, 7, 1);
    assert_int_equal(top(&table, entries, 10, &error), 2);
    assert_string_equal(client_entry_format(&entries[0], text), "2001:db8::1");
    assert_string_equal(client_entry_format(&entries[1], text), "0.0.0.7");
    assert_int_equal(entries[1].connections, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_clients_are_counted_exactly_the_busiest_first),
        cmocka_unit_test(who_is_busy_is_found_among_any_number_of_others),
        cmocka_unit_test(who_comes_after_a_killed_writer_goes_on_with_the_table),
        cmocka_unit_test(a_client_of_several_tables_is_shown_once),
        cmocka_unit_test(addresses_of_both_kinds_are_told_apart),
    };

    return cmocka_run_group_tests_name("client_table", tests, NULL, NULL);
}
