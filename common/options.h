/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_OPTIONS_H
#define TLSDYNO_OPTIONS_H
/*
 * One table of options makes the command line, --help and (where a program has one) the configuration file and its
 * defaults, so that an option is described in one place.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum option_kind {
    OPTION_FLAG,     /* bool *: set to true */
    OPTION_STRING,   /* const char **: points into argv, or into the text of the configuration file */
    OPTION_UINT,     /* uint64_t *, between min and max */
    OPTION_DURATION, /* uint64_t *, ns, between min and max */
    OPTION_SIZE,     /* uint64_t *, bytes, between min and max */
    OPTION_CHOICE,   /* int *: index into choices; below 0 before one is made */
    OPTION_PARSE,    /* whatever parse() makes of it */
    OPTION_HELP,     /* print the table and exit 0 */
    OPTION_VERSION,  /* print the version and exit 0 */
};

struct option_table;

/*
 * What an option may be in a configuration file instead of a value: NAME = {, options of another table, one a line, and
 * }. Both functions give NULL or why the block is refused.
 */
struct option_block {
    const struct option_table *table;
    const char *(*begin)(const char *where); /* "FILE:LINE: NAME" of its first line, valid during the call */
    const char *(*end)(void);
};

struct option_spec {
    const char *name; /* without dashes; NULL: a heading for --help, whose text is in help */
    char letter;      /* 0: no short form */
    enum option_kind kind;
    const char *value_name; /* for --help; NULL for flags */
    const char *help;
    void *target;
    const char *const *choices;                            /* OPTION_CHOICE: ended by NULL */
    const char *(*parse)(void *target, const char *value); /* OPTION_PARSE: NULL or why the value is refused */
    uint64_t min, max;                                     /* max 0: no limit */
    const char *value_if_none; /* the value may be left out, and is this then; given, it is written --NAME=VALUE */
    const char *alias;         /* what older configuration files call it */
    bool command_line_only;    /* refused in a configuration file */
    bool zero_too;             /* 0 is good, whatever min is */
    const struct option_block *block; /* NULL: a value is all it can be */
    /* OPTION_PARSE: the value as text (OPTION_TEXT_MAX bytes), for options_print_config; NULL: nothing is set. */
    const char *(*format)(const void *target, char *text);
};

#define OPTION_TEXT_MAX 256

struct option_table {
    const char *program;
    const char *usage;   /* what follows the program's name in --help */
    const char *summary; /* a line or two for --help */
    const struct option_spec *options;
    int count;
};

/* The block that the option of this name may be, or NULL. */
const struct option_block *options_block(const struct option_table *table, const char *name);

/*
 * Reads argv into the targets and returns the index of the first operand (argv is permuted as getopt does). Whatever is
 * wrong ends the program with EXIT_USAGE and one line that names the option.
 */
int options_parse(const struct option_table *table, int argc, char **argv);

/* The same for who must go on: NULL and *first is the index of the first operand, or why argv is refused. The text is
 * valid until the next call. */
const char *options_read(const struct option_table *table, int argc, char **argv, int *first);

/*
 * Sets one option by its long name or alias, as a configuration file does: a flag is yes, no, on, off, true or false,
 * and so may be an option whose value may be left out. The value must stay where it is. NULL, or why it is refused,
 * without the name.
 */
const char *options_set(const struct option_table *table, const char *name, const char *value);

/*
 * The options as a configuration file with the values that their targets have now; what is not set is commented out,
 * and so is the form of each block.
 */
void options_print_config(const struct option_table *table, FILE *out);

void options_print_help(const struct option_table *table, FILE *out);

#endif
