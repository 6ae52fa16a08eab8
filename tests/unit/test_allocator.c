/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "allocator.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define PIECES 4000

static size_t size_of(int i) {
    return (size_t)(i * 37 % 20000) + (size_t)(i % 3);
}

static void fill(unsigned char *piece, size_t size, int mark) {
    memset(piece, mark & 0xff, size);
}

static void assert_filled(const unsigned char *piece, size_t size, int mark) {
    for (size_t at = 0; at < size; at++)
        assert_int_equal(piece[at], mark & 0xff);
}

static void pieces_of_all_sizes_keep_what_is_in_them(void **state) {
    static unsigned char *pieces[PIECES];
    (void)state;

    for (int i = 0; i < PIECES; i++) {
        pieces[i] = allocator_take(size_of(i));
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        fill(pieces[i], size_of(i), i);
    }
    for (int i = 1; i < PIECES; i += 2) {
        allocator_return(pieces[i]);
        pieces[i] = allocator_take(size_of(i + 7));
        fill(pieces[i], size_of(i + 7), i);
    }
    for (int i = 0; i < PIECES; i++) {
        assert_filled(pieces[i], size_of(i % 2 ? i + 7 : i), i);
        allocator_return(pieces[i]);
    }
}

static void what_grows_or_shrinks_keeps_its_beginning(void **state) {
    unsigned char *piece = allocator_resize(NULL, 10);
    size_t size = 10;
    (void)state;

    fill(piece, size, 1);
    while (size < 100000) {
        piece = allocator_resize(piece, size * 2);
        assert_filled(piece, size, 1);
        size *= 2;
        fill(piece, size, 1);
    }
    while (size > 10) {
        size /= 3;
        piece = allocator_resize(piece, size);
        assert_filled(piece, size, 1);
    }
    allocator_return(piece);
    allocator_return(NULL);
}

static void the_piece_freed_last_is_taken_first(void **state) {
    void *one = allocator_take(200), *other = allocator_take(200);
    (void)state;

    allocator_return(one);
    allocator_return(other);
#ifndef __SANITIZE_ADDRESS__
    assert_ptr_equal(allocator_take(193), other); /* of the same step of 16 */
    assert_ptr_equal(allocator_take(200), one);
    allocator_return(one);
    allocator_return(other);
#endif
}

static void the_tls_library_allocates_here(void **state) {
    void *expected, *taken;
    (void)state;

    expected = allocator_take(320);
    allocator_return(expected);
    taken = OPENSSL_malloc(320);
#ifndef __SANITIZE_ADDRESS__
    assert_ptr_equal(taken, expected);
#endif
    OPENSSL_free(taken);
    EVP_MD_CTX_free(EVP_MD_CTX_new());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_all_sizes_keep_what_is_in_them),
        cmocka_unit_test(what_grows_or_shrinks_keeps_its_beginning),
        cmocka_unit_test(the_piece_freed_last_is_taken_first),
        cmocka_unit_test(the_tls_library_allocates_here),
    };

    allocator_serve_tls();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
