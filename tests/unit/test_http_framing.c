/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "http_framing.h"

/* What a stream was read as, written down: "H" head, "[...]" body bytes, "D" done, "B" bad. */
static char story[8192];
static char target[64];

static void note(const char *text, size_t length) {
    size_t used = strlen(story);

    assert_true(used + length < sizeof story);
    memcpy(story + used, text, length);
    story[used + length] = '\0';
}

/* Feeds all of stream, at most piece bytes at once. Pieces of a body are joined in the story. */
static void read_in_pieces(struct http_framing *framing, const char *stream, size_t length, size_t piece) {
    size_t at = 0, given = 0;

    while (at < length) {
        size_t used;

        if (given == 0)
            given = length - at < piece ? length - at : piece;
        used = http_framing_feed(framing, stream + at, given);
        assert_true(used <= given);
        switch (framing->event) {
        case HTTP_MORE:
            assert_int_equal(used, given);
            break;
        case HTTP_HEADERS:
            note("H", 1);
            break;
        case HTTP_BODY:
            assert_true(framing->body >= stream && framing->body + framing->body_bytes <= stream + length);
            assert_true(framing->body_bytes > 0);
            note(framing->body, framing->body_bytes);
            break;
        case HTTP_DONE:
            note("D", 1);
            break;
        case HTTP_BAD:
            assert_non_null(framing->error);
            note("B", 1);
            return;
        }
        at += used;
        given -= used;
    }
}

/* The story must not depend on how the stream is cut. */
static void assert_request_story(const char *stream, const char *expected) {
    for (size_t piece = 1; piece <= strlen(stream); piece++) {
        struct http_framing framing;

        http_framing_init_request(&framing, target, sizeof target);
        story[0] = '\0';
        read_in_pieces(&framing, stream, strlen(stream), piece);
        assert_string_equal(story, expected);
    }
}

static void requests_are_cut_apart_however_they_arrive(void **state) {
    (void)state;
    assert_request_story("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HD");
    assert_request_story("GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.0\r\n\r\n", "HDHDHD");
    assert_request_story("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n", "HhelloDHD");
    assert_request_story("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n", "HDHD");
    assert_request_story("POST / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", "HDHD");
    assert_request_story("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                         "3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nTrailer: t\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                         "HabcdDHD");
    assert_request_story("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HD");
}

static void what_is_not_http_is_bad_however_it_arrives(void **state) {
    (void)state;
    assert_request_story("hello\r\n", "B");
    assert_request_story("\x16\x03\x01\x02\x01\x01\xfc\x03\x03", "B");
    assert_request_story("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "B");
    assert_request_story("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "B");
    assert_request_story("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "HB");
    assert_request_story("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naGET", "HaB");
    assert_request_story("CONNECT a:1 HTTP/1.1\r\n\r\n", "HB");
}

static void a_wish_to_change_the_protocol_may_be_ignored(void **state) {
    (void)state;
    assert_request_story(
        "GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\nGET / HTTP/1.1\r\n\r\n", "HDHD");
    assert_request_story("POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab",
                         "HabD");
}

static void read_request(struct http_framing *framing, const char *stream) {
    http_framing_init_request(framing, target, sizeof target);
    http_framing_feed(framing, stream, strlen(stream));
    assert_int_equal(framing->event, HTTP_HEADERS);
}

static void the_head_says_what_it_says(void **state) {
    (void)state;
    struct http_framing framing;

    read_request(&framing, "POST /a/b?s=1k&r=200 HTTP/1.1\r\nContent-Length: 12\r\nExpect: 100-Continue\r\n\r\n");
    assert_int_equal(framing.method, HTTP_POST);
    assert_string_equal(target, "/a/b?s=1k&r=200");
    assert_true(framing.has_length);
    assert_int_equal(framing.content_length, 12);
    assert_true(framing.expects_continue);
    assert_true(framing.keep_alive);
    read_request(&framing, "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: 100-continue\r\n\r\n");
    assert_int_equal(framing.method, HTTP_PUT);
    assert_false(framing.has_length);
    assert_false(framing.expects_continue);
    assert_true(framing.parser.flags & F_CHUNKED);
}

static void keep_alive_follows_version_and_connection_header(void **state) {
    (void)state;
    struct http_framing framing;

    read_request(&framing, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_false(framing.keep_alive);
    read_request(&framing, "GET / HTTP/1.0\r\n\r\n");
    assert_false(framing.keep_alive);
    read_request(&framing, "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    assert_true(framing.keep_alive);
}

static void an_expectation_is_of_its_own_request_only(void **state) {
    (void)state;
    static const char stream[] = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
                                 "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    struct http_framing framing;
    size_t at = 0;
    int heads = 0;

    http_framing_init_request(&framing, target, sizeof target);
    while (at < sizeof stream - 1) {
        at += http_framing_feed(&framing, stream + at, sizeof stream - 1 - at);
        if (framing.event == HTTP_HEADERS)
            assert_int_equal(framing.expects_continue, heads++ == 0);
    }
    assert_int_equal(heads, 2);
}

/* True if the request is one of a client that waits, fed in pieces of so many bytes. */
static bool is_waiting(const char *stream, size_t piece) {
    struct http_framing framing;
    size_t at = 0, length = strlen(stream);

    http_framing_init_request(&framing, target, sizeof target);
    do {
        assert_true(at < length);
        at += http_framing_feed(&framing, stream + at, length - at < piece ? length - at : piece);
    } while (framing.event == HTTP_MORE);
    assert_int_equal(framing.event, HTTP_HEADERS);
    return framing.expects_continue;
}

static void an_expectation_is_seen_however_it_arrives(void **state) {
    static const char *const waiting[] = {"POST / HTTP/1.1\r\nA: b\r\nEXPECT:100-Continue\r\nC:\r\nD: e\r\n\r\n",
                                          "POST / HTTP/1.1\r\nE:\r\nExpect: 100-continue\r\n\r\n"};
    static const char *const others[] = {
        "POST / HTTP/1.1\r\nExpect: 100-continued\r\n\r\n", "POST / HTTP/1.1\r\nExpect: 100\r\nA: -continue\r\n\r\n",
        "POST / HTTP/1.1\r\nExpects: 100-continue\r\n\r\n", "POST / HTTP/1.1\r\nExp: a\r\nect: 100-continue\r\n\r\n"};
    (void)state;

    for (size_t piece = 1; piece < 70; piece++) {
        for (size_t i = 0; i < sizeof waiting / sizeof *waiting; i++)
            assert_true(is_waiting(waiting[i], piece));
        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
            assert_false(is_waiting(others[i], piece));
    }
}

static void a_target_that_does_not_fit_is_bad_and_nothing_is_written_past_its_end(void **state) {
    (void)state;
    char small[8 + 1], stream[64];
    struct http_framing framing;

    for (int length = 6; length <= 9; length++) { /* and the NUL */
        memset(small, '#', sizeof small);
        snprintf(stream, sizeof stream, "GET /%.*s HTTP/1.1\r\n\r\n", length - 1, "aaaaaaaaaaaaaa");
        http_framing_init_request(&framing, small, sizeof small - 1);
        http_framing_feed(&framing, stream, strlen(stream));
        assert_int_equal(framing.event, length <= 7 ? HTTP_HEADERS : HTTP_BAD);
        if (length > 7)
            assert_string_equal(framing.error, "the target of the request is too long");
        assert_int_equal(small[8], '#');
    }
}

static void the_end_of_the_stream_is_bad_only_in_the_middle_of_a_message(void **state) {
    (void)state;
    struct http_framing framing;
    static const char get[] = "GET / HTTP/1.1\r\n\r\n";

    http_framing_init_request(&framing, target, sizeof target);
    http_framing_feed(&framing, "", 0);
    assert_int_equal(framing.event, HTTP_MORE);
    story[0] = '\0';
    read_in_pieces(&framing, get, sizeof get - 1, sizeof get);
    assert_string_equal(story, "HD");
    http_framing_feed(&framing, "", 0);
    assert_int_equal(framing.event, HTTP_MORE);
    http_framing_feed(&framing, get, 8);
    assert_int_equal(framing.event, HTTP_MORE);
    http_framing_feed(&framing, "", 0);
    assert_int_equal(framing.event, HTTP_BAD);
}

static void assert_response_story(const char *stream, bool to_head, const char *expected, enum http_event at_end) {
    for (size_t piece = 1; piece <= strlen(stream); piece++) {
        struct http_framing framing;

        http_framing_init_response(&framing, NULL);
        if (to_head)
            http_framing_expect_no_body(&framing);
        story[0] = '\0';
        read_in_pieces(&framing, stream, strlen(stream), piece);
        assert_string_equal(story, expected);
        http_framing_feed(&framing, "", 0);
        assert_int_equal(framing.event, at_end);
    }
}

static void responses_end_where_their_framing_says(void **state) {
    (void)state;
    assert_response_story("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false, "HabcD", HTTP_MORE);
    assert_response_story("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false, "HabcD",
                          HTTP_MORE);
    assert_response_story("HTTP/1.1 200 OK\r\n\r\nabc", false, "Habc", HTTP_DONE);
    assert_response_story("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", false, "Habc", HTTP_BAD);
    assert_response_story("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n", false, "HDHD", HTTP_MORE);
    assert_response_story("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", false, "HDHaD",
                          HTTP_MORE);
}

static void a_response_to_head_has_no_body_but_the_one_after_it_has(void **state) {
    (void)state;
    assert_response_story("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
                          true, "HDHabcD", HTTP_MORE);
}

static void the_length_of_a_response_is_told_before_its_body(void **state) {
    (void)state;
    struct http_framing framing;
    static const char stream[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 5000000000\r\n\r\n";

    http_framing_init_response(&framing, NULL);
    http_framing_feed(&framing, stream, sizeof stream - 1);
    assert_int_equal(framing.event, HTTP_HEADERS);
    assert_int_equal(framing.status, 404);
    assert_true(framing.has_length);
    assert_true(framing.content_length == UINT64_C(5000000000));
}

/* ---- Heads that are known ---- */

#define HEAD "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
#define SAME HEAD "abc"

/* What a connection is read as that has heads remembered by one before it, however both are cut. */
static void assert_story_after(const char *before, const char *stream, const char *expected, enum http_event at_end) {
    for (size_t first = 1; first <= strlen(before); first++) {
        for (size_t piece = 1; piece <= strlen(stream); piece++) {
            struct http_known_head known = {0};
            struct http_framing framing;

            http_framing_init_response(&framing, &known);
            read_in_pieces(&framing, before, strlen(before), first);
            http_framing_init_response(&framing, &known);
            story[0] = '\0';
            read_in_pieces(&framing, stream, strlen(stream), piece);
            assert_string_equal(story, expected);
            http_framing_feed(&framing, "", 0);
            assert_int_equal(framing.event, at_end);
        }
    }
}

static void a_known_head_is_read_as_any_other(void **state) {
    (void)state;
    assert_story_after(SAME, SAME HEAD "xyz", "HabcDHxyzD", HTTP_MORE);
    assert_story_after("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                       "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                       "HDHD", HTTP_MORE);
    assert_story_after(SAME, HEAD, "H", HTTP_BAD); /* nothing of the body came */
    assert_story_after(SAME, HEAD "ab", "Hab", HTTP_BAD);
    assert_story_after(SAME, SAME "x", "HabcDB", HTTP_BAD);
    assert_story_after(SAME, "HTTP/1.1 100 Continue\r\n\r\n" SAME, "HDHabcD", HTTP_MORE);
}

static void a_head_that_is_not_quite_the_known_one_is_parsed(void **state) {
    (void)state;
    assert_story_after(SAME, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", "HabD", HTTP_MORE);
    assert_story_after(SAME, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n\r\nabc", "HabcD", HTTP_MORE);
    assert_story_after(SAME, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "B",
                       HTTP_BAD);
    assert_story_after("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "HxD", HTTP_MORE);
    assert_story_after("HTTP/1.1 200 OK\r\n\r\nabc", "HTTP/1.1 200 OK\r\n\r\nxyz", "Hxyz", HTTP_DONE);
    assert_story_after("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na",
                       "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nb", "HbD", HTTP_MORE);
}

/* Which heads are remembered, and that what is known is what is used: were it parsed, it would say something else. */
static void only_a_whole_head_with_a_length_is_remembered(void **state) {
    static const char *const others[] = {
        "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    };
    struct http_known_head known = {0};
    struct http_framing framing;
    (void)state;

    http_framing_init_response(&framing, &known);
    http_framing_feed(&framing, SAME, 20); /* in two pieces */
    http_framing_feed(&framing, &SAME[20], sizeof SAME - 1 - 20);
    assert_int_equal(framing.event, HTTP_HEADERS);
    assert_int_equal(known.length, 0);

    http_framing_init_response(&framing, &known);
    http_framing_expect_no_body(&framing);
    http_framing_feed(&framing, SAME, sizeof SAME - 1);
    assert_int_equal(known.length, 0);

    http_framing_init_response(&framing, &known);
    http_framing_feed(&framing, SAME, sizeof SAME - 1);
    assert_int_equal(known.length, sizeof HEAD - 1);
    assert_memory_equal(known.bytes, HEAD, sizeof HEAD - 1);

    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        http_framing_init_response(&framing, &known);
        http_framing_feed(&framing, others[i], strlen(others[i]));
        assert_int_equal(framing.event, HTTP_HEADERS);
        assert_memory_equal(known.bytes, HEAD, sizeof HEAD - 1);
    }
    known.status = 299;
    http_framing_init_response(&framing, &known);
    http_framing_feed(&framing, SAME, sizeof SAME - 1);
    assert_int_equal(framing.event, HTTP_HEADERS);
    assert_int_equal(framing.status, 299);
    assert_true(framing.has_length && framing.keep_alive);
    assert_int_equal(framing.content_length, 3);

    /* A response to HEAD has the same head and no body. */
    http_framing_init_response(&framing, &known);
    http_framing_expect_no_body(&framing);
    story[0] = '\0';
    read_in_pieces(&framing, HEAD SAME, sizeof HEAD SAME - 1, sizeof HEAD SAME);
    assert_string_equal(story, "HDHabcD");
}

static void a_head_that_is_too_long_is_not_remembered(void **state) {
    static const char begin[] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: ", end[] = "\r\n\r\nz";
    (void)state;

    for (size_t over = 0; over < 3; over++) {
        struct http_known_head known = {0};
        struct http_framing framing;
        char stream[sizeof known.bytes + 10];
        size_t length = sizeof known.bytes - 1 + over; /* of the head */

        memset(stream, 'x', sizeof stream);
        memcpy(stream, begin, sizeof begin - 1);
        memcpy(stream + length - 4, end, sizeof end);
        for (int i = 0; i < 2; i++) {
            http_framing_init_response(&framing, &known);
            story[0] = '\0';
            read_in_pieces(&framing, stream, length + 1, length + 1);
            assert_string_equal(story, "HzD");
            assert_int_equal(known.length, over < 2 ? length : 0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_cut_apart_however_they_arrive),
        cmocka_unit_test(what_is_not_http_is_bad_however_it_arrives),
        cmocka_unit_test(a_wish_to_change_the_protocol_may_be_ignored),
        cmocka_unit_test(the_head_says_what_it_says),
        cmocka_unit_test(keep_alive_follows_version_and_connection_header),
        cmocka_unit_test(an_expectation_is_of_its_own_request_only),
        cmocka_unit_test(an_expectation_is_seen_however_it_arrives),
        cmocka_unit_test(a_target_that_does_not_fit_is_bad_and_nothing_is_written_past_its_end),
        cmocka_unit_test(the_end_of_the_stream_is_bad_only_in_the_middle_of_a_message),
        cmocka_unit_test(responses_end_where_their_framing_says),
        cmocka_unit_test(a_response_to_head_has_no_body_but_the_one_after_it_has),
        cmocka_unit_test(the_length_of_a_response_is_told_before_its_body),
        cmocka_unit_test(a_known_head_is_read_as_any_other),
        cmocka_unit_test(a_head_that_is_not_quite_the_known_one_is_parsed),
        cmocka_unit_test(only_a_whole_head_with_a_length_is_remembered),
        cmocka_unit_test(a_head_that_is_too_long_is_not_remembered),
    };

    return cmocka_run_group_tests_name("http_framing", tests, NULL, NULL);
}
