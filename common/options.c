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

/* Wraps text at HELP_WIDTH; the first line starts at the cursor, the others with so many columns of indent. */
static void print_wrapped(const char *text, const char *indent, int columns, FILE *out) {
    int room = HELP_WIDTH - columns;

    while ((int)strlen(text) > room) {
        int cut = room;
        while (cut > 0 && text[cut] != ' ')
            cut--;
        if (cut == 0)
            break;
        fprintf(out, "%.*s\n%-*s", cut, text, columns, indent);
        text += cut + 1;
    }
    fprintf(out, "%s\n", text);
}

/* Options that are the same as outside, where they are described, have no help of their own. */
static void print_block_help(const struct option_spec *option, FILE *out) {
    const struct option_table *table = option->block->table;
    const char *separator = "";
    char names[512] = "";

    fprintf(out, "\nIn a block of the configuration file, %s = { }, a line each:\n", option->name);
    for (int i = 0; i < table->count; i++) {
        const struct option_spec *inner = &table->options[i];
        size_t length = strlen(names);
        char left[128];

        if (!inner->help) {
            snprintf(names + length, sizeof names - length, "%s%s", separator, inner->name);
            separator = ", ";
            continue;
        }
        snprintf(left, sizeof left, "      %s = %s", inner->name, inner->value_name);
        if (strlen(left) < HELP_COLUMN - 1)
            fprintf(out, "%-*s", HELP_COLUMN, left);
        else
            fprintf(out, "%s\n%*s", left, HELP_COLUMN, "");
        print_wrapped(inner->help, "", HELP_COLUMN, out);
    }
    if (*names) {
        fprintf(out, "      as above, for it alone: ");
        print_wrapped(names, "", strlen("      as above, for it alone: "), out);
    }
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
        print_wrapped(option->help, "", HELP_COLUMN, out);
    }
    for (int i = 0; i < table->count; i++)
        if (table->options[i].block)
            print_block_help(&table->options[i], out);
}

static const char *limit_reason(const struct option_spec *option, uint64_t value) {
    static char reason[96];
    uint64_t unit = option->kind == OPTION_DURATION ? NS_PER_MS : 1;
    const char *unit_name = option->kind == OPTION_DURATION ? " ms" : "";

    if (value < option->min && !(option->zero_too && value == 0)) {
        snprintf(reason, sizeof reason, "must be at least %llu%s%s", (unsigned long long)(option->min / unit),
                 unit_name, option->zero_too ? ", or 0" : "");
        return reason;
    }
    if (option->max && value > option->max) {
        snprintf(reason, sizeof reason, "must be at most %llu%s", (unsigned long long)(option->max / unit), unit_name);
        return reason;
    }
    return NULL;
}

/* The value that is set, as options_set takes it; NULL: none. */
static const char *format_value(const struct option_spec *option, char *text) {
    uint64_t number;
    int choice;

    switch (option->kind) {
    case OPTION_FLAG:
        return *(const bool *)option->target ? "yes" : "no";
    case OPTION_STRING:
        return *(const char *const *)option->target;
    case OPTION_CHOICE:
        choice = *(const int *)option->target;
        return choice < 0 ? NULL : option->choices[choice];
    case OPTION_PARSE:
        return option->format ? option->format(option->target, text) : NULL;
    case OPTION_UINT:
    case OPTION_SIZE:
    case OPTION_DURATION:
        number = *(const uint64_t *)option->target;
        if (limit_reason(option, number))
            return NULL; /* it is not what anybody can ask for */
        if (option->kind != OPTION_DURATION)
            snprintf(text, OPTION_TEXT_MAX, "%llu", (unsigned long long)number);
        else if (number % NS_PER_S)
            snprintf(text, OPTION_TEXT_MAX, "%llu.%06llums", (unsigned long long)(number / NS_PER_MS),
                     (unsigned long long)(number % NS_PER_MS));
        else
            snprintf(text, OPTION_TEXT_MAX, "%llus", (unsigned long long)(number / NS_PER_S));
        return text;
    default:
        return NULL;
    }
}

/* In quotes, for a configuration file. */
static void print_quoted(const char *text, FILE *out) {
    putc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putc('\\', out);
        putc(*text, out);
    }
    putc('"', out);
}

/* Commented out. */
static void print_block_form(const struct option_spec *option, int indent, FILE *out) {
    const struct option_table *table = option->block->table;

    fprintf(out, "#%*s%s = {\n", indent, "", option->name);
    for (int i = 0; i < table->count; i++) {
        const struct option_spec *inner = &table->options[i];

        if (inner->block)
            print_block_form(inner, indent + 4, out);
        else
            fprintf(out, "#%*s%s = %s\n", indent + 4, "", inner->name,
                    inner->value_name ? inner->value_name : "yes|no");
    }
    fprintf(out, "#%*s}\n", indent, "");
}

void options_print_config(const struct option_table *table, FILE *out) {
    char text[OPTION_TEXT_MAX];

    for (int i = 0; i < table->count; i++) {
        const struct option_spec *option = &table->options[i];
        const char *value;

        if (!option->name) {
            fprintf(out, "%s# ---- ", i ? "\n" : "");
            print_wrapped(option->help, "#", 2, out);
            continue;
        }
        if (option->command_line_only || option->kind == OPTION_HELP || option->kind == OPTION_VERSION)
            continue;
        fprintf(out, "\n# ");
        print_wrapped(option->help, "#", 2, out);
        value = format_value(option, text);
        fprintf(out, "%s%s = ", value && *value ? "" : "# ", option->name);
        if (!value || !*value)
            fprintf(out, "%s", option->value_if_none ? option->value_if_none : option->value_name);
        else if (option->kind == OPTION_STRING || option->kind == OPTION_PARSE)
            print_quoted(value, out);
        else
            fprintf(out, "%s", value);
        putc('\n', out);
        if (option->block)
            print_block_form(option, 3, out);
    }
}

static const char *set_number(const struct option_spec *option, const char *value) {
    uint64_t number;
    const char *reason;

    if (option->kind == OPTION_UINT && !parse_uint(value, &number))
        return "not a whole number";
    if (option->kind == OPTION_DURATION && !parse_duration_ns(value, &number))
        return "not a time such as 500ms, 5s or 1h";
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

static const struct option_spec *find_option(const struct option_table *table, const char *name) {
    for (int i = 0; i < table->count; i++) {
        const struct option_spec *option = &table->options[i];
        if (option->name && (strcmp(option->name, name) == 0 || (option->alias && strcmp(option->alias, name) == 0)))
            return option;
    }
    return NULL;
}

const struct option_block *options_block(const struct option_table *table, const char *name) {
    const struct option_spec *option = find_option(table, name);

    return option ? option->block : NULL;
}

static const char *set_flag(bool *target, const char *value) {
    static const char *const yes[] = {"yes", "on", "true"}, *const no[] = {"no", "off", "false"};

    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        if (strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
            *target = strcmp(value, yes[i]) == 0;
            return NULL;
        }
    }
    return "must be yes or no";
}

const char *options_set(const struct option_table *table, const char *name, const char *value) {
    const struct option_spec *option = find_option(table, name);
    bool flag;

    if (!option)
        return "unknown option (see --help)";
    if (option->command_line_only || option->kind == OPTION_HELP || option->kind == OPTION_VERSION)
        return "can be given on the command line only";
    if (option->kind == OPTION_FLAG)
        return set_flag(option->target, value);
    if (option->value_if_none && !set_flag(&flag, value))
        return flag ? set_option(table, option, option->value_if_none) : NULL;
    return set_option(table, option, value);
}

/* Room for what getopt needs: long options, and for each letter up to two colons. */
struct getopt_table {
    struct option longs[OPTIONS_MAX + 1];
    char letters[3 * OPTIONS_MAX + 2];
};

static void make_getopt_table(const struct option_table *table, struct getopt_table *made, int *which) {
    char *letter = made->letters;
    int count = 0;

    *letter++ = ':'; /* getopt tells a missing value from an unknown option */
    for (int i = 0; i < table->count; i++) {
        const struct option_spec *option = &table->options[i];
        int argument = !takes_value(option)    ? no_argument
                       : option->value_if_none ? optional_argument
                                               : required_argument;

        if (!option->name)
            continue;
        made->longs[count++] = (struct option){option->name, argument, which, LONG_OPTION + i};
        if (!option->letter)
            continue;
        *letter++ = option->letter;
        for (int colons = 0; colons < argument; colons++) /* as it happens: required is 1, optional 2 */
            *letter++ = ':';
    }
    *letter = '\0';
}

const char *options_read(const struct option_table *table, int argc, char **argv, int *first) {
    static char refusal[512];
    /* Not allocated: a refusal ends most programs from the middle of this. */
    struct getopt_table known = {0};
    int found, which = 0;

    if (table->count > OPTIONS_MAX)
        return "too many options in the table";
    make_getopt_table(table, &known, &which);
    opterr = 0;
    optind = 0; /* glibc: begin anew, whatever an earlier refusal left unread */
    while ((found = getopt_long(argc, argv, known.letters, known.longs, NULL)) != -1) {
        const struct option_spec *option = NULL;
        const char *reason;

        if (found == ':') {
            snprintf(refusal, sizeof refusal, "%s: needs a value", argv[optind - 1]);
            return refusal;
        }
        if (found == '?') {
            if (optopt && optopt < LONG_OPTION) /* its argument may be one with more letters, and not be used up yet */
                snprintf(refusal, sizeof refusal, "-%c: unknown option (see --help)", optopt);
            else
                snprintf(refusal, sizeof refusal, "%s: unknown option, or one that takes no value (see --help)",
                         argv[optind - 1]);
            return refusal;
        }
        if (found == 0)
            option = &table->options[which - LONG_OPTION];
        for (int i = 0; !option && i < table->count; i++)
            if (table->options[i].name && table->options[i].letter == found)
                option = &table->options[i];
        reason = option ? set_option(table, option, optarg ? optarg : option->value_if_none) : "unknown option";
        if (reason) {
            snprintf(refusal, sizeof refusal, "--%s: %.255s: %s", option ? option->name : "?", optarg ? optarg : "",
                     reason);
            return refusal;
        }
    }
    *first = optind;
    return NULL;
}

int options_parse(const struct option_table *table, int argc, char **argv) {
    int first = 0;
    const char *reason = options_read(table, argc, argv, &first);

    if (reason)
        fail(EXIT_USAGE, "%s", reason);
    return first;
}
