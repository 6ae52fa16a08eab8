/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "background.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int ready[2];

/* In the process that was started. */
_Noreturn static void wait_for(pid_t child) {
    char byte;
    int status;

    close(ready[1]);
    if (read(ready[0], &byte, 1) == 1)
        _exit(0);
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            _exit(EXIT_FAILED);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED);
}

void background_start(void) {
    pid_t child;

    if (pipe2(ready, O_CLOEXEC) != 0)
        fail(EXIT_FAILED, "--daemon: pipe: %s", strerror(errno));
    child = fork();
    if (child < 0)
        fail(EXIT_FAILED, "--daemon: fork: %s", strerror(errno));
    if (child > 0)
        wait_for(child);
    close(ready[0]);
    setsid();
}

void background_ready(void) {
    int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = STDIN_FILENO; nowhere >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(nowhere, fd);
    if (nowhere > STDERR_FILENO)
        close(nowhere);
    if (write(ready[1], "", 1) != 1)
        log_error("--daemon: nobody waits for the start any more");
    close(ready[1]);
}
