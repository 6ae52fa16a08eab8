/* SPDX-License-Identifier: MIT */
/*
 * Preloaded, it makes a process of the proxy kill itself while it holds a robust lock, such as the session cache has.
 * It does so when the file DIES_IN_LOCK holds its name and the place, and removes the file before:
 *
 *   after_lock      nothing is changed yet
 *   in_the_middle   a session has been taken out of half of the lists, and is being wiped
 *   before_unlock   all is done
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define ROBUST 16 /* glibc's bit of a mutex's kind */

static bool held;

static void die_at(const char *place) {
    const char *path = getenv("DIES_IN_LOCK");
    FILE *file = path ? fopen(path, "r") : NULL;
    char name[16] = "", wanted_name[32] = "", wanted_place[32] = "";
    int read = 0;

    if (!file)
        return;
    read = fscanf(file, "%31s %31s", wanted_name, wanted_place);
    fclose(file);
    prctl(PR_GET_NAME, name);
    if (read == 2 && strcmp(name, wanted_name) == 0 && strcmp(place, wanted_place) == 0 && unlink(path) == 0)
        kill(getpid(), SIGKILL);
}

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    static int (*real)(pthread_mutex_t *);
    int result;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    result = real(mutex);
    if (mutex->__data.__kind & ROBUST) {
        held = true;
        die_at("after_lock");
    }
    return result;
}

int pthread_mutex_unlock(pthread_mutex_t *mutex) {
    static int (*real)(pthread_mutex_t *);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    if (mutex->__data.__kind & ROBUST) {
        die_at("before_unlock");
        held = false;
    }
    return real(mutex);
}

void explicit_bzero(void *bytes, size_t length) {
    if (held)
        die_at("in_the_middle");
    memset(bytes, 0, length);
    __asm__ volatile("" : : "r"(bytes) : "memory");
}

/* What it is called where the size of the memory may be known. */
void __explicit_bzero_chk(void *bytes, size_t length, size_t size);

void __explicit_bzero_chk(void *bytes, size_t length, size_t size) {
    (void)size;
    explicit_bzero(bytes, length);
}
