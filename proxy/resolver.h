/* SPDX-License-Identifier: MIT */
#ifndef PROXY_RESOLVER_H
#define PROXY_RESOLVER_H
/*
 * Asks for the addresses of the backend's name in a short-lived process, for the master: a name server that does not
 * answer holds up nothing for longer than RESOLVER_LIMIT_S, and its answers are read by somebody without rights. What
 * is no name (a number, the path of a UNIX socket) needs no process.
 */
#include "address.h"
#include "privileges.h"

#include <stdbool.h>
#include <sys/types.h>

#define RESOLVER_LIMIT_S 10

/*
 * What can be told of text without asking anybody. NULL, and *list has its addresses, or none (count 0) if it is a name
 * that must be asked for; else why it is refused.
 */
const char *resolver_read(struct address_list *list, const char *text);

/* Somebody who asks. */
struct resolver {
    int fd; /* readable when there is an answer, or none in time */
    pid_t pid;
};

/* Starts one, as the user and group of these privileges (their chroot aside). False with errno. */
bool resolver_start(struct resolver *resolver, const char *text, const struct privileges *privileges);

/* Waits for the answer and the process. NULL and *list, or why there is none, valid until the next call. */
const char *resolver_finish(struct resolver *resolver, struct address_list *list);

/* Nobody wants to know any more: the process ends in its time, and libev hears of it. */
void resolver_abandon(struct resolver *resolver);

/* All of it, from text to its addresses. */
const char *resolver_resolve(struct address_list *list, const char *text, const struct privileges *privileges);

#endif
