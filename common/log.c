/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *program_name = "tlsdyno";
static bool is_quiet;

void log_open(const char *program) {
    program_name = program;
}

void log_quiet(bool quiet) {
    is_quiet = quiet;
}

/* One write() a line, so that lines of several workers do not mix. */
static void write_line(const char *format, va_list arguments) {
    char line[1024];
    int prefix = snprintf(line, sizeof line, "%s: ", program_name);
    int length = vsnprintf(line + prefix, sizeof line - (size_t)prefix, format, arguments);

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
    write_line(format, arguments);
    va_end(arguments);
}

void log_error(const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    write_line(format, arguments);
    va_end(arguments);
}

_Noreturn void fail(enum exit_status status, const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    write_line(format, arguments);
    va_end(arguments);
    exit(status);
}
