/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

static const char *program_name = "tlsdyno";
static bool is_quiet;
static bool to_syslog;

/* How standard error is written to. */
static enum { MAY_WAIT, NEVER_WAIT, NEVER_WAIT_SOCKET } manner;
static int description = -1; /* one of our own, in which a write never waits: -1: none */
static uint64_t lost;        /* lines since the last one that was written */

/* The names that syslog.conf(5) uses, and their numbers in the same order. */
const char *const log_facilities[] = {"daemon", "user",   "auth",   "authpriv", "local0", "local1", "local2",
                                      "local3", "local4", "local5", "local6",   "local7", NULL};
static const int facility_numbers[] = {LOG_DAEMON, LOG_USER,   LOG_AUTH,   LOG_AUTHPRIV, LOG_LOCAL0, LOG_LOCAL1,
                                       LOG_LOCAL2, LOG_LOCAL3, LOG_LOCAL4, LOG_LOCAL5,   LOG_LOCAL6, LOG_LOCAL7};

void log_open(const char *program) {
    program_name = program;
}

void log_quiet(bool quiet) {
    is_quiet = quiet;
}

void log_to_syslog(int facility) {
    /* Connected at once: after a chroot the socket cannot be found any more. */
    openlog(program_name, LOG_PID | LOG_NDELAY, facility_numbers[facility]);
    to_syslog = true;
    if (description >= 0)
        close(description);
    description = -1;
}

void log_never_wait(void) {
    struct stat file;

    if (fstat(STDERR_FILENO, &file) != 0 || S_ISREG(file.st_mode))
        return;
    manner = S_ISSOCK(file.st_mode) ? NEVER_WAIT_SOCKET : NEVER_WAIT;
    /* O_NONBLOCK on the common description would change it for who started us as well. */
    if (manner == NEVER_WAIT)
        description = open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
}

static bool has_room(void) {
    struct pollfd standard_error = {.fd = STDERR_FILENO, .events = POLLOUT};

    return poll(&standard_error, 1, 0) > 0;
}

/* False: it has no room for it now. */
static bool put(const char *line, size_t length) {
    ssize_t written = -1;

    if (manner == NEVER_WAIT_SOCKET)
        written = send(STDERR_FILENO, line, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    else if (description >= 0)
        written = write(description, line, length);
    /* It cannot be opened anew: then only somebody who is faster than us can make us wait. */
    else if (manner == MAY_WAIT || has_room())
        written = write(STDERR_FILENO, line, length);
    else
        errno = EAGAIN;
    /* Of any other error there is nobody left to tell. */
    return written >= 0 || errno != EAGAIN;
}

static void put_or_lose(const char *line, size_t length) {
    char more[128];
    int more_length;

    if (lost) {
        more_length = snprintf(more, sizeof more, "%s: %llu messages were lost: nobody reads standard error\n",
                               program_name, (unsigned long long)lost);
        if (put(more, (size_t)more_length))
            lost = 0;
    }
    if (lost || !put(line, length))
        lost++;
}

bool log_allowed(struct log_limit *limit, uint64_t now_s, uint64_t *kept_back) {
    if (now_s <= limit->second) {
        limit->kept_back++;
        return false;
    }
    *kept_back = limit->kept_back;
    *limit = (struct log_limit){.second = now_s};
    return true;
}

/* One write() a line, so that lines of several workers do not mix. */
static void write_line(int priority, const char *format, va_list arguments) {
    char line[1024];
    int prefix, length;

    if (to_syslog) {
        vsyslog(priority, format, arguments);
        return;
    }
    prefix = snprintf(line, sizeof line, "%s: ", program_name);
    length = vsnprintf(line + prefix, sizeof line - (size_t)prefix, format, arguments);

    if (length < 0)
        return;
    length += prefix;
    if (length > (int)sizeof line - 1)
        length = (int)sizeof line - 1;
    line[length++] = '\n';
    put_or_lose(line, (size_t)length);
}

void log_info(const char *format, ...) {
    va_list arguments;

    if (is_quiet)
        return;
    va_start(arguments, format);
    write_line(LOG_INFO, format, arguments);
    va_end(arguments);
}

void log_error(const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    write_line(LOG_ERR, format, arguments);
    va_end(arguments);
}

_Noreturn void fail(enum exit_status status, const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    write_line(LOG_ERR, format, arguments);
    va_end(arguments);
    exit(status);
}
