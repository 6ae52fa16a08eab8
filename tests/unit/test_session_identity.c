/* SPDX-License-Identifier: MIT */
/* Whether a session belongs somewhere is decided by what it depends on, all of it, and not by the order of files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "session_identity.h"
#include "tls_connections.h"

static void check(const struct session_identity *one, const struct session_identity *other, bool same) {
    assert_int_equal(memcmp(one->bytes, other->bytes, sizeof one->bytes) == 0, same);
}

static X509 *certificate_for(const char *host) {
    FILE *file = fopen(certificate_file(host), "r");
    X509 *certificate = PEM_read_X509(file, NULL, NULL, NULL);

    fclose(file);
    assert_non_null(certificate);
    return certificate;
}

/* The numbers of certificates, as a text. */
static struct session_identity identity_of(X509 *const *certificates, const char *numbers) {
    STACK_OF(X509) *stack = sk_X509_new_null();
    struct session_identity identity = session_identity();

    for (const char *at = numbers; *at; at++)
        sk_X509_push(stack, certificates[*at - '0']);
    assert_true(session_identity_add_certificates(&identity, stack));
    sk_X509_free(stack);
    return identity;
}

static void certificates_come_in_any_order(void **state) {
    (void)state;
    static const char *const others[] = {"", "0", "12", "0012", "0122", "0011"};
    X509 *certificates[] = {certificate_for("a.example"), certificate_for("b.example"), certificate_for("c.example")};
    struct session_identity first = identity_of(certificates, "012"), again = identity_of(certificates, "201");

    check(&first, &again, true);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct session_identity other = identity_of(certificates, others[i]);
        check(&first, &other, false);
    }
    for (int i = 0; i < 3; i++)
        X509_free(certificates[i]);
}

static void nothing_takes_back_what_was_added(void **state) {
    (void)state;
    struct session_identity identity = session_identity(), seen[512];

    for (size_t count = 0; count < sizeof seen / sizeof *seen; count++) {
        for (size_t i = 0; i < count; i++)
            check(&identity, &seen[i], false);
        seen[count] = identity;
        assert_true(session_identity_add(&identity, "the same", 8));
    }
}

static void what_is_added_one_after_the_other_is_not_what_is_added_at_once(void **state) {
    (void)state;
    struct session_identity parts = session_identity(), whole = parts, reverse = parts;

    assert_true(session_identity_add(&parts, "ab", 2) && session_identity_add(&parts, "c", 1));
    assert_true(session_identity_add(&reverse, "c", 1) && session_identity_add(&reverse, "ab", 2));
    assert_true(session_identity_add(&whole, "abc", 3));
    check(&parts, &whole, false);
    check(&parts, &reverse, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(certificates_come_in_any_order),
        cmocka_unit_test(nothing_takes_back_what_was_added),
        cmocka_unit_test(what_is_added_one_after_the_other_is_not_what_is_added_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
