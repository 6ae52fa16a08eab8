/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "poller.h"

#include "clock.h"
#include "units.h"

#include <errno.h>
#include <ev.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

bool poller_open(struct poller *poller) {
    /* Timers of epoll may be 50 us late otherwise, and so would be every arrival of an open loop. */
    prctl(PR_SET_TIMERSLACK, 1UL);
    poller->fd = epoll_create1(EPOLL_CLOEXEC);
    return poller->fd >= 0;
}

void poller_watch(struct poller *poller, int fd, int *watched, int events, void *owner) {
    struct epoll_event event = {
        .events = (events & EV_READ ? EPOLLIN : 0u) | (events & EV_WRITE ? EPOLLOUT : 0u),
        .data.ptr = owner,
    };

    if (*watched == events)
        return;
    epoll_ctl(poller->fd, !*watched ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, fd, &event);
    *watched = events;
}

/* Kernels before 5.11 know whole milliseconds only. */
static int wait_ms(struct poller *poller, struct epoll_event *events, uint64_t wait_ns) {
    return epoll_wait(poller->fd, events, POLLER_EVENTS_MAX, (int)((wait_ns + NS_PER_MS - 1) / NS_PER_MS));
}

int poller_wait(struct poller *poller, uint64_t until_ns, void *owners[POLLER_EVENTS_MAX]) {
    struct epoll_event events[POLLER_EVENTS_MAX];
    uint64_t now_ns = monotonic_ns(), wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    const struct timespec wait = {.tv_sec = (time_t)(wait_ns / NS_PER_S), .tv_nsec = (long)(wait_ns % NS_PER_S)};
    int count = epoll_pwait2(poller->fd, events, POLLER_EVENTS_MAX, &wait, NULL);

    if (count < 0 && errno == ENOSYS)
        count = wait_ms(poller, events, wait_ns);
    for (int i = 0; i < count; i++)
        owners[i] = events[i].data.ptr;
    return count > 0 ? count : 0;
}

void poller_close(struct poller *poller) {
    close(poller->fd);
    poller->fd = -1;
}
