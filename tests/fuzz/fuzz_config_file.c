/* SPDX-License-Identifier: MIT */
/* The configuration file: any bytes are read or refused, and what was read is read back from what it is printed as. */
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
} got;

static const char *const choices[] = {"red", "green", NULL};

/* UNIX sockets only: what a name server says is no business of a fuzzer. */
static const char *parse_path(void *target, const char *value) {
    return *value == '/' ? address_parse(target, value) : "not a path";
}

static const char *format_path(const void *target, char *text) {
    return ((const struct address *)target)->length ? address_format(target, text) : NULL;
}

static const struct option_spec specs[] = {
    {.help = "a heading"},
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
