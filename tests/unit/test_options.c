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
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "options.h"
#include "units.h"

static struct {
    bool quiet;
    const char *name;
    uint64_t count, time_ns, size;
    int choice;
    int parsed;
} got;

static const char *const choices[] = {"red", "green", NULL};

static const char *parse_even(void *target, const char *value) {
    int number = atoi(value);

    if (number % 2)
        return "odd";
    *(int *)target = number;
    return NULL;
}

static const struct option_spec specs[] = {
    {.help = "a heading"},
    {"quiet", 'q', OPTION_FLAG, NULL, "less words", &got.quiet, NULL, NULL, 0, 0},
    {"name", 0, OPTION_STRING, "TEXT", "a name", &got.name, NULL, NULL, 0, 0},
    {"count", 'n', OPTION_UINT, "N", "how many", &got.count, NULL, NULL, 1, 10},
    {"time", 't', OPTION_DURATION, "TIME", "how long", &got.time_ns, NULL, NULL, NS_PER_MS, NS_PER_S},
    {"size", 0, OPTION_SIZE, "SIZE", "how big", &got.size, NULL, NULL, 0, 0},
    {"colour", 0, OPTION_CHOICE, "red|green", "which", &got.choice, choices, NULL, 0, 0},
    {"shade", 0, OPTION_CHOICE, "[=red|green]", "which, or just one", &got.choice, choices, NULL, 0, 0, "green"},
    {"even", 0, OPTION_PARSE, "N",
     "a number; and this is a text so long that it does not fit into one line of the help, which is then broken "
     "between "
     "two words",
     &got.parsed, NULL, parse_even, 0, 0},
    {"version", 'V', OPTION_VERSION, NULL, "the version", NULL, NULL, NULL, 0, 0},
    {"help", 'h', OPTION_HELP, NULL, "this", NULL, NULL, NULL, 0, 0},
};

static const struct option_table table = {"prog", "[options]", "A summary.", specs, sizeof specs / sizeof *specs};

#define ARGUMENTS_MAX 32

/* words: the command line, one blank between arguments. argv and its strings are the caller's to keep. */
static int split(char *words, char **argv) {
    int argc = 0;

    argv[argc++] = words;
    for (char *c = words; *c; c++)
        if (*c == ' ') {
            assert_true(argc < ARGUMENTS_MAX - 1);
            *c = '\0';
            argv[argc++] = c + 1;
        }
    argv[argc] = NULL;
    return argc;
}

static char words[256];
static char *arguments[ARGUMENTS_MAX];

static int parse(const char *line) {
    memset(&got, 0, sizeof got);
    snprintf(words, sizeof words, "%s", line);
    return options_parse(&table, split(words, arguments), arguments);
}

/* Runs options_parse in a process of its own, since it may end it; text gets what was written to descriptor fd. */
static int status_of(const char *line, int fd, char *text, size_t size) {
    int ends[2], wait_status;
    size_t length = 0;
    ssize_t count;
    pid_t pid;

    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], fd);
        log_open("prog");
        parse(line);
        _exit(100); /* nothing was refused */
    }
    close(ends[1]);
    while (length < size - 1 && (count = read(ends[0], text + length, size - 1 - length)) > 0)
        length += (size_t)count;
    text[length] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    assert_true(WIFEXITED(wait_status));
    return WEXITSTATUS(wait_status);
}

static void assert_refused(const char *line, const char *message) {
    char text[1024], expected[1024];

    assert_int_equal(status_of(line, STDERR_FILENO, text, sizeof text), EXIT_USAGE);
    snprintf(expected, sizeof expected, "prog: %s\n", message);
    assert_string_equal(text, expected);
}

static void every_kind_of_option_reaches_its_target(void **state) {
    (void)state;

    parse("prog -q --name me -n 3 -t 20ms --size=4k --colour green --even 8");
    assert_true(got.quiet);
    assert_string_equal(got.name, "me");
    assert_int_equal(got.count, 3);
    assert_int_equal(got.time_ns, 20 * NS_PER_MS);
    assert_int_equal(got.size, 4096);
    assert_int_equal(got.choice, 1);
    assert_int_equal(got.parsed, 8);
    parse("prog -qn7 --time=1s");
    assert_true(got.quiet);
    assert_int_equal(got.count, 7);
    assert_int_equal(got.time_ns, NS_PER_S);
}

static void operands_are_left_wherever_they_stand(void **state) {
    (void)state;
    int operand = parse("prog one -q two --count 2 -- -n");

    assert_true(got.quiet);
    assert_int_equal(got.count, 2);
    assert_string_equal(arguments[operand], "one");
    assert_string_equal(arguments[operand + 1], "two");
    assert_string_equal(arguments[operand + 2], "-n");
    assert_null(arguments[operand + 3]);
}

static void the_last_of_several_counts(void **state) {
    (void)state;

    parse("prog -n 2 --count 5");
    assert_int_equal(got.count, 5);
}

static void a_bad_value_is_named_with_its_option_and_the_reason(void **state) {
    (void)state;
    assert_refused("prog -n x", "--count: x: not a whole number");
    assert_refused("prog --count 0", "--count: 0: must be at least 1");
    assert_refused("prog --count=11", "--count: 11: must be at most 10");
    assert_refused("prog -t 5x", "--time: 5x: not a time such as 500ms, 5s or 1h");
    assert_refused("prog -t 2s", "--time: 2s: must be at most 1000 ms");
    assert_refused("prog --size 1q", "--size: 1q: not a size such as 100, 16k or 2m");
    assert_refused("prog --colour blue", "--colour: blue: must be one of red green");
    assert_refused("prog --even 3", "--even: 3: odd");
    assert_refused("prog --name=", "--name: : must not be empty");
}

static void an_unknown_option_is_named_wherever_it_stands(void **state) {
    (void)state;
    assert_refused("prog -x", "-x: unknown option (see --help)");
    assert_refused("prog --quiet -xq", "-x: unknown option (see --help)");
    assert_refused("prog --quiet -qx", "-x: unknown option (see --help)");
    assert_refused("prog --nonsense", "--nonsense: unknown option, or one that takes no value (see --help)");
    assert_refused("prog -q --nonsense=1", "--nonsense=1: unknown option, or one that takes no value (see --help)");
    assert_refused("prog --quiet=1", "--quiet=1: unknown option, or one that takes no value (see --help)");
}

static void a_missing_value_is_told_from_an_unknown_option(void **state) {
    (void)state;
    assert_refused("prog -n", "-n: needs a value");
    assert_refused("prog --count", "--count: needs a value");
}

static void help_lists_every_option_and_ends_well(void **state) {
    (void)state;
    char text[4096];

    assert_int_equal(status_of("prog --help", STDOUT_FILENO, text, sizeof text), 0);
    assert_non_null(strstr(text, "usage: prog [options]"));
    assert_non_null(strstr(text, "A summary."));
    assert_non_null(strstr(text, "a heading:\n"));
    for (int i = 0; i < table.count; i++)
        if (specs[i].name)
            assert_non_null(strstr(text, specs[i].name));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        assert_true(strlen(line) <= 110);
    assert_int_equal(status_of("prog -V", STDOUT_FILENO, text, sizeof text), 0);
    assert_memory_equal(text, "prog ", 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_option_reaches_its_target),
        cmocka_unit_test(operands_are_left_wherever_they_stand),
        cmocka_unit_test(the_last_of_several_counts),
        cmocka_unit_test(a_bad_value_is_named_with_its_option_and_the_reason),
        cmocka_unit_test(an_unknown_option_is_named_wherever_it_stands),
        cmocka_unit_test(a_missing_value_is_told_from_an_unknown_option),
        cmocka_unit_test(help_lists_every_option_and_ends_well),
    };

    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
