/* SPDX-License-Identifier: MIT */
/* Without these, a header says what the specification does not, in the families that no loopback test can reach. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

#include "proxy_protocol.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static struct address address_of(const char *text) {
    struct address address;

    assert_null(address_parse(&address, text));
    return address;
}

static void check(enum proxy_protocol version, const char *from, const char *to, const char *expected, size_t length) {
    struct address source = address_of(from), destination = address_of(to);
    char header[PROXY_PROTOCOL_BYTES_MAX];

    assert_int_equal(proxy_protocol_header(header, version, &source, &destination), length);
    assert_memory_equal(header, expected, length);
}

#define CHECK(version, from, to, expected) check(version, from, to, expected, sizeof expected - 1)

static void version_1_is_a_line(void **state) {
    (void)state;
    CHECK(PROXY_PROTOCOL_V1, "192.0.2.1:65535", "198.51.100.255:443",
          "PROXY TCP4 192.0.2.1 198.51.100.255 65535 443\r\n");
    CHECK(PROXY_PROTOCOL_V1, "[2001:db8::1]:1", "[::1]:8443", "PROXY TCP6 2001:db8::1 ::1 1 8443\r\n");
    CHECK(PROXY_PROTOCOL_V1, "/one", "/other", "PROXY UNKNOWN\r\n");
    CHECK(PROXY_PROTOCOL_V1, "127.0.0.1:1", "[::1]:1", "PROXY UNKNOWN\r\n");
}

static void the_longest_line_of_version_1_fits(void **state) {
    static const char longest[] = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    struct address address = address_of(longest);
    char header[PROXY_PROTOCOL_BYTES_MAX];
    size_t length = proxy_protocol_header(header, PROXY_PROTOCOL_V1, &address, &address);
    (void)state;

    assert_true(length < sizeof header);
    assert_memory_equal(header + length - 2, "\r\n", 2);
}

static void version_2_is_binary(void **state) {
    (void)state;
    CHECK(PROXY_PROTOCOL_V2, "192.0.2.1:258", "198.51.100.255:443",
          SIGNATURE "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\xff\x01\x02\x01\xbb");
    CHECK(PROXY_PROTOCOL_V2, "[2001:db8::1]:258", "[::1]:443",
          SIGNATURE "\x21\x21\x00\x24"
                    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
                    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"
                    "\x01\x02\x01\xbb");
    CHECK(PROXY_PROTOCOL_V2, "/one", "/other", SIGNATURE "\x20\x00\x00\x00");
}

#define READ(text, fact) proxy_protocol_read((const uint8_t *)(text), sizeof text - 1, fact)

static void what_was_made_is_read(void **state) {
    (void)state;
    static const char *const texts[] = {"192.0.2.1:65535", "198.51.100.7:1", "[2001:db8::1]:80", "[::]:0"};

    for (int version = PROXY_PROTOCOL_V1; version <= PROXY_PROTOCOL_V2; version++)
        for (size_t i = 0; i < 4; i++) {
            struct address source = address_of(texts[i]), destination = address_of(texts[i ^ 1]);
            char header[PROXY_PROTOCOL_BYTES_MAX], text[ADDRESS_TEXT_MAX];
            struct proxy_protocol_fact fact;
            size_t length = proxy_protocol_header(header, (enum proxy_protocol)version, &source, &destination);

            for (size_t part = 0; part < length; part++)
                assert_int_equal(proxy_protocol_read((uint8_t *)header, part, &fact), PROXY_PROTOCOL_PART);
            assert_int_equal(proxy_protocol_read((uint8_t *)header, length, &fact), PROXY_PROTOCOL_WHOLE);
            assert_int_equal(fact.length, length);
            assert_int_equal(fact.version, version);
            assert_false(fact.local);
            assert_int_equal(fact.tlvs_at, length);
            assert_string_equal(address_format(&fact.source, text), texts[i]);
            assert_string_equal(address_format(&fact.destination, text), texts[i ^ 1]);
        }
}

static void a_header_without_an_address_names_none(void **state) {
    (void)state;
    struct proxy_protocol_fact fact;

    assert_int_equal(READ("PROXY UNKNOWN ffff:f... 65535\r\n", &fact), PROXY_PROTOCOL_WHOLE);
    assert_int_equal(fact.source.length, 0);
    assert_int_equal(READ(SIGNATURE "\x20\x11\x00\x0c\1\2\3\4\5\6\7\x08\x09\0\1\2", &fact), PROXY_PROTOCOL_WHOLE);
    assert_int_equal(fact.source.length, 0);
    assert_true(fact.local);
    assert_int_equal(fact.tlvs_at, 28);
    assert_int_equal(READ(SIGNATURE "\x21\x00\x00\x03\4\0\0", &fact), PROXY_PROTOCOL_WHOLE);
    assert_int_equal(fact.length, 19);
    assert_int_equal(fact.tlvs_at, 16);
    assert_int_equal(fact.source.length, 0);
}

static void the_length_of_version_2_is_known_before_its_end(void **state) {
    (void)state;
    struct proxy_protocol_fact fact;

    assert_int_equal(READ(SIGNATURE "\x21\x11\xff\xff", &fact), PROXY_PROTOCOL_PART);
    assert_int_equal(fact.length, 16 + 65535);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_1_is_a_line),
        cmocka_unit_test(the_longest_line_of_version_1_fits),
        cmocka_unit_test(version_2_is_binary),
        cmocka_unit_test(what_was_made_is_read),
        cmocka_unit_test(a_header_without_an_address_names_none),
        cmocka_unit_test(the_length_of_version_2_is_known_before_its_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
