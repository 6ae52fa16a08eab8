/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server_names.h"

#include <stdio.h>
#include <string.h>

static void a_host_is_found_by_its_name_or_its_wildcard(void **state) {
    (void)state;
    static const struct {
        const char *host, *found; /* NULL: nobody */
    } cases[] = {
        {"www.example.org", "www.example.org"},
        {"WWW.Example.ORG", "www.example.org"},
        {"other.example.org", "*.example.org"},
        {"OTHER.EXAMPLE.ORG", "*.example.org"},
        {"a.b.example.org", NULL},
        {"example.org", NULL},
        {".example.org", NULL},
        {"w.example.org", "*.example.org"},
        {"localhost", "localhost"},
        {"org", NULL},
        {"", NULL},
        {".", NULL},
    };
    struct server_names names = {0};

    assert_null(server_names_find(&names, "anything"));
    server_names_add(&names, "*.Example.org");
    server_names_add(&names, "WWW.example.org");
    server_names_add(&names, "localhost");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct server_name *found = server_names_find(&names, cases[i].host);
        if (cases[i].found)
            assert_string_equal(found->name, cases[i].found);
        else
            assert_null(found);
    }
    server_names_free(&names);
}

static void a_name_that_is_too_long_is_nobody(void **state) {
    (void)state;
    struct server_names names = {0};
    char host[300];

    memset(host, 'a', sizeof host - 1);
    host[sizeof host - 1] = '\0';
    server_names_add(&names, "localhost");
    assert_null(server_names_find(&names, host));
    host[255] = '\0';
    assert_null(server_names_find(&names, host));
    server_names_free(&names);
}

/* The longest chain of a table is what a look-up costs at worst. */
static void many_names_are_found_in_few_steps(void **state) {
    (void)state;
    struct server_names names = {0};
    unsigned longest = 0;
    char name[64];

    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "host-%d.example.org", i);
        assert_non_null(server_names_add(&names, name));
        assert_ptr_equal(server_names_add(&names, name), server_names_find(&names, name));
    }
    assert_int_equal(names.count, 20000);
    for (unsigned i = 0; i < names.buckets; i++) {
        unsigned length = 0;
        for (const struct server_name *entry = names.bucket[i]; entry; entry = entry->next)
            length++;
        longest = length > longest ? length : longest;
    }
    assert_true(longest <= 10);
    server_names_free(&names);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_is_found_by_its_name_or_its_wildcard),
        cmocka_unit_test(a_name_that_is_too_long_is_nobody),
        cmocka_unit_test(many_names_are_found_in_few_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
