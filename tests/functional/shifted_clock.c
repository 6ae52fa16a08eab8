/* SPDX-License-Identifier: MIT */
/* Preloaded, it makes a program's clock show CLOCK_SHIFT_S seconds more, or fewer, than it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

static long shift_s(void) {
    const char *text = getenv("CLOCK_SHIFT_S");

    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    int result;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    result = real(id, now);
    if (id == CLOCK_REALTIME && result == 0)
        now->tv_sec += shift_s();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}

/* The system dates by its own clock what has arrived. */
int recvmmsg(int fd, struct mmsghdr *headers, unsigned count, int flags, struct timespec *limit) {
    static int (*real)(int, struct mmsghdr *, unsigned, int, struct timespec *);
    int received;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "recvmmsg");
    received = real(fd, headers, count, flags, limit);
    for (int i = 0; i < received; i++) {
        struct cmsghdr *control = CMSG_FIRSTHDR(&headers[i].msg_hdr);
        if (control && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_TIMESTAMPNS)
            ((struct timespec *)(void *)CMSG_DATA(control))->tv_sec += shift_s();
    }
    return received;
}
