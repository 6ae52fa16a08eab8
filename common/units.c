/* SPDX-License-Identifier: MIT */
#include "units.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Reads the digits at the start of text; NULL if there are none or they do not fit. */
static const char *read_digits(const char *text, uint64_t *value) {
    char *end;

    if (!isdigit((unsigned char)*text))
        return NULL; /* strtoull would take a sign or white space */
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno)
        return NULL;
    *value = number;
    return end;
}

bool parse_uint(const char *text, uint64_t *value) {
    uint64_t number;
    const char *end = read_digits(text, &number);

    if (!end || *end)
        return false;
    *value = number;
    return true;
}

bool parse_duration_ns(const char *text, uint64_t *value_ns) {
    static const struct {
        const char *unit;
        double ns;
    } units[] = {{"ms", 1e6}, {"s", 1e9}, {"", 1e9}, {"m", 60e9}, {"h", 3600e9}};
    char *end;

    if (!isdigit((unsigned char)*text))
        return false;
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
        return false; /* strtod reads hexadecimal */
    double number = strtod(text, &end);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].unit) != 0)
            continue;
        double ns = number * units[i].ns;
        if (ns > 10.0 * 365 * 86400 * 1e9)
            return false;
        if (ns > 0. && llround(ns) == 0)
            return false; /* 0 may mean that there is no limit at all */
        *value_ns = (uint64_t)llround(ns);
        return true;
    }
    return false;
}

bool parse_size(const char *text, uint64_t *value_bytes) {
    static const char suffixes[] = "kmg";
    uint64_t number;
    const char *end = read_digits(text, &number);
    unsigned shift = 0;

    if (!end)
        return false;
    if (*end) {
        const char *suffix = strchr(suffixes, tolower((unsigned char)*end));
        if (!suffix || end[1])
            return false;
        shift = 10 * (unsigned)(suffix - suffixes + 1);
    }
    if (number > UINT64_MAX >> shift)
        return false;
    *value_bytes = number << shift;
    return true;
}
