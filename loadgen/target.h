/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_TARGET_H
#define TLSDYNO_TARGET_H
#include "address.h"

#include <stdbool.h>

/* A URL, taken apart and resolved. */
struct target {
    const char *url;
    bool tls;
    char authority[300]; /* for the Host header: host, and the port if it is not the scheme's own */
    char host[256];      /* without brackets */
    bool host_is_name;   /* not an IP address: it can go into SNI */
    const char *path;    /* path and query; "/" if there is none. Points into url or is constant */
    struct address address;
    char address_text[ADDRESS_TEXT_MAX];
};

/*
 * Reads "http://HOST[:PORT][/PATH][?QUERY]" or https. The host is resolved now, unless instead (may be NULL) is a UNIX
 * socket to connect to. NULL if it is good, else why it is refused.
 */
const char *target_parse(struct target *target, const char *url, const char *instead);

#endif
