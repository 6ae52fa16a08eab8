/* SPDX-License-Identifier: MIT */
#ifndef PROXY_ACCESS_LOG_H
#define PROXY_ACCESS_LOG_H
/*
 * A line for each visit of a client. Each worker collects lines in memory and appends whole lines to the file, which
 * all share, when it has many, or after a second. A file that takes no more loses lines, which are counted, and stops
 * nothing.
 *
 * Whatever a client can choose is escaped: in text, anything but visible ASCII, and " \ = besides, as \xHH; in JSON as
 * its strings demand, with bytes that are not ASCII as \u00HH. So a line is one visit, whatever the client sent.
 */
#include "visit.h"

#include <ev.h>

enum access_log_format { ACCESS_LOG_TEXT, ACCESS_LOG_JSON };

/* Their names, ended by NULL. */
extern const char *const access_log_formats[];

/* No line is longer: names of at most 255 bytes, each escaped, and numbers. */
#define ACCESS_LINE_MAX 4096

struct access_log {
    struct ev_loop *loop;
    int fd; /* -1: no log */
    enum access_log_format format;
    struct worker_counters *counters;
    /* Private. */
    char *lines;
    size_t length;
    size_t write_limit; /* a pipe keeps apart what several write only up to PIPE_BUF */
    bool is_socket;
    bool mends_line; /* the first byte held ends a line that was broken off */
    bool in_trouble; /* which was reported */
    ev_timer timer;
    int64_t second; /* whose date is date */
    char date[32];
};

/*
 * In the master: a descriptor for the file, which is made if it is not there (*is_new); "-" is standard output. -1 with
 * errno.
 */
int access_log_open(const char *file, bool *is_new);

/* The same in question: nothing is made. False with errno set. */
bool access_log_can_be_opened(const char *file);

/* In a worker: from here on visits are written. fd -1: there is no log, and writing does nothing. */
void access_log_start(struct access_log *log, struct ev_loop *loop, int fd, enum access_log_format format,
                      struct worker_counters *counters);

void access_log_write(struct access_log *log, const struct visit *visit);

/* Writes what is held, as far as the file takes it. */
void access_log_flush(struct access_log *log);

/* The same, and frees all: before a worker ends. */
void access_log_close(struct access_log *log);

/* The line of a visit, with its end; line holds ACCESS_LINE_MAX bytes. date is RFC 3339. Returns its length. */
size_t access_log_line(char *line, enum access_log_format format, const char *date, const struct visit *visit);

#endif
