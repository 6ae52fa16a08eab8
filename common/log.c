/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

static const char *program_name = "tlsdyno";
static bool is_quiet;
static bool to_syslog;

/* How standard error is written to. */
static enum { MAY_WAIT, NEVER_WAIT, NEVER_WAIT_SOCKET } manner;
static int description = -1; /* one of our own, in which a write never waits: -1: none */
static int syslog_socket = -1, syslog_facility;
static uint64_t lost; /* lines since the last one that was written */

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

/* That of the C library waits for room. Where nobody listens, there is nobody to tell. */
static void connect_to_syslog(void) {
    const struct sockaddr_un where = {.sun_family = AF_UNIX, .sun_path = _PATH_LOG};

    if (syslog_socket >= 0)
        close(syslog_socket);
    syslog_socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (syslog_socket >= 0 && connect(syslog_socket, (const struct sockaddr *)&where, sizeof where) != 0) {
        close(syslog_socket);
        syslog_socket = -1;
    }
}

void log_to_syslog(int facility) {
    /* Connected at once: after a chroot the socket cannot be found any more. */
    connect_to_syslog();
    syslog_facility = facility_numbers[facility];
    to_syslog = true;
    if (description >= 0)
        close(description);
    description = -1;
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

static ssize_t send_to_syslog(const char *line, size_t length) {
    ssize_t sent = send(syslog_socket, line, length, MSG_NOSIGNAL);

    if (sent >= 0 || errno == EAGAIN)
        return sent;
    connect_to_syslog(); /* it may have begun anew */
    return send(syslog_socket, line, length, MSG_NOSIGNAL);
}

/* False: there is no room for it now. */
static bool put(const char *line, size_t length) {
    ssize_t written = -1;

    if (to_syslog)
        written = send_to_syslog(line, length);
    else if (manner == NEVER_WAIT_SOCKET)
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

/* What a line begins with: RFC 3164, 4.1, for syslog. Returns its length. */
static size_t begin_line(char *line, size_t size, int priority) {
    time_t now = time(NULL);
    struct tm local;
    char date[32];

    if (!to_syslog)
        return (size_t)snprintf(line, size, "%s: ", program_name);
    localtime_r(&now, &local);
    strftime(date, sizeof date, "%b %e %T", &local);
    return (size_t)snprintf(line, size, "<%d>%s %s[%d]: ", syslog_facility | priority, date, program_name,
                            (int)getpid());
}

/* A file's name, say, may have a line feed in it, or what a terminal obeys. */
static void make_plain(char *text, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (iscntrl((unsigned char)text[i]))
            text[i] = '?';
}

/* One write() a line, so that lines of several workers do not mix. False: it is lost. */
static bool put_line(int priority, const char *format, va_list arguments) {
    char line[1024];
    const size_t begin = begin_line(line, sizeof line, priority);
    int message = vsnprintf(line + begin, sizeof line - begin, format, arguments);
    size_t length;

    if (message < 0)
        return true;
    length = begin + (size_t)message;
    if (length > sizeof line - 1)
        length = sizeof line - 1;
    make_plain(line + begin, length - begin);
    if (!to_syslog)
        line[length++] = '\n';
    return put(line, length);
}

__attribute__((format(printf, 2, 3))) static bool put_own_line(int priority, const char *format, ...) {
    va_list arguments;
    bool was_put;

    va_start(arguments, format);
    was_put = put_line(priority, format, arguments);
    va_end(arguments);
    return was_put;
}

static void write_line(int priority, const char *format, va_list arguments) {
    if (lost && put_own_line(LOG_WARNING, "%llu messages were lost: nobody took them", (unsigned long long)lost))
        lost = 0;
    if (lost || !put_line(priority, format, arguments))
        lost++;
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
