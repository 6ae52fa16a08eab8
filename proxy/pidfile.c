/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Open as long as the process lives: closing it would give up the lock. */
static int held = -1;

const char *pidfile_write(const char *path) {
    static char refusal[512];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat file;
    char text[32];
    int length = snprintf(text, sizeof text, "%d\n", (int)getpid());

    held = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
    if (held >= 0 && (fstat(held, &file) != 0 || !S_ISREG(file.st_mode))) {
        /* Nothing of ours, and so neither written to nor removed. */
        snprintf(refusal, sizeof refusal, "--pidfile: %.255s: not a regular file", path);
    } else if (held >= 0 && fcntl(held, F_SETLK, &lock) != 0) {
        if (errno != EAGAIN && errno != EACCES)
            snprintf(refusal, sizeof refusal, "--pidfile: %.255s: %s", path, strerror(errno));
        else if (fcntl(held, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
            snprintf(refusal, sizeof refusal, "--pidfile: %.255s: process %d runs with it", path, (int)lock.l_pid);
        else
            snprintf(refusal, sizeof refusal, "--pidfile: %.255s: another process runs with it", path);
    } else if (held >= 0 && ftruncate(held, 0) == 0 && write(held, text, (size_t)length) == length) {
        return NULL;
    } else {
        snprintf(refusal, sizeof refusal, "--pidfile: %.255s: %s", path, strerror(errno));
        if (held >= 0)
            unlink(path);
    }
    if (held >= 0)
        close(held);
    held = -1;
    return refusal;
}

const char *pidfile_check(const char *path) {
    static char refusal[512];
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    struct stat file;
    int error = 0;

    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    if (stat(path, &file) == 0 && !S_ISREG(file.st_mode)) {
        snprintf(refusal, sizeof refusal, "--pidfile: %.255s: not a regular file", path);
        return refusal;
    }
    if (access(path, F_OK) == 0 ? access(path, W_OK) != 0 : access(*folder ? folder : "/", W_OK | X_OK) != 0)
        error = errno;
    snprintf(refusal, sizeof refusal, "--pidfile: %.255s: %s", path, strerror(error));
    return error ? refusal : NULL;
}

void pidfile_remove(const char *path) {
    if (held < 0)
        return;
    unlink(path);
    close(held);
    held = -1;
}

void pidfile_let_go(void) {
    if (held >= 0)
        close(held);
    held = -1;
}
