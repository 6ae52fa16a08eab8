/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SERVER_NAMES_H
#define PROXY_SERVER_NAMES_H
/* The names that certificates are for, found by what a client asks for: RFC 6066, section 3. */

/* As OpenSSL has it: one certificate of each kind may serve a name. */
#define KEY_KINDS 5

struct certificate;

struct server_name {
    struct server_name *next; /* in the bucket */
    char *name;               /* in lower case; a wildcard with its asterisk */
    struct certificate *certificate[KEY_KINDS];
};

struct server_names {
    struct server_name **bucket;
    unsigned buckets; /* a power of two, or 0 */
    unsigned count;
};

/* The entry of exactly that name, made if there is none yet. NULL: out of memory. */
struct server_name *server_names_add(struct server_names *names, const char *name);

/*
 * What serves a host: the entry of its name, else that of the wildcard for its first label, else NULL. Upper and lower
 * case are the same. O(1), whatever the number of names.
 */
const struct server_name *server_names_find(const struct server_names *names, const char *host);

void server_names_free(struct server_names *names);

#endif
