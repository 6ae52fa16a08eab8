/* SPDX-License-Identifier: MIT */
#include "listeners.h"

#include "log.h"
#include "shared_memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of the master: who has which place. */
static struct {
    bool taken[LISTENER_PLACES];
    uint64_t given_back[LISTENER_PLACES]; /* the how-manieth it was; 0: it was never taken */
    uint64_t count;
    uint32_t *leaving; /* in shared memory, by place */
} places;

bool listeners_have(const struct listeners *listeners, const struct listener *listener) {
    for (int i = 0; listeners && i < listeners->count; i++)
        if (listeners->all[i] == listener)
            return true;
    return false;
}

/* The one that nobody has had for longest: workers of its last frontend may still drain. */
static int take_place(void) {
    int found = -1;

    if (!places.leaving)
        places.leaving = shared_memory_new(LISTENER_PLACES * sizeof *places.leaving);
    for (int i = 0; i < LISTENER_PLACES; i++)
        if (!places.taken[i] && (found < 0 || places.given_back[i] < places.given_back[found]))
            found = i;
    places.taken[found] = true;
    __atomic_store_n(&places.leaving[found], 0, __ATOMIC_RELAXED);
    return found;
}

static void give_place_back(int place) {
    places.taken[place] = false;
    places.given_back[place] = ++places.count;
}

/* A UNIX socket is one descriptor, however many workers have it. */
static void close_queues(const struct listener *listener, int workers, int kept) {
    for (int i = 0; i < workers; i++) {
        bool is_first = i == 0 || listener->fd[i] != listener->fd[0];
        if (kept < 0 ? is_first : is_first && listener->fd[i] != listener->fd[kept])
            close(listener->fd[i]);
    }
}

static void unlink_local(const struct listener *listener) {
    if (address_is_local(&listener->address))
        unlink(listener->address.sockaddr.local.sun_path);
}

static void drop(struct listener *listener, int workers) {
    close_queues(listener, workers, -1);
    give_place_back(listener->place);
    free(listener->fd);
    free(listener);
}

/* NULL with errno set. */
static struct listener *open_one(const struct address *asked, const struct proxy_settings *settings, int workers,
                                 bool shut) {
    struct listener *listener = calloc(1, sizeof *listener);
    int error;

    if (listener)
        listener->fd = calloc((size_t)workers, sizeof *listener->fd);
    if (!listener || !listener->fd) {
        free(listener);
        errno = ENOMEM;
        return NULL;
    }
    listener->asked = listener->address = *asked;
    if (!(shut ? address_listen_shut : address_listen)(&listener->address, (int)settings->backlog, listener->fd,
                                                       workers)) {
        error = errno;
        free(listener->fd);
        free(listener);
        errno = error;
        return NULL;
    }
    if (settings->keepalive_s && !address_is_local(asked))
        for (int i = 0; i < workers; i++)
            address_set_keepalive(listener->fd[i], (int)settings->keepalive_s);
    listener->place = take_place();
    listener->leaving = &places.leaving[listener->place];
    return listener;
}

/* Of those that were asked for like that, the first that is not among the others. NULL: none. */
static struct listener *find(const struct listeners *earlier, const struct listeners *taken,
                             const struct address *asked) {
    for (int i = 0; earlier && i < earlier->count; i++)
        if (address_is_equal(&earlier->all[i]->asked, asked) && !listeners_have(taken, earlier->all[i]))
            return earlier->all[i];
    return NULL;
}

const char *listeners_open(struct listeners *opened, const struct listeners *earlier,
                           const struct proxy_settings *settings) {
    static char refusal[ADDRESS_TEXT_MAX + 128];
    char text[ADDRESS_TEXT_MAX];

    opened->count = 0;
    opened->workers = (int)settings->workers;
    for (int i = 0; i < settings->frontend_count; i++) {
        const struct address *asked = &settings->frontends[i].address;
        struct listener *listener = find(earlier, opened, asked);

        if (!listener)
            listener = open_one(asked, settings, opened->workers, earlier != NULL);
        if (!listener) {
            snprintf(refusal, sizeof refusal, "--frontend: %s: cannot listen: %s", address_format(asked, text),
                     strerror(errno));
            listeners_leave(opened, earlier);
            listeners_close(opened, earlier);
            return refusal;
        }
        opened->all[opened->count++] = listener;
    }
    return NULL;
}

void listeners_let_in(const struct listeners *listeners, const struct listeners *earlier) {
    for (int i = 0; i < listeners->count; i++) {
        const struct listener *listener = listeners->all[i];

        if (address_is_local(&listener->address) || listeners_have(earlier, listener))
            continue;
        for (int worker = 0; worker < listeners->workers; worker++)
            address_let_in(listener->fd[worker]);
    }
}

void listeners_leave(const struct listeners *listeners, const struct listeners *stay) {
    for (int i = 0; i < listeners->count; i++) {
        const struct listener *listener = listeners->all[i];

        if (listeners_have(stay, listener))
            continue;
        for (int worker = 0; worker < listeners->workers && !address_is_local(&listener->address); worker++)
            address_refuse_new(listener->fd[worker]);
        unlink_local(listener);
        __atomic_store_n(&places.leaving[listener->place], 1, __ATOMIC_RELEASE);
    }
}

void listeners_close(struct listeners *listeners, const struct listeners *stay) {
    for (int i = 0; i < listeners->count; i++)
        if (!listeners_have(stay, listeners->all[i]))
            drop(listeners->all[i], listeners->workers);
    listeners->count = 0;
}

void listeners_keep(const struct listeners *listeners, int worker) {
    for (int i = 0; i < listeners->count; i++)
        close_queues(listeners->all[i], listeners->workers, worker);
}

void listeners_unlink(const struct listeners *listeners) {
    for (int i = 0; i < listeners->count; i++)
        unlink_local(listeners->all[i]);
}
