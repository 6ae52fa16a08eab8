/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* cmocka has one of its own */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_file.h"
#include "units.h"

static struct {
    bool quiet;
    const char *name;
    uint64_t count, time_ns, least;
    int choice, shade;
    int parsed;
} got;

static const char *const choices[] = {"red", "green", NULL};

static const char *parse_sum(void *target, const char *value) {
    *(int *)target += atoi(value);
    return NULL;
}

static const char *format_sum(const void *target, char *text) {
    snprintf(text, OPTION_TEXT_MAX, "%d", *(const int *)target);
    return text;
}

static const struct option_spec specs[] = {
    {.help = "a heading"},
    {"quiet", 'q', OPTION_FLAG, NULL, "less words", &got.quiet},
    {"name", 0, OPTION_STRING, "TEXT", "a name", &got.name, .alias = "old-name"},
    {"count", 'n', OPTION_UINT, "N", "how many", &got.count, .max = 10},
    {"time", 't', OPTION_DURATION, "TIME", "how long", &got.time_ns},
    {"colour", 0, OPTION_CHOICE, "red|green", "which", &got.choice, .choices = choices},
    {"sum", 0, OPTION_PARSE, "N", "adds up", &got.parsed, .parse = parse_sum, .format = format_sum},
    {"shade", 0, OPTION_CHOICE, "[=red|green]", "which, or just one", &got.shade, .choices = choices,
     .value_if_none = "green"},
    {"least", 0, OPTION_UINT, "N", "at least five", &got.least, .min = 5},
    {"config", 0, OPTION_STRING, "FILE", "a file", &got.name, .command_line_only = true},
    {"help", 'h', OPTION_HELP, NULL, "this", NULL},
};

static const struct option_table table = {"prog", "[options]", "A summary.", specs, sizeof specs / sizeof *specs};

static char text[4096];

static const char *parse_bytes(const char *bytes, size_t length) {
    memset(&got, 0, sizeof got);
    memcpy(text, bytes, length);
    text[length] = '\0';
    return config_file_parse(&table, "file", text, length);
}

static const char *parse(const char *lines) {
    return parse_bytes(lines, strlen(lines));
}

static void values_arrive_as_they_are_meant(void **state) {
    (void)state;
    assert_null(parse("# a comment\n\n  \t\r\nquiet = yes\r\n  name=\"a \\\"b\\\" # c \\\\ \\d\" # comment\ncount =7\n"
                      "time = 1500ms # that long\n colour = 'green'#\nsum=3\nsum = 4"));
    assert_true(got.quiet);
    assert_string_equal(got.name, "a \"b\" # c \\ \\d");
    assert_int_equal(got.count, 7);
    assert_int_equal(got.time_ns, 1500 * NS_PER_MS);
    assert_int_equal(got.choice, 1);
    assert_int_equal(got.parsed, 7);
    assert_null(parse("name = with blanks inside   # comment\n"));
    assert_string_equal(got.name, "with blanks inside");
    assert_null(parse("name = [*]:80#x\n"));
    assert_string_equal(got.name, "[*]:80#x");
    assert_null(parse("old-name = y\nquiet=on\nquiet=off"));
    assert_string_equal(got.name, "y");
    assert_false(got.quiet);
    assert_null(parse("shade = yes"));
    assert_int_equal(got.shade, 1);
    assert_null(parse("shade = no"));
    assert_int_equal(got.shade, 0);
    assert_null(parse("shade = green"));
    assert_int_equal(got.shade, 1);
    assert_null(parse(""));
}

static void an_empty_value_in_quotes_leaves_the_default(void **state) {
    (void)state;
    assert_null(parse("count = \"\"\nname = ''\nsum = \"\""));
    assert_null(got.name);
}

static void assert_refused(const char *lines, const char *reason) {
    const char *refusal = parse(lines);

    assert_non_null(refusal);
    assert_string_equal(refusal, reason);
}

static void a_refusal_names_line_key_value_and_reason(void **state) {
    (void)state;
    assert_refused("\n# x\ncount = 11\n", "file:3: count: 11: must be at most 10");
    assert_refused("count = 1\ncolour=blue", "file:2: colour: blue: must be one of red green");
    assert_refused("quiet = maybe", "file:1: quiet: maybe: must be yes or no");
    assert_refused("nonsense = 1", "file:1: nonsense: 1: unknown option (see --help)");
    assert_refused("config = x", "file:1: config: x: can be given on the command line only");
    assert_refused("help = yes", "file:1: help: yes: can be given on the command line only");
    assert_refused("quiet\n", "file:1: not NAME = VALUE");
    assert_refused("= 1\n", "file:1: not NAME = VALUE");
    assert_refused("two words = 1\n", "file:1: not NAME = VALUE");
    assert_refused("name =\n", "file:1: name: has no value");
    assert_refused("name = # comment\n", "file:1: name: has no value");
    assert_refused("name = \"a\n\"\n", "file:1: name: the quote is not closed");
    assert_refused("name = \"a\" b\n", "file:1: name: something follows the closing quote");
    assert_refused("count = 7# no comment\n", "file:1: count: 7# no comment: not a whole number");
    assert_string_equal(parse_bytes("name = a\0b\n", 11), "file:1: holds a zero byte");
}

static void what_is_printed_is_read_back(void **state) {
    (void)state;
    char *printed = NULL;
    size_t length;
    FILE *out;

    assert_null(parse("name = \"a \\\\ \\\" b\"\ncount = 3\ntime = 1.5ms\ncolour = green\nquiet = yes\nsum = 9"));
    got.shade = -1;
    out = open_memstream(&printed, &length);
    options_print_config(&table, out);
    fclose(out);
    assert_null(strstr(printed, "config"));
    assert_null(parse_bytes(printed, length));
    assert_string_equal(got.name, "a \\ \" b");
    assert_int_equal(got.count, 3);
    assert_int_equal(got.time_ns, 3 * NS_PER_MS / 2);
    assert_int_equal(got.choice, 1);
    assert_int_equal(got.parsed, 9);
    assert_true(got.quiet);
    assert_non_null(strstr(printed, "# shade = green\n"));
    assert_non_null(strstr(printed, "# least = N\n")); /* a target that no value can give is not set */
    free(printed);
}

static void a_file_is_read_whole_or_refused_by_name(void **state) {
    (void)state;
    char path[] = "/tmp/config_file.XXXXXX", *kept, expected[256];
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "name = x", 8), 8);
    assert_null(config_file_read(&table, path, &kept));
    assert_string_equal(got.name, "x");
    free(kept);
    assert_int_equal(ftruncate(fd, 2 << 20), 0);
    snprintf(expected, sizeof expected, "%s: cannot be read: File too large", path);
    assert_string_equal(config_file_read(&table, path, &kept), expected);
    assert_null(kept);
    close(fd);
    unlink(path);
    snprintf(expected, sizeof expected, "%s: cannot be read: No such file or directory", path);
    assert_string_equal(config_file_read(&table, path, &kept), expected);
    assert_string_equal(config_file_read(&table, "/tmp", &kept), "/tmp: cannot be read: Is a directory");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_arrive_as_they_are_meant),
        cmocka_unit_test(an_empty_value_in_quotes_leaves_the_default),
        cmocka_unit_test(a_refusal_names_line_key_value_and_reason),
        cmocka_unit_test(what_is_printed_is_read_back),
        cmocka_unit_test(a_file_is_read_whole_or_refused_by_name),
    };

    return cmocka_run_group_tests_name("config_file", tests, NULL, NULL);
}
