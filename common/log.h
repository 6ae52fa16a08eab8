/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LOG_H
#define TLSDYNO_LOG_H
/*
 * What a program tells its operator, one line a message, on standard error (or syslog): "PROGRAM: message".
 */
#include <stdbool.h>

enum exit_status {
    EXIT_MEASURED = 0,
    EXIT_FAILED = 1,    /* something went wrong after a good start */
    EXIT_USAGE = 2,     /* bad usage or bad input: nothing was started */
    EXIT_NO_TARGET = 3, /* loadgen: could not start, nobody listens there */
};

/* Must be called first. The name is kept, not copied. */
void log_open(const char *program);

/* Only errors and refusals are written from here on. */
void log_quiet(bool quiet);

void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Writes the line, then exit(status). */
_Noreturn void fail(enum exit_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
