/* SPDX-License-Identifier: MIT */
#ifndef PROXY_BACKENDS_H
#define PROXY_BACKENDS_H
/*
 * The addresses of the backend's name, in shared memory. The workers use them in turn. One that refuses is left out for
 * a short while, unless all are. Where asked, the name is resolved again and again (proxy/resolver.h), so that nobody
 * who serves connections waits for a name server.
 */
#include "address.h"
#include "privileges.h"
#include "settings.h"

#include <ev.h>
#include <stdint.h>

struct backends; /* in shared memory */

/* In the master, before the workers are forked. */
struct backends *backends_new(const struct address_list *list);

/* In the master, when no worker will be forked any more that uses them; those that run keep them. */
void backends_free(struct backends *backends);

/* Other addresses for all workers that use these. There may be one writer at a time. */
void backends_replace(struct backends *backends, const struct address_list *list);

/*
 * In the master: from here on the name of the backend is resolved anew as often as these settings say, on loop, for
 * these backends, which have the settings' addresses now, and no others. Takes the place of what was asked for before;
 * settings and privileges must stay where they are until then.
 */
void backends_refresh(struct backends *backends, const struct proxy_settings *settings,
                      const struct privileges *privileges, struct ev_loop *loop);

/* A worker's own view of them. */
struct backend_choice {
    const struct backends *backends;
    /* Private. */
    uint32_t version; /* of the list that was copied */
    unsigned next;
    struct address_list list;
    ev_tstamp down_until[ADDRESS_LIST_MAX];
};

/* The next in turn that is not marked in *tried (a bit each; 0 to begin with), and marks it; NULL: all were tried. */
const struct address *backend_choose(struct backend_choice *choice, uint32_t *tried, ev_tstamp now);

/* That address refused, or did not answer. */
void backend_is_down(struct backend_choice *choice, const struct address *address, ev_tstamp now);

#endif
