/* SPDX-License-Identifier: MIT */
#ifndef PROXY_LISTENERS_H
#define PROXY_LISTENERS_H
/*
 * The listening sockets of all frontends: of each, every worker has a queue of its own. They belong to the master, so
 * that a reload keeps those whose frontend stays, with all who wait there.
 */
#include "settings.h"

/* While a reload goes on, those of before are there as well. */
#define LISTENER_PLACES (2 * FRONTENDS_MAX)

struct listener {
    struct address asked;    /* port 0 stays 0: by it a reload finds the frontend again */
    struct address address;  /* with the port that was given */
    int place;               /* below LISTENER_PLACES; for a while nobody else's after it has gone */
    const uint32_t *leaving; /* in shared memory: nobody follows who would take what is queued here */
    int *fd;                 /* [workers]; those of a UNIX socket are all the same */
};

struct listeners {
    struct listener *all[FRONTENDS_MAX]; /* in the order of the frontends */
    int count;
    int workers;
};

/*
 * One for each frontend: those that are among the earlier ones are taken over from there, the others opened. NULL, or
 * one line that says why nothing has changed, valid until the next call. *opened says in how many workers. Where there
 * are earlier ones, nobody is let in at others by TCP until listeners_let_in: a worker may fail to be there.
 */
const char *listeners_open(struct listeners *opened, const struct listeners *earlier,
                           const struct proxy_settings *settings);

void listeners_let_in(const struct listeners *listeners, const struct listeners *earlier);

/* listeners may be NULL: there are none. */
bool listeners_have(const struct listeners *listeners, const struct listener *listener);

/* Those that do not stay let nobody begin to connect any more; their workers are to take what is queued. */
void listeners_leave(const struct listeners *listeners, const struct listeners *stay);

/*
 * Closes and forgets those that do not stay. In the master what is queued is not lost as long as a worker has it open.
 */
void listeners_close(struct listeners *listeners, const struct listeners *stay);

/* In a forked process: keeps nothing but one worker's own queues; worker -1: nothing at all. */
void listeners_keep(const struct listeners *listeners, int worker);

/* Removes the files of UNIX sockets. */
void listeners_unlink(const struct listeners *listeners);

#endif
