/* SPDX-License-Identifier: MIT */
#include "output.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool output_is_stdout(const char *file) {
    return file && strcmp(file, "-") == 0;
}

/* Who reads a pipe would take its being opened and closed for the end. */
static bool is_pipe(const char *file) {
    struct stat status;

    return stat(file, &status) == 0 && S_ISFIFO(status.st_mode);
}

void output_check(const char *option, const char *file) {
    FILE *out;

    if (!file || output_is_stdout(file))
        return;
    if (is_pipe(file)) {
        if (access(file, W_OK) != 0)
            fail(EXIT_USAGE, "%s: %s: %s", option, file, strerror(errno));
        return;
    }
    out = fopen(file, "a");
    if (!out)
        fail(EXIT_USAGE, "%s: %s: %s", option, file, strerror(errno));
    else
        fclose(out);
}

FILE *output_open(const char *option, const char *file) {
    FILE *out = NULL;
    int fd;

    if (output_is_stdout(file))
        return stdout;
    fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
    if (fd >= 0 && fcntl(fd, F_SETFL, 0) == 0)
        out = fdopen(fd, "w");
    if (!out) {
        log_error("%s: %s: %s", option, file, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    return out;
}

bool output_close(const char *option, const char *file, FILE *out, bool written) {
    bool whole = written && !ferror(out); /* what was in the way then is no longer known */

    if ((out == stdout ? fflush(out) : fclose(out)) != 0)
        log_error("%s: %s: %s", option, file, strerror(errno));
    else if (!whole)
        log_error("%s: %s: not all of it could be written", option, file);
    else
        return true;
    return false;
}
