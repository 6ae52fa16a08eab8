/* SPDX-License-Identifier: MIT */
/*
 * The configuration file: any bytes are read or refused, what was read is read back from what it is printed as, and
 * blocks that began have ended, each inside of the one that it is in.
 */
#define _GNU_SOURCE
#include "config_file.h"

#include "address.h"

#include <stdlib.h>
#include <string.h>

/* Times are read as doubles: up to here each nanosecond is one. */
#define TIME_MAX_NS (UINT64_C(1) << 52)

static struct {
    bool flag;
    const char *text;
    uint64_t number, time_ns, size;
    int choice;
    struct address address;
    const char *inner_text, *innermost_text;
    uint64_t inner_number;
    int open;  /* blocks */
    int ended; /* of the inner kind */
} got;

static const char *const choices[] = {"red", "green", NULL};

/* UNIX sockets only: what a name server says is no business of a fuzzer. */
static const char *parse_path(void *target, const char *value) {
    return *value == '/' ? address_parse(target, value) : "not a path";
}

static const char *format_path(const void *target, char *text) {
    return ((const struct address *)target)->length ? address_format(target, text) : NULL;
}

static const char *begin_inner(const char *where) {
    if (got.open != 0 || strncmp(where, "file:", 5) != 0 || strchr(where, '\n'))
        abort();
    got.open = 1;
    got.inner_text = NULL;
    return NULL;
}

static const char *end_inner(void) {
    if (got.open != 1)
        abort();
    if (!got.inner_text)
        return "no text";
    got.open = 0;
    return ++got.ended > 100 ? "too many" : NULL;
}

static const char *begin_innermost(const char *where) {
    if (got.open != 1 || !strstr(where, ": inner: innermost"))
        abort();
    got.open = 2;
    return got.inner_number == 13 ? "not now" : NULL;
}

static const char *end_innermost(void) {
    if (got.open != 2)
        abort();
    got.open = 1;
    return NULL;
}

static const struct option_spec innermost_specs[] = {
    {"text", 0, OPTION_STRING, "TEXT", "any text", &got.innermost_text},
};
static const struct option_table innermost_table = {.options = innermost_specs, .count = 1};
static const struct option_block innermost = {&innermost_table, begin_innermost, end_innermost};

static const struct option_spec inner_specs[] = {
    {"text", 0, OPTION_STRING, "TEXT", "any text", &got.inner_text},
    {"number", 0, OPTION_UINT, "N", "a number", &got.inner_number, .max = 20},
    {"innermost", 0, OPTION_STRING, "TEXT", NULL, &got.innermost_text, .block = &innermost},
};
static const struct option_table inner_table = {.options = inner_specs, .count = 3};
static const struct option_block inner = {&inner_table, begin_inner, end_inner};

static const struct option_spec specs[] = {
    {.help = "a heading"},
    {"inner", 0, OPTION_STRING, "TEXT", "a text or a block", &got.text, .block = &inner},
    {"flag", 'f', OPTION_FLAG, NULL, "on or off", &got.flag},
    {"text", 0, OPTION_STRING, "TEXT", "any text", &got.text, .alias = "old"},
    {"number", 'n', OPTION_UINT, "N", "a number", &got.number, .min = 1, .max = 1000},
    {"time", 't', OPTION_DURATION, "T", "a time", &got.time_ns, .max = TIME_MAX_NS},
    {"size", 0, OPTION_SIZE, "SIZE", "a size", &got.size},
    {"choice", 0, OPTION_CHOICE, "red|green", "one of two", &got.choice, .choices = choices},
    {"path", 0, OPTION_PARSE, "PATH", "a path", &got.address, .parse = parse_path, .format = format_path},
    {"config", 0, OPTION_STRING, "FILE", "not in a file", &got.text, .command_line_only = true},
    {"help", 'h', OPTION_HELP, NULL, "nor this", NULL},
};

static const struct option_table table = {"fuzz", "", "", specs, sizeof specs / sizeof *specs};

static const char *parse(char *text, size_t length) {
    memset(&got, 0, sizeof got);
    got.number = 1;
    return config_file_parse(&table, "file", text, length);
}

static char *print(size_t *length) {
    char *text = NULL;
    FILE *out = open_memstream(&text, length);

    if (!out)
        abort();
    options_print_config(&table, out);
    fclose(out);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    char *text = malloc(length + 1), *first, *second, *again;
    size_t first_length, second_length;
    const char *reason;

    memcpy(text, bytes, length);
    text[length] = '\0';
    reason = parse(text, length);
    if (reason && strchr(reason, '\n'))
        abort();
    if (!reason && got.open)
        abort();
    if (!reason) {
        first = print(&first_length);
        again = strdup(first);
        if (parse(again, first_length))
            abort();
        second = print(&second_length);
        if (first_length != second_length || memcmp(first, second, first_length) != 0)
            abort();
        free(first);
        free(again);
        free(second);
    }
    free(text);
    return 0;
}
