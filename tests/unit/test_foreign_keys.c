/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "foreign_keys.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOW   UINT64_C(1000)
#define LATER UINT64_C(2000)
#define ROOM  256

/* A key whose every byte can be told from its number. */
static struct ticket_key key_of(int number) {
    struct ticket_key key;

    memset(&key, number & 0xff, sizeof key);
    memcpy(key.name, &number, sizeof number);
    key.secret_bytes = 32;
    return key;
}

static bool find(const struct foreign_keys *keys, int number, uint64_t now_s, bool *seals) {
    const struct ticket_key wanted = key_of(number);
    struct ticket_key found;

    if (!foreign_keys_find(keys, wanted.name, now_s, &found, seals))
        return false;
    assert_memory_equal(&found, &wanted, sizeof found);
    return true;
}

static void keys_are_found_until_they_expire(void **state) {
    (void)state;
    struct foreign_keys *keys = foreign_keys_new();
    struct ticket_key one = key_of(1), other = key_of(2);
    bool seals;

    assert_int_equal(foreign_keys_put(keys, &one, true, LATER), FOREIGN_KEY_NEW);
    assert_int_equal(foreign_keys_put(keys, &other, true, LATER + 1), FOREIGN_KEY_NEW);
    assert_true(find(keys, 1, NOW, &seals) && seals);
    assert_int_equal(foreign_keys_put(keys, &one, false, LATER), FOREIGN_KEY_KNOWN);
    assert_true(find(keys, 1, LATER - 1, &seals) && !seals);
    assert_false(find(keys, 1, LATER, &seals));
    foreign_keys_expire(keys, LATER);
    assert_false(find(keys, 1, NOW, &seals)); /* wiped */
    assert_true(find(keys, 2, LATER, &seals) && seals);
    assert_false(find(keys, 3, NOW, &seals));
}

static void no_name_of_nothing_is_a_key(void **state) {
    (void)state;
    struct foreign_keys *keys = foreign_keys_new();
    struct ticket_key key = key_of(1), found;
    bool seals;

    foreign_keys_put(keys, &key, true, NOW);
    foreign_keys_expire(keys, NOW);
    assert_false(foreign_keys_find(keys, (const uint8_t[TICKET_KEY_NAME_BYTES]){0}, NOW, &found, &seals));
}

static void what_is_full_takes_none_until_one_expires(void **state) {
    (void)state;
    struct foreign_keys *keys = foreign_keys_new();
    struct ticket_key key;
    bool seals;

    for (int i = 0; i < ROOM; i++) {
        key = key_of(i);
        assert_int_equal(foreign_keys_put(keys, &key, true, i == 100 ? NOW : LATER), FOREIGN_KEY_NEW);
    }
    key = key_of(ROOM);
    assert_int_equal(foreign_keys_put(keys, &key, true, LATER), FOREIGN_KEY_NO_ROOM);
    foreign_keys_expire(keys, NOW);
    assert_int_equal(foreign_keys_put(keys, &key, true, LATER), FOREIGN_KEY_NEW);
    for (int i = 0; i <= ROOM; i++)
        assert_int_equal(find(keys, i, NOW, &seals), i != 100);
}

/* A writer that changes keys as fast as it can, and is killed again and again; each find checks every byte. */
static void a_key_is_never_seen_half_made(void **state) {
    (void)state;
    struct foreign_keys *keys = foreign_keys_new();
    bool seals;

    for (int round = 0; round < 40; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            foreign_keys_begin(keys);
            for (int i = 0;; i++) {
                struct ticket_key key = key_of(i % 40);
                foreign_keys_put(keys, &key, true, LATER + (uint64_t)i % 7);
                if (i % 20 == 0)
                    foreign_keys_expire(keys, LATER + 3);
            }
        }
        for (int i = 0; i < 20000; i++)
            find(keys, i % 40, NOW, &seals);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    foreign_keys_begin(keys);
    for (int i = 0; i < 40; i++) {
        struct ticket_key key = key_of(i);
        foreign_keys_put(keys, &key, true, LATER);
        assert_true(find(keys, i, NOW, &seals));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_found_until_they_expire),
        cmocka_unit_test(no_name_of_nothing_is_a_key),
        cmocka_unit_test(what_is_full_takes_none_until_one_expires),
        cmocka_unit_test(a_key_is_never_seen_half_made),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
