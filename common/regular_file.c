/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "regular_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

FILE *regular_file_open(const char *path, const char **why) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    FILE *stream = NULL;
    struct stat file;

    if (fd < 0 || fstat(fd, &file) != 0)
        *why = strerror(errno);
    else if (S_ISDIR(file.st_mode))
        *why = strerror(EISDIR);
    else if (!S_ISREG(file.st_mode))
        *why = "not a regular file";
    else if (!(stream = fdopen(fd, "r")))
        *why = strerror(errno);
    if (!stream && fd >= 0)
        close(fd);
    return stream;
}

bool regular_file_can_be_made(const char *path) {
    const char *slash = strrchr(path, '/');
    char folder[PATH_MAX];
    struct stat file;

    if (stat(path, &file) == 0)
        errno = EEXIST;
    if (errno != ENOENT)
        return false;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path + 1) : 1, slash ? path : ".");
    return access(folder, W_OK | X_OK) == 0;
}
