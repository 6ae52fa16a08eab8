/* SPDX-License-Identifier: MIT */
/*
 * Preloaded, it makes a process that cannot fork: as long as the file FORK_FAILS is there, which says how many may be
 * forked still. The first that may not waits until the file is gone, and fails then; while it waits there is a file
 * FORK_FAILS.waits.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

/* -1: as many as it likes. */
static int allowed(const char *path) {
    FILE *file = path ? fopen(path, "r") : NULL;
    int count = -1;

    if (!file)
        return -1;
    if (fscanf(file, "%d", &count) != 1)
        count = -1;
    fclose(file);
    return count;
}

pid_t fork(void) {
    static int forked;
    const char *path = getenv("FORK_FAILS");
    pid_t (*real)(void) = (pid_t(*)(void))dlsym(RTLD_NEXT, "fork");
    char waits[PATH_MAX];
    int limit = allowed(path);

    if (limit < 0 || forked++ < limit)
        return real();
    forked = 0;
    snprintf(waits, sizeof waits, "%s.waits", path);
    fclose(fopen(waits, "w"));
    while (access(path, F_OK) == 0)
        usleep(1000);
    errno = EAGAIN;
    return -1;
}
