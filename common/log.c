/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>
#include <unistd.h>

static const char *program_name = "tlsdyno";
static bool is_quiet;
static bool to_syslog;

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
    if (write(STDERR_FILENO, line, (size_t)length) < 0) {
        /* There is nobody left to tell. */
    }
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
