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

/* One line without its end. *key is set as soon as it is known, for the refusal. */
static const char *parse_line(const struct option_table *table, char *line, const char **key, const char **given) {
    char *at = skip_blanks(line), *value;
    const char *reason;
    bool quoted;

    if (!*at || *at == '#')
        return NULL;
    value = at;
    while (is_name(*value))
        value++;
    if (value == at || *skip_blanks(value) != '=')
        return "not NAME = VALUE";
    *key = at;
    at = skip_blanks(value) + 1;
    *value = '\0';
    value = skip_blanks(at);
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
    *given = value;
    return options_set(table, *key, value);
}

const char *config_file_parse(const struct option_table *table, const char *name, char *text, size_t length) {
    int number = 1;

    for (char *line = text, *end; line < text + length; line = end + 1, number++) {
        const char *key = NULL, *value = NULL, *reason;

        end = memchr(line, '\n', (size_t)(text + length - line));
        if (!end)
            end = text + length;
        *end = '\0';
        reason = strlen(line) == (size_t)(end - line) ? parse_line(table, line, &key, &value) : "holds a zero byte";
        if (!reason)
            continue;
        snprintf(refusal, sizeof refusal, "%.255s:%d: %.63s%s%.127s%s%.255s", name, number, key ? key : "",
                 key ? ": " : "", value ? value : "", value ? ": " : "", reason);
        return refusal;
    }
    return NULL;
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
