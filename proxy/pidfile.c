/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "pidfile.h"

#include "regular_file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Open as long as the process lives: closing it would give up the lock. */
static int held = -1;

static const char *refuse(const char *path, const char *why) {
    static char refusal[512];

    snprintf(refusal, sizeof refusal, "--pidfile: %.255s: %s", path, why);
    return refusal;
}

static const char *refuse_second(const char *path, const struct flock *lock) {
    char why[64];

    snprintf(why, sizeof why, "process %d runs with it", (int)lock->l_pid);
    return refuse(path, lock->l_type == F_UNLCK ? "another process runs with it" : why);
}

/* Left behind by a process: whatever else somebody has there, a certificate, say, is not written over. */
static bool is_pidfile(int fd) {
    char first;
    ssize_t length = pread(fd, &first, 1, 0);

    return length == 0 || (length == 1 && isdigit((unsigned char)first));
}

/* Of the file that is held. NULL: it is ours. */
static const char *take(const char *path) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat file;
    char text[32];
    int length = snprintf(text, sizeof text, "%d\n", (int)getpid());
    const char *reason;

    if (fstat(held, &file) != 0 || !S_ISREG(file.st_mode))
        return refuse(path, "not a regular file");
    if (fcntl(held, F_SETLK, &lock) != 0) {
        if (errno != EAGAIN && errno != EACCES)
            return refuse(path, strerror(errno));
        if (fcntl(held, F_GETLK, &lock) != 0)
            lock.l_type = F_UNLCK;
        return refuse_second(path, &lock);
    }
    if (!is_pidfile(held))
        return refuse(path, "holds something else than a process number");
    if (ftruncate(held, 0) == 0 && write(held, text, (size_t)length) == length)
        return NULL;
    reason = refuse(path, strerror(errno));
    unlink(path);
    return reason;
}

const char *pidfile_write(const char *path) {
    const char *reason;

    held = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
    if (held < 0)
        return refuse(path, strerror(errno));
    reason = take(path);
    if (reason)
        pidfile_let_go();
    return reason;
}

const char *pidfile_check(const char *path) {
    struct stat file;
    bool is_good;
    int fd;

    if (stat(path, &file) != 0)
        return regular_file_can_be_made(path) ? NULL : refuse(path, strerror(errno));
    if (!S_ISREG(file.st_mode))
        return refuse(path, "not a regular file");
    fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return refuse(path, strerror(errno));
    is_good = is_pidfile(fd);
    close(fd);
    return is_good ? NULL : refuse(path, "holds something else than a process number");
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
