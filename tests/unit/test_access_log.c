/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* cmocka has one of its own */

#include <arpa/inet.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "access_log.h"

static SSL_CTX *context;

static struct address client_address(void) {
    struct address address = {.length = sizeof address.sockaddr.ipv4};

    address.sockaddr.ipv4.sin_family = AF_INET;
    address.sockaddr.ipv4.sin_addr.s_addr = htonl(0xc0000201);
    address.sockaddr.ipv4.sin_port = htons(4711);
    return address;
}

/* Of a client that asked for that name and never finished its handshake. */
static size_t line_of(char *line, enum access_log_format format, const char *name) {
    struct address address = client_address();
    struct visit visit = {.client = &address,
                          .frontend = "192.0.2.9:443",
                          .ssl = SSL_new(context),
                          .bytes_from_client = 12,
                          .bytes_to_client = INT64_MAX,
                          .accepted_ns = 1000000,
                          .ended_ns = 4000000,
                          .reason = CLOSE_handshake_failed,
                          .failure = HANDSHAKE_alert_unknown_ca};
    size_t length;

    if (name)
        assert_int_equal(SSL_set_tlsext_host_name(visit.ssl, name), 1);
    length = access_log_line(line, format, "2026-01-31T12:34:56.789Z", &visit);
    SSL_free(visit.ssl);
    line[length] = '\0';
    return length;
}

static void text_says_what_there_is_and_a_dash_for_the_rest(void **state) {
    (void)state;
    char line[ACCESS_LINE_MAX + 1];

    line_of(line, ACCESS_LOG_TEXT, "example.org");
    assert_string_equal(
        line,
        "time=2026-01-31T12:34:56.789Z client=192.0.2.1:4711 frontend=192.0.2.9:443 "
        "sni=example.org version=- cipher=- resumed=- alpn=- bytes_from_client=12 bytes_to_client=9223372036854775807 "
        "handshake_us=- duration_us=3000 close=handshake_failed failure=alert_unknown_ca\n");
}

static void no_name_can_break_out_of_its_field(void **state) {
    (void)state;
    char line[ACCESS_LINE_MAX + 1];

    line_of(line, ACCESS_LOG_TEXT, "a b\n\"c\\=d\x7f\xc3\xa9");
    assert_non_null(strstr(line, " sni=a\\x20b\\x0a\\x22c\\x5c\\x3dd\\x7f\\xc3\\xa9 version="));
    line_of(line, ACCESS_LOG_TEXT, "-");
    assert_non_null(strstr(line, " sni=\\x2d version="));
}

/* Each byte stands for the character with its number: so no name makes the JSON invalid, and none is lost. */
static void json_holds_any_name(void **state) {
    (void)state;
    char line[ACCESS_LINE_MAX + 1], name[256], expected[512];
    size_t length, at = 0;
    json_t *object;

    for (int i = 0; i < 255; i++)
        name[i] = (char)(i + 1);
    name[255] = '\0';
    for (int i = 0; i < 255; i++) {
        if (i + 1 >= 0x80)
            expected[at++] = (char)(0xc0 | (i + 1) >> 6);
        expected[at++] = (char)(i + 1 >= 0x80 ? 0x80 | ((i + 1) & 0x3f) : i + 1);
    }
    expected[at] = '\0';
    length = line_of(line, ACCESS_LOG_JSON, name);
    assert_ptr_equal(strchr(line, '\n'), line + length - 1);
    object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(object);
    assert_string_equal(json_string_value(json_object_get(object, "sni")), expected);
    assert_string_equal(json_string_value(json_object_get(object, "client")), "192.0.2.1:4711");
    assert_true(json_is_null(json_object_get(object, "cipher")));
    assert_int_equal(json_integer_value(json_object_get(object, "duration_us")), 3000);
    json_decref(object);
}

static void the_longest_names_fit_a_line(void **state) {
    (void)state;
    char line[ACCESS_LINE_MAX + 1], name[256];

    memset(name, '\1', 255);
    name[255] = '\0';
    assert_in_range(line_of(line, ACCESS_LOG_JSON, name), 255 * 6, ACCESS_LINE_MAX);
    assert_in_range(line_of(line, ACCESS_LOG_TEXT, name), 255 * 4, ACCESS_LINE_MAX);
}

/* A pipe that nobody reads: lines are kept as long as there is room, then lost and counted, and nothing waits. */
static void a_full_pipe_costs_lines_and_no_more(void **state) {
    (void)state;
    struct worker_counters counters = {0};
    struct address address = client_address();
    struct visit visit = {.client = &address, .failure = HANDSHAKE_NO_FAILURE};
    struct access_log log;
    static char bytes[1 << 20];
    uint64_t lines = 0;
    ssize_t got;
    int ends[2];

    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    access_log_start(&log, ev_default_loop(0), ends[1], ACCESS_LOG_TEXT, &counters);
    for (int i = 0; i < 5000; i++)
        access_log_write(&log, &visit);
    assert_true(counters.access_log_lost > 0);
    while ((got = read(ends[0], bytes, sizeof bytes)) > 0 || log.length) {
        for (ssize_t i = 0; i < got; i++)
            lines += bytes[i] == '\n';
        access_log_flush(&log);
    }
    assert_int_equal(lines, counters.access_log_lines);
    assert_int_equal(lines + counters.access_log_lost, 5000);
    free(log.lines);
    close(ends[0]);
    close(ends[1]);
}

static int make_context(void **state) {
    (void)state;
    context = SSL_CTX_new(TLS_client_method());
    return context ? 0 : -1;
}

static int free_context(void **state) {
    (void)state;
    SSL_CTX_free(context);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_says_what_there_is_and_a_dash_for_the_rest),
        cmocka_unit_test(no_name_can_break_out_of_its_field),
        cmocka_unit_test(json_holds_any_name),
        cmocka_unit_test(the_longest_names_fit_a_line),
        cmocka_unit_test(a_full_pipe_costs_lines_and_no_more),
    };

    return cmocka_run_group_tests_name("access_log", tests, make_context, free_context);
}
