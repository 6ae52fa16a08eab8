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

/* What blocks told, one after the other. */
static struct {
    char told[256];
    const char *title, *page;
    uint64_t number;
} blocks;

static void tell(const char *what) {
    size_t length = strlen(blocks.told);

    snprintf(blocks.told + length, sizeof blocks.told - length, "%s|", what);
}

static const char *begin_book(const char *where) {
    tell(where);
    blocks.title = NULL;
    return NULL;
}

static const char *begin_page(const char *where) {
    tell(where);
    return blocks.number == 999 ? "no more of them" : NULL;
}

static const char *end_book(void) {
    tell(blocks.title ? blocks.title : "?");
    return blocks.title ? NULL : "has no title";
}

static const char *end_page(void) {
    tell("}");
    return NULL;
}

static const struct option_spec page_specs[] = {
    {"number", 0, OPTION_UINT, "N", "its number", &blocks.number},
};
static const struct option_table page_table = {.options = page_specs, .count = 1};
static const struct option_block page_block = {&page_table, begin_page, end_page};

static const struct option_spec book_specs[] = {
    {"title", 0, OPTION_STRING, "TEXT", "its title", &blocks.title},
    {"page", 0, OPTION_STRING, "TEXT", NULL, &blocks.page, .block = &page_block},
    {"quiet", 0, OPTION_FLAG, NULL, NULL, &got.quiet},
};
static const struct option_table book_table = {.options = book_specs, .count = 3};
static const struct option_block book_block = {&book_table, begin_book, end_book};

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
    {"book", 0, OPTION_STRING, "TEXT", "one or more", &got.name, .block = &book_block},
    {"config", 0, OPTION_STRING, "FILE", "a file", &got.name, .command_line_only = true},
    {"help", 'h', OPTION_HELP, NULL, "this", NULL},
};

static const struct option_table table = {"prog", "[options]", "A summary.", specs, sizeof specs / sizeof *specs};

static char text[4096];

static const char *parse_bytes(const char *bytes, size_t length) {
    memset(&got, 0, sizeof got);
    memset(&blocks, 0, sizeof blocks);
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

static void a_block_is_read_line_by_line_and_may_hold_others(void **state) {
    (void)state;
    assert_null(
        parse("count = 2\nbook = { # the first\n  title = \"a } b\"\n quiet = yes\n  page = {\n number = 7\n} #\n}\n"
              "book={\r\n\r\ntitle = 'two'\n  } # end\nbook = three\nsum = 4"));
    assert_string_equal(blocks.told, "file:2: book|file:5: book: page|}|a } b|file:9: book|two|");
    assert_int_equal(blocks.number, 7);
    assert_int_equal(got.parsed, 4);
    assert_string_equal(got.name, "three");
    assert_true(got.quiet);
    /* A brace is a value like any other where there is no block to begin. */
    assert_null(parse("name = {x\nbook = '{'\n"));
    assert_string_equal(got.name, "{");
}

static void a_bad_block_is_told_with_its_line(void **state) {
    (void)state;
    assert_refused("book = {\n\n}\n", "file:1: book: has no title");
    assert_refused("\nbook = {\ntitle = x\npage = {\n", "file:4: book: page: the block is not closed");
    assert_refused("book = {\ntitle = x\n", "file:1: book: the block is not closed");
    assert_refused("}\n", "file:1: there is no block to close");
    assert_refused("book = { title = x }\n", "file:1: book: a block begins and ends on lines of its own");
    assert_refused("book = {\ntitle = x\n} }\n", "file:3: book: something follows the closing brace");
    assert_refused("book = {\ncount = 1\n}\n", "file:2: book: count: 1: unknown option (see --help)");
    assert_refused("book = {\npage = {\nnumber = x\n}\n}", "file:3: book: page: number: x: not a whole number");
    assert_refused("book = {\npage = {\nnumber = 999\n}\npage = {\n", "file:5: book: page: no more of them");
    assert_refused("title = x\n", "file:1: title: x: unknown option (see --help)");
}

static void the_form_of_a_block_is_printed_and_means_nothing(void **state) {
    (void)state;
    char *printed = NULL;
    size_t length;
    FILE *out = open_memstream(&printed, &length);

    options_print_config(&table, out);
    options_print_help(&table, out);
    fclose(out);
    assert_non_null(strstr(printed, "# book = TEXT\n#   book = {\n#       title = TEXT\n#       page = {\n"
                                    "#           number = N\n#       }\n#       quiet = yes|no\n#   }\n"));
    assert_non_null(strstr(printed, "In a block of the configuration file, book = { }, a line each:\n"
                                    "      title = TEXT                its title\n"
                                    "      as above, for it alone: page, quiet\n"));
    free(printed);
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
        cmocka_unit_test(a_block_is_read_line_by_line_and_may_hold_others),
        cmocka_unit_test(a_bad_block_is_told_with_its_line),
        cmocka_unit_test(the_form_of_a_block_is_printed_and_means_nothing),
        cmocka_unit_test(what_is_printed_is_read_back),
        cmocka_unit_test(a_file_is_read_whole_or_refused_by_name),
    };

    return cmocka_run_group_tests_name("config_file", tests, NULL, NULL);
}
