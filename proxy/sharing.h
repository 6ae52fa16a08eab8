/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SHARING_H
#define PROXY_SHARING_H
/* What the operator asked for of the sharing of sessions between hosts: --shared-cache and what goes with it. */
#include "address.h"

#include <stdint.h>

enum sharing_format { SHARING_SEALED, SHARING_STUD };

extern const char *const sharing_formats[];

struct sharing {
    bool on;
    struct address own;        /* where datagrams are taken: of this host, or a multicast group */
    struct address_list peers; /* where they are sent, beside the group */
    unsigned interface;        /* of the group; 0: as the system chooses */
    uint64_t hops;             /* that multicast datagrams may make; 0: they stay on this host */
    const char *interface_text;
    const char *key_file; /* NULL: the first certificate's key is the secret */
    uint64_t pull_ns;     /* how long to wait for a session that peers are asked for; 0: they are not asked */
    int format;           /* enum sharing_format */
};

/* Each: NULL, or why the value is refused, valid until the next call. */
const char *sharing_parse_own(struct sharing *sharing, const char *text);
const char *sharing_parse_peer(struct sharing *sharing, const char *text);
const char *sharing_parse_interface(struct sharing *sharing, const char *text);

bool sharing_is_multicast(const struct address *address);

struct proxy_settings;

/* What no single option can see. Addresses of peers become such as the own socket can send to. */
const char *sharing_check(struct proxy_settings *settings);

#endif
