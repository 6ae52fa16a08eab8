/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LOG_H
#define TLSDYNO_LOG_H
/*
 * What a program tells its operator, one line a message, on standard error (or syslog): "PROGRAM: message".
 */
#include <stdbool.h>
#include <stdint.h>

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

/*
 * From here on nobody waits for a standard error that takes no more, as a pipe does that nobody reads: such lines are
 * lost, and the next that is not tells how many. For who has something better to do.
 */
void log_never_wait(void);

/*
 * From here on lines go to syslog instead, which nobody ever waits for. The facility is an index into log_facilities.
 */
void log_to_syslog(int facility);

/* "daemon", "user", "local0"... ended by NULL. */
extern const char *const log_facilities[];

/* At most one line a second of a kind: whoever may cause any number of them does not fill the disk. */
struct log_limit {
    uint64_t second;
    uint64_t kept_back; /* lines since the last one that was written */
};

/* True: the line may be written, and *kept_back tells how many before it were not. now_s only grows. */
bool log_allowed(struct log_limit *limit, uint64_t now_s, uint64_t *kept_back);

void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Writes the line, then exit(status). */
_Noreturn void fail(enum exit_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
