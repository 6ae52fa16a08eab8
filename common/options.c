/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "options.h"

#include "log.h"
#include "units.h"
#include "version.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMN 34
#define HELP_WIDTH  110
#define OPTIONS_MAX 128

/* What getopt calls the first long option: above every letter. */
#define LONG_OPTION 256

static bool takes_value(const struct option_spec *option) {
    return option->kind != OPTION_FLAG && option->kind != OPTION_HELP && option->kind != OPTION_VERSION;
}

/* Wraps text at HELP_WIDTH; the first line starts at the cursor, the others at HELP_COLUMN. */
static void print_wrapped(const char *text, FILE *out) {
    int room = HELP_WIDTH - HELP_COLUMN;

    while ((int)strlen(text) > room) {
        int cut = room;
        while (cut > 0 && text[cut] != ' ')
            cut--;
        if (cut == 0)
            break;
        fprintf(out, "%.*s\n%*s", cut, text, HELP_COLUMN, "");
        text += cut + 1;
    }
    fprintf(out, "%s\n", text);
}

void options_print_help(const struct option_table *table, FILE *out) {
    fprintf(out, "usage: %s %s\n\n%s\n", table->program, table->usage, table->summary);
    for (int i = 0; i < table->count; i++) {
        const struct option_spec *option = &table->options[i];
        char left[128];
        int length;

        if (!option->name) {
            fprintf(out, "\n%s:\n", option->help);
            continue;
        }
        if (option->letter)
            length = snprintf(left, sizeof left, "  -%c, --%s", option->letter, option->name);
        else
            length = snprintf(left, sizeof left, "      --%s", option->name);
        if (option->value_name)
            length += snprintf(left + length, sizeof left - (size_t)length, option->value_if_none ? "%s" : " %s",
                               option->value_name);
        if (length < HELP_COLUMN - 1)
            fprintf(out, "%-*s", HELP_COLUMN, left);
        else
            fprintf(out, "%s\n%*s", left, HELP_COLUMN, "");
        print_wrapped(option->help, out);
    }
}

static const char *limit_reason(const struct option_spec *option, uint64_t value) {
    static char reason[96];
    uint64_t unit = option->kind == OPTION_DURATION ? NS_PER_MS : 1;
    const char *unit_name = option->kind == OPTION_DURATION ? " ms" : "";

    if (value < option->min) {
        snprintf(reason, sizeof reason, "must be at least %llu%s", (unsigned long long)(option->min / unit), unit_name);
        return reason;
    }
    if (option->max && value > option->max) {
        snprintf(reason, sizeof reason, "must be at most %llu%s", (unsigned long long)(option->max / unit), unit_name);
        return reason;
    }
    return NULL;
}

static const char *set_number(const struct option_spec *option, const char *value) {
    uint64_t number;
    const char *reason;

    if (option->kind == OPTION_UINT && !parse_uint(value, &number))
        return "not a whole number";
    if (option->kind == OPTION_DURATION && !parse_duration_ns(value, &number))
        return "not a time such as 500ms, 5s or 2m";
    if (option->kind == OPTION_SIZE && !parse_size(value, &number))
        return "not a size such as 100, 16k or 2m";
    reason = limit_reason(option, number);
    if (!reason)
        *(uint64_t *)option->target = number;
    return reason;
}

static const char *set_choice(const struct option_spec *option, const char *value) {
    static char reason[160];
    size_t length;

    for (int i = 0; option->choices[i]; i++)
        if (strcmp(option->choices[i], value) == 0) {
            *(int *)option->target = i;
            return NULL;
        }
    length = (size_t)snprintf(reason, sizeof reason, "must be one of");
    for (int i = 0; option->choices[i] && length < sizeof reason; i++)
        length += (size_t)snprintf(reason + length, sizeof reason - length, " %s", option->choices[i]);
    return reason;
}

/* NULL, or why the value is refused. */
static const char *set_option(const struct option_table *table, const struct option_spec *option, const char *value) {
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)option->target = true;
        return NULL;
    case OPTION_STRING:
        if (!*value)
            return "must not be empty";
        *(const char **)option->target = value;
        return NULL;
    case OPTION_UINT:
    case OPTION_DURATION:
    case OPTION_SIZE:
        return set_number(option, value);
    case OPTION_CHOICE:
        return set_choice(option, value);
    case OPTION_PARSE:
        return option->parse(option->target, value);
    case OPTION_HELP:
        options_print_help(table, stdout);
        exit(fflush(stdout) == 0 ? 0 : EXIT_FAILED);
    case OPTION_VERSION:
        printf("%s %s\n", table->program, TLSDYNO_VERSION);
        exit(fflush(stdout) == 0 ? 0 : EXIT_FAILED);
    }
    return "of no known kind";
}

int options_parse(const struct option_table *table, int argc, char **argv) {
    /* Not allocated: a refusal ends the program from the middle of this. */
    struct option longs[OPTIONS_MAX + 1] = {{0}};
    char letters[2 * OPTIONS_MAX + 2], *letter = letters;
    int found, count = 0, which = 0;

    if (table->count > OPTIONS_MAX)
        fail(EXIT_FAILED, "more than %d options", OPTIONS_MAX);
    *letter++ = ':'; /* getopt tells a missing value from an unknown option */
    for (int i = 0; i < table->count; i++) {
        const struct option_spec *option = &table->options[i];
        if (!option->name)
            continue;
        longs[count++] = (struct option){option->name, option->value_if_none ? optional_argument : takes_value(option),
                                         &which, LONG_OPTION + i};
        if (option->letter) {
            *letter++ = option->letter;
            if (takes_value(option))
                *letter++ = ':';
        }
    }
    *letter = '\0';
    opterr = 0;
    optind = 1;
    while ((found = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        const struct option_spec *option = NULL;
        const char *reason;

        if (found == ':')
            fail(EXIT_USAGE, "%s: needs a value", argv[optind - 1]);
        if (found == '?') {
            if (optopt && optopt < LONG_OPTION) /* its argument may be one with more letters, and not be used up yet */
                fail(EXIT_USAGE, "-%c: unknown option (see --help)", optopt);
            fail(EXIT_USAGE, "%s: unknown option, or one that takes no value (see --help)", argv[optind - 1]);
        }
        if (found == 0)
            option = &table->options[which - LONG_OPTION];
        for (int i = 0; !option && i < table->count; i++)
            if (table->options[i].name && table->options[i].letter == found)
                option = &table->options[i];
        if (option && option->value_if_none && !optarg)
            optarg = (char *)(uintptr_t)option->value_if_none;
        reason = option ? set_option(table, option, optarg) : "unknown option";
        if (reason)
            fail(EXIT_USAGE, "--%s: %s: %s", option ? option->name : "?", optarg ? optarg : "", reason);
    }
    return optind;
}
