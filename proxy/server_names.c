/* SPDX-License-Identifier: MIT */
#include "server_names.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* RFC 1035: a name has at most 253 characters; TLS takes 255. */
#define NAME_MAX_LENGTH 255

/* FNV-1a: whoever chooses what is in the table chose the certificates. */
static uint32_t hash_name(const char *name) {
    uint32_t hash = 2166136261u;

    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    return hash ^ hash >> 15;
}

/* ASCII only, whatever the locale: other letters come as punycode. */
static void to_lower(char *out, const char *name) {
    do
        *out++ = (char)(*name >= 'A' && *name <= 'Z' ? *name - 'A' + 'a' : *name);
    while (*name++);
}

static struct server_name *find_exact(const struct server_names *names, const char *lower) {
    struct server_name *found = names->bucket[hash_name(lower) & (names->buckets - 1)];

    while (found && strcmp(found->name, lower) != 0)
        found = found->next;
    return found;
}

static bool grow(struct server_names *names) {
    unsigned buckets = names->buckets ? 2 * names->buckets : 16;
    struct server_name **bucket = calloc(buckets, sizeof *bucket), *name, *next;

    if (!bucket)
        return false;
    for (unsigned i = 0; i < names->buckets; i++)
        for (name = names->bucket[i]; name; name = next) {
            struct server_name **place = &bucket[hash_name(name->name) & (buckets - 1)];
            next = name->next;
            name->next = *place;
            *place = name;
        }
    free(names->bucket);
    names->bucket = bucket;
    names->buckets = buckets;
    return true;
}

struct server_name *server_names_add(struct server_names *names, const char *name) {
    struct server_name *added, **place;
    char *lower;

    if (names->count >= names->buckets && !grow(names))
        return NULL;
    lower = strdup(name);
    if (!lower)
        return NULL;
    to_lower(lower, name);
    added = find_exact(names, lower);
    if (added) {
        free(lower);
        return added;
    }
    added = calloc(1, sizeof *added);
    if (!added) {
        free(lower);
        return NULL;
    }
    added->name = lower;
    place = &names->bucket[hash_name(lower) & (names->buckets - 1)];
    added->next = *place;
    *place = added;
    names->count++;
    return added;
}

const struct server_name *server_names_find(const struct server_names *names, const char *host) {
    char lower[NAME_MAX_LENGTH + 1], *dot;
    const struct server_name *found;

    if (!names->count || strlen(host) > NAME_MAX_LENGTH)
        return NULL;
    to_lower(lower, host);
    found = find_exact(names, lower);
    dot = strchr(lower, '.');
    if (found || !dot || dot == lower)
        return found;
    *--dot = '*'; /* over the last character of the first label */
    return find_exact(names, dot);
}

void server_names_free(struct server_names *names) {
    for (unsigned i = 0; i < names->buckets; i++) {
        struct server_name *name = names->bucket[i], *next;
        for (; name; name = next) {
            next = name->next;
            free(name->name);
            free(name);
        }
    }
    free(names->bucket);
    *names = (struct server_names){0};
}
