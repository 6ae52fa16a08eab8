/* SPDX-License-Identifier: MIT */
/* Without these, a reload that is refused leaves its --engine behind, or one without an engine keeps the last. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/engine.h>
#include <openssl/evp.h>
#include <stdbool.h>

#include "tls_engine.h"

/* MD4 is the legacy provider's alone. */
static bool has_legacy(void) {
    EVP_MD *md4 = EVP_MD_fetch(NULL, "MD4", NULL);

    EVP_MD_free(md4);
    return md4 != NULL;
}

/* The ENGINE called openssl is one of the library's own, in software. */
static bool has_engine(void) {
    ENGINE *engine = ENGINE_get_default_RSA();

    ENGINE_finish(engine);
    return engine != NULL;
}

static void what_is_given_back_is_not_in_use_any_more(void **state) {
    (void)state;
    assert_false(has_legacy());
    assert_null(tls_engine_use("legacy"));
    assert_true(has_legacy());
    tls_engine_give_back();
    assert_false(has_legacy());
    assert_null(tls_engine_use("openssl"));
    assert_true(has_engine());
    tls_engine_give_back();
    assert_false(has_engine());
    tls_engine_give_back(); /* there is nothing more to give back */
    assert_false(has_engine() || has_legacy());
}

static void what_is_kept_stays_until_another_is(void **state) {
    (void)state;
    assert_null(tls_engine_use("legacy"));
    tls_engine_keep();
    tls_engine_give_back();
    assert_true(has_legacy());
    assert_null(tls_engine_use("legacy"));
    tls_engine_give_back(); /* nothing had changed */
    assert_true(has_legacy());
    assert_non_null(tls_engine_use("nonsense"));
    assert_true(has_legacy());
    assert_null(tls_engine_use("openssl"));
    assert_true(has_engine());
    tls_engine_give_back();
    assert_true(has_legacy() && !has_engine());
    assert_null(tls_engine_use("openssl"));
    tls_engine_keep();
    assert_true(has_engine() && !has_legacy());
    assert_null(tls_engine_use(NULL));
    tls_engine_give_back();
    assert_true(has_engine());
    assert_null(tls_engine_use(NULL));
    tls_engine_keep();
    assert_false(has_engine() || has_legacy());
}

static void a_name_that_is_too_long_is_refused(void **state) {
    (void)state;
    static char name[1000];

    for (size_t i = 0; i < sizeof name - 1; i++)
        name[i] = 'x';
    assert_non_null(tls_engine_use(name));
    assert_null(tls_engine_use(NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_given_back_is_not_in_use_any_more),
        cmocka_unit_test(what_is_kept_stays_until_another_is),
        cmocka_unit_test(a_name_that_is_too_long_is_refused),
    };

    OPENSSL_init_crypto(OPENSSL_INIT_ENGINE_OPENSSL, NULL);
    return cmocka_run_group_tests_name("tls_engine", tests, NULL, NULL);
}
