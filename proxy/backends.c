/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "backends.h"

#include "log.h"
#include "resolver.h"
#include "shared_memory.h"
#include "units.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* How long an address that refused is left out. */
#define DOWN_S 2.

/*
 * A sequence lock over two slots: the list of version n is in slot n % 2, so a writer that dies halfway has spoilt
 * nothing, and a reader has to look again only if it took longer than a whole refresh.
 */
struct backends {
    uint32_t version;
    struct address_list slot[2];
};

struct backends *backends_new(const struct address_list *list) {
    struct backends *backends = shared_memory_new(sizeof *backends);

    backends->version = 1; /* not a new choice's 0 */
    backends->slot[1] = *list;
    return backends;
}

void backends_free(struct backends *backends) {
    munmap(backends, sizeof *backends);
}

/* Whatever a worker may have made of the version, it leads to one of the slots. */
void backends_replace(struct backends *backends, const struct address_list *list) {
    uint32_t version = backends->version + 1;

    backends->slot[version % 2] = *list;
    __atomic_store_n(&backends->version, version, __ATOMIC_RELEASE);
}

static bool is_same_list(const struct address_list *one, const struct address_list *other) {
    bool same = one->count == other->count;

    for (int i = 0; same && i < one->count; i++)
        same = address_is_equal(&one->address[i], &other->address[i]);
    return same;
}

/* In the master: what the refreshing needs. */
struct refresh {
    struct backends *backends;
    const char *text;
    const struct privileges *privileges;
    struct address_list last; /* what the backends have now */
    ev_timer timer;
    struct resolver resolver;
    ev_io answer; /* active: the resolver is at it */
};

static void answered(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)events;
    struct refresh *refresh = watcher->data;
    struct address_list list;
    const char *reason;

    ev_io_stop(loop, watcher);
    reason = resolver_finish(&refresh->resolver, &list);
    if (reason) {
        log_error("--backend: %s: %s: going on with the old addresses", refresh->text, reason);
    } else if (!is_same_list(&list, &refresh->last)) {
        refresh->last = list;
        backends_replace(refresh->backends, &list);
    }
}

static void refresh_now(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)events;
    struct refresh *refresh = timer->data;

    if (ev_is_active(&refresh->answer))
        return;
    if (!resolver_start(&refresh->resolver, refresh->text, refresh->privileges)) {
        log_error("--backend-refresh: %s", strerror(errno));
        return;
    }
    ev_io_set(&refresh->answer, refresh->resolver.fd, EV_READ);
    ev_io_start(loop, &refresh->answer);
}

void backends_refresh(struct backends *backends, const struct proxy_settings *settings,
                      const struct privileges *privileges, struct ev_loop *loop) {
    static struct refresh refresh;
    ev_tstamp every = (ev_tstamp)settings->backend_refresh_ns / NS_PER_S;
    struct address_list number;

    ev_timer_stop(loop, &refresh.timer);
    if (ev_is_active(&refresh.answer)) {
        ev_io_stop(loop, &refresh.answer);
        resolver_abandon(&refresh.resolver);
    }
    resolver_read(&number, settings->backend);
    if (every <= 0 || number.count)
        return;
    refresh = (struct refresh){
        .backends = backends,
        .text = settings->backend,
        .privileges = privileges,
        .last = settings->backend_addresses,
    };
    ev_timer_init(&refresh.timer, refresh_now, every, every);
    ev_init(&refresh.answer, answered);
    refresh.timer.data = refresh.answer.data = &refresh;
    ev_timer_start(loop, &refresh.timer);
}

/* Takes over a list that has changed; what is known to be down stays so. */
static void look_again(struct backend_choice *choice, uint32_t version) {
    const struct backends *backends = choice->backends;
    const struct address_list old = choice->list;
    ev_tstamp old_down_until[ADDRESS_LIST_MAX];
    struct address_list list;
    uint32_t seen;

    for (;;) {
        list = backends->slot[version % 2];
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        seen = __atomic_load_n(&backends->version, __ATOMIC_RELAXED);
        if (seen == version)
            break;
        version = seen;
    }
    memcpy(old_down_until, choice->down_until, sizeof old_down_until);
    choice->version = version;
    choice->list = list;
    memset(choice->down_until, 0, sizeof choice->down_until);
    for (int i = 0; i < list.count; i++)
        for (int j = 0; j < old.count; j++)
            if (address_is_equal(&list.address[i], &old.address[j]))
                choice->down_until[i] = old_down_until[j];
}

const struct address *backend_choose(struct backend_choice *choice, uint32_t *tried, ev_tstamp now) {
    uint32_t version = __atomic_load_n(&choice->backends->version, __ATOMIC_ACQUIRE);
    unsigned count, chosen;
    bool found = false;

    if (version != choice->version)
        look_again(choice, version);
    count = (unsigned)choice->list.count;
    chosen = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned index = (choice->next + i) % count;
        bool up = choice->down_until[index] <= now;
        if (*tried & UINT32_C(1) << index || (found && !up))
            continue;
        /* One that is down is better than none. */
        chosen = index;
        found = true;
        if (up)
            break;
    }
    if (!found)
        return NULL;
    *tried |= UINT32_C(1) << chosen;
    choice->next = chosen + 1;
    return &choice->list.address[chosen];
}

void backend_is_down(struct backend_choice *choice, const struct address *address, ev_tstamp now) {
    for (int i = 0; i < choice->list.count; i++)
        if (address_is_equal(&choice->list.address[i], address))
            choice->down_until[i] = now + DOWN_S;
}
