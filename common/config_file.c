/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "config_file.h"

#include "regular_file.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* No configuration is that long: somebody named the wrong file. */
#define FILE_BYTES_MAX (1 << 20)

static char refusal[768];

static char *skip_blanks(char *at) {
    while (isblank((unsigned char)*at) || *at == '\r')
        at++;
    return at;
}

static bool is_name(char c) {
    return isalnum((unsigned char)c) || c == '-' || c == '_';
}

/* Nothing but a comment may follow what ends here. */
static bool only_comment_follows(char *at) {
    at = skip_blanks(at);
    return !*at || *at == '#';
}

/* Takes the quotes off the value that begins at **value; in double quotes, a backslash takes the next character as it
 * is. */
static const char *unquote(char **value) {
    char *from = *value + 1, *to = *value, quote = **value;

    *value = to;
    while (*from && *from != quote) {
        if (quote == '"' && *from == '\\' && (from[1] == '"' || from[1] == '\\'))
            from++;
        *to++ = *from++;
    }
    if (*from != quote)
        return "the quote is not closed";
    if (!only_comment_follows(from + 1))
        return "something follows the closing quote";
    *to = '\0';
    return NULL;
}

/* Ends a value without quotes: at the end of the line, or before a comment, which has a blank before it. */
static void trim(char *value) {
    char *end = value;

    for (char *at = value; *at && !(*at == '#' && isblank((unsigned char)at[-1])); at++)
        if (!isspace((unsigned char)*at))
            end = at + 1;
    *end = '\0';
}

/* Blocks in blocks: tables say which there are. */
#define SCOPES_MAX 4

/* Where reading is: in the file itself, or in a block. */
struct scope {
    const struct option_table *table;
    const struct option_block *block; /* NULL: the file itself */
    const char *key;                  /* of the block */
    int line;                         /* where it began */
};

struct reading {
    const char *name;
    struct scope scope[SCOPES_MAX];
    int depth; /* of the scope that is read */
    int line;
    /* Of this line, for the refusal, as soon as they are known. */
    const char *key, *value;
};

/* "FILE:LINE: BLOCK: KEY: ". Returns how much was written. */
static int write_where(const struct reading *reading, int line, int depth, const char *key, char *text, size_t size) {
    int length = snprintf(text, size, "%.255s:%d: ", reading->name, line);

    for (int i = 1; i <= depth; i++)
        length += snprintf(text + length, size - (size_t)length, "%.31s: ", reading->scope[i].key);
    if (key)
        length += snprintf(text + length, size - (size_t)length, "%.63s: ", key);
    return length;
}

static const char *begin_block(struct reading *reading, char *brace) {
    const struct option_block *block = options_block(reading->scope[reading->depth].table, reading->key);
    struct scope *scope = &reading->scope[reading->depth + 1];
    const char *reason;
    static char where[512];
    int length;

    if (!only_comment_follows(brace + 1))
        return "a block begins and ends on lines of its own";
    if (reading->depth + 1 == SCOPES_MAX)
        return "blocks in blocks go no deeper";
    length = write_where(reading, reading->line, reading->depth, reading->key, where, sizeof where);
    where[length - 2] = '\0'; /* without the last ": " */
    reason = block->begin(where);
    if (reason)
        return reason;
    *scope = (struct scope){.table = block->table, .block = block, .key = reading->key, .line = reading->line};
    reading->depth++;
    return NULL;
}

/* What is wrong with a whole block is told of the line where it began. */
static const char *end_block(struct reading *reading, char *brace) {
    const struct scope *scope = &reading->scope[reading->depth];
    const char *reason;

    if (!only_comment_follows(brace + 1))
        return "something follows the closing brace";
    if (!scope->block)
        return "there is no block to close";
    reason = scope->block->end();
    if (reason)
        reading->line = scope->line;
    else
        reading->depth--;
    return reason;
}

/* One line without its end. */
static const char *parse_line(struct reading *reading, char *line) {
    const struct option_table *table = reading->scope[reading->depth].table;
    char *at = skip_blanks(line), *value;
    const char *reason;
    bool quoted;

    if (!*at || *at == '#')
        return NULL;
    if (*at == '}')
        return end_block(reading, at);
    value = at;
    while (is_name(*value))
        value++;
    if (value == at || *skip_blanks(value) != '=')
        return "not NAME = VALUE";
    reading->key = at;
    at = skip_blanks(value) + 1;
    *value = '\0';
    value = skip_blanks(at);
    if (*value == '{' && options_block(table, reading->key))
        return begin_block(reading, value);
    quoted = *value == '"' || *value == '\'';
    if (quoted) {
        reason = unquote(&value);
        if (reason)
            return reason;
    } else {
        if (*value == '#')
            *value = '\0';
        trim(value);
    }
    if (!*value)
        return quoted ? NULL : "has no value";
    reading->value = value;
    return options_set(table, reading->key, value);
}

static const char *refuse(const struct reading *reading, const char *reason) {
    int length = write_where(reading, reading->line, reading->depth, reading->key, refusal, sizeof refusal);

    snprintf(refusal + length, sizeof refusal - (size_t)length, "%.127s%s%.255s", reading->value ? reading->value : "",
             reading->value ? ": " : "", reason);
    return refusal;
}

const char *config_file_parse(const struct option_table *table, const char *name, char *text, size_t length) {
    struct reading reading = {.name = name, .scope = {{.table = table}}, .line = 1};

    for (char *line = text, *end; line < text + length; line = end + 1, reading.line++) {
        const char *reason;

        reading.key = reading.value = NULL;
        end = memchr(line, '\n', (size_t)(text + length - line));
        if (!end)
            end = text + length;
        *end = '\0';
        reason = strlen(line) == (size_t)(end - line) ? parse_line(&reading, line) : "holds a zero byte";
        if (reason)
            return refuse(&reading, reason);
    }
    if (!reading.depth)
        return NULL;
    reading.key = reading.value = NULL;
    reading.line = reading.scope[reading.depth].line;
    return refuse(&reading, "the block is not closed");
}

/* The whole file with a zero after it, or NULL and *why. */
static char *read_whole(const char *path, size_t *length, const char **why) {
    FILE *file = regular_file_open(path, why);
    char *text;
    int error;

    if (!file)
        return NULL;
    text = malloc(FILE_BYTES_MAX + 1);
    *length = text ? fread(text, 1, FILE_BYTES_MAX + 1, file) : 0;
    error = text && !ferror(file) ? 0 : errno;
    if (!error && *length > FILE_BYTES_MAX)
        error = EFBIG;
    fclose(file);
    if (error) {
        free(text);
        *why = strerror(error);
        return NULL;
    }
    text[*length] = '\0';
    return text;
}

const char *config_file_read(const struct option_table *table, const char *path, char **text) {
    size_t length;
    const char *reason;

    *text = read_whole(path, &length, &reason);
    if (!*text) {
        snprintf(refusal, sizeof refusal, "%.255s: cannot be read: %s", path, reason);
        return refusal;
    }
    reason = config_file_parse(table, path, *text, length);
    if (reason) {
        free(*text);
        *text = NULL;
    }
    return reason;
}
