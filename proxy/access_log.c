/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "access_log.h"

#include "alpn.h"
#include "bytes.h"
#include "log.h"
#include "regular_file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_BYTES  (64 * 1024)
#define FLUSH_AFTER_S 1.

const char *const access_log_formats[] = {[ACCESS_LOG_TEXT] = "text", [ACCESS_LOG_JSON] = "json", NULL};

/* ---- A line ---- */

static void put_text(struct writer *line, const char *text) {
    writer_bytes(line, text, strlen(text));
}

static void put_number(struct writer *line, uint64_t number) {
    char digits[20];
    size_t at = sizeof digits;

    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    writer_bytes(line, digits + at, sizeof digits - at);
}

static void put_hex(struct writer *line, const char *prefix, uint8_t byte) {
    static const char hex[] = "0123456789abcdef";

    put_text(line, prefix);
    writer_u8(line, (uint8_t)hex[byte >> 4]);
    writer_u8(line, (uint8_t)hex[byte & 15]);
}

static void put_escaped(struct writer *line, enum access_log_format format, const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = bytes[i];
        bool is_plain = byte > ' ' && byte < 0x7f && byte != '"' && byte != '\\';

        if (format == ACCESS_LOG_JSON && !is_plain && byte != ' ')
            put_hex(line, "\\u00", byte);
        else if (format == ACCESS_LOG_TEXT && (!is_plain || byte == '=' || (byte == '-' && length == 1)))
            put_hex(line, "\\x", byte); /* a lone - would say that there is nothing */
        else
            writer_u8(line, byte);
    }
}

static void put_key(struct writer *line, enum access_log_format format, const char *key) {
    put_text(line, format == ACCESS_LOG_JSON ? ",\"" : " ");
    put_text(line, key);
    put_text(line, format == ACCESS_LOG_JSON ? "\":" : "=");
}

static void put_nothing(struct writer *line, enum access_log_format format) {
    put_text(line, format == ACCESS_LOG_JSON ? "null" : "-");
}

/* length 0: there is nothing to say. */
static void put_bytes_field(struct writer *line, enum access_log_format format, const char *key, const void *bytes,
                            size_t length) {
    put_key(line, format, key);
    if (!length) {
        put_nothing(line, format);
        return;
    }
    if (format == ACCESS_LOG_JSON)
        writer_u8(line, '"');
    put_escaped(line, format, bytes, length);
    if (format == ACCESS_LOG_JSON)
        writer_u8(line, '"');
}

static void put_field(struct writer *line, enum access_log_format format, const char *key, const char *text) {
    put_bytes_field(line, format, key, text, text ? strlen(text) : 0);
}

static void put_number_field(struct writer *line, enum access_log_format format, const char *key, uint64_t number) {
    put_key(line, format, key);
    put_number(line, number);
}

/* As address_format does, but without its snprintf for the most frequent kind. */
static const char *format_client(const struct address *client, char *text) {
    const uint8_t *octets = (const uint8_t *)&client->sockaddr.ipv4.sin_addr;
    struct writer made = writer_of((uint8_t *)text, ADDRESS_TEXT_MAX);

    if (client->sockaddr.any.sa_family == AF_INET6)
        return address_format(client, text);
    if (client->sockaddr.any.sa_family != AF_INET)
        return "unix";
    for (int i = 0; i < 4; i++) {
        put_number(&made, octets[i]);
        writer_u8(&made, i < 3 ? '.' : ':');
    }
    put_number(&made, ntohs(client->sockaddr.ipv4.sin_port));
    writer_u8(&made, '\0');
    return text;
}

/* What was agreed: nothing, where the handshake was not completed. */
static void put_agreement(struct writer *line, enum access_log_format format, const struct visit *visit) {
    SSL *ssl = visit->handshake_done_ns ? visit->ssl : NULL;
    const unsigned char *alpn = NULL;
    unsigned int alpn_length = 0;

    put_field(line, format, "version", ssl ? SSL_get_version(ssl) : NULL);
    put_field(line, format, "cipher", ssl ? SSL_get_cipher_name(ssl) : NULL);
    put_key(line, format, "resumed");
    if (!ssl)
        put_nothing(line, format);
    else if (format == ACCESS_LOG_JSON)
        put_text(line, SSL_session_reused(ssl) ? "true" : "false");
    else
        put_text(line, SSL_session_reused(ssl) ? "yes" : "no");
    if (ssl)
        alpn_agreed(ssl, &alpn, &alpn_length);
    put_bytes_field(line, format, "alpn", alpn, alpn_length);
}

size_t access_log_line(char *text, enum access_log_format format, const char *date, const struct visit *visit) {
    struct writer line = writer_of((uint8_t *)text, ACCESS_LINE_MAX);
    char client[ADDRESS_TEXT_MAX];

    put_text(&line, format == ACCESS_LOG_JSON ? "{\"time\":\"" : "time=");
    put_text(&line, date);
    if (format == ACCESS_LOG_JSON)
        writer_u8(&line, '"');
    put_field(&line, format, "client", format_client(visit->client, client));
    put_field(&line, format, "frontend", visit->frontend);
    put_field(&line, format, "sni", visit->ssl ? SSL_get_servername(visit->ssl, TLSEXT_NAMETYPE_host_name) : NULL);
    put_agreement(&line, format, visit);
    put_number_field(&line, format, "bytes_from_client", visit->bytes_from_client);
    put_number_field(&line, format, "bytes_to_client", visit->bytes_to_client);
    put_key(&line, format, "handshake_us");
    if (visit->handshake_done_ns)
        put_number(&line, (visit->handshake_done_ns - visit->accepted_ns) / 1000);
    else
        put_nothing(&line, format);
    put_number_field(&line, format, "duration_us", (visit->ended_ns - visit->accepted_ns) / 1000);
    put_field(&line, format, "close", close_reason_name(visit->reason));
    put_field(&line, format, "failure",
              visit->failure == HANDSHAKE_NO_FAILURE ? NULL : handshake_failure_name(visit->failure));
    put_text(&line, format == ACCESS_LOG_JSON ? "}\n" : "\n");
    return line.full ? 0 : line.length;
}

/* ---- The file ---- */

#define OPEN_FLAGS (O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

int access_log_open(const char *file, bool *is_new) {
    int fd;

    *is_new = false;
    if (strcmp(file, "-") == 0) {
        /* A description of our own: O_NONBLOCK on the common one would change it for who started us as well. */
        fd = open("/proc/self/fd/1", OPEN_FLAGS);
        return fd >= 0 ? fd : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
    }
    fd = open(file, OPEN_FLAGS);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    *is_new = true;
    return open(file, OPEN_FLAGS | O_CREAT, 0640);
}

bool access_log_can_be_opened(const char *file) {
    int fd;

    if (strcmp(file, "-") == 0)
        return true;
    fd = open(file, OPEN_FLAGS);
    if (fd >= 0)
        return close(fd) == 0;
    return errno == ENOENT && regular_file_can_be_made(file);
}

static uint64_t count_lines(const char *bytes, size_t length) {
    uint64_t count = 0;

    for (size_t i = 0; i < length; i++)
        count += bytes[i] == '\n';
    return count;
}

/* Whole lines, as many as may be written at once. */
static size_t next_piece(const struct access_log *log, size_t done) {
    size_t left = log->length - done;
    const char *end;

    if (!log->write_limit || left <= log->write_limit)
        return left;
    end = memrchr(log->lines + done, '\n', log->write_limit);
    return end ? (size_t)(end + 1 - (log->lines + done)) : log->write_limit;
}

static ssize_t put(const struct access_log *log, const char *bytes, size_t length) {
    return log->is_socket ? send(log->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL) : write(log->fd, bytes, length);
}

/*
 * Whole lines in the first length bytes of what is held. The first byte may only end a line that was broken off
 * earlier: that one is counted as lost already.
 */
static uint64_t count_held(const struct access_log *log, size_t length) {
    return count_lines(log->lines, length) - (length > 0 && log->mends_line);
}

/* What is held from done on is lost. If a line was broken off, the next begins on a new one. */
static void lose(struct access_log *log, size_t done) {
    if (!log->in_trouble)
        log_error("access log: %s: lines are lost", strerror(errno));
    log->in_trouble = true;
    stats_add(&log->counters->access_log_lost, count_held(log, log->length) - count_held(log, done));
    log->mends_line = done > 0 ? log->lines[done - 1] != '\n' : log->mends_line;
    log->lines[0] = '\n';
    log->length = log->mends_line;
}

void access_log_flush(struct access_log *log) {
    size_t done = 0;

    if (log->fd < 0)
        return;
    while (done < log->length) {
        ssize_t count = put(log, log->lines + done, next_piece(log, done));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            break;
        done += (size_t)count;
    }
    log->in_trouble = log->in_trouble && done < log->length;
    stats_add(&log->counters->access_log_lines, count_held(log, done));
    if (done < log->length && errno != EAGAIN) {
        lose(log, done);
    } else if (done > 0) {
        /* A pipe that is full takes the rest later. */
        memmove(log->lines, log->lines + done, log->length - done);
        log->length -= done;
        log->mends_line = false;
    }
    /* A line end that is owed waits for the line that it comes before. */
    if (log->length > log->mends_line)
        ev_timer_again(log->loop, &log->timer);
    else
        ev_timer_stop(log->loop, &log->timer);
}

static void flush_later(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)loop, (void)events;
    access_log_flush(timer->data);
}

void access_log_start(struct access_log *log, struct ev_loop *loop, int fd, enum access_log_format format,
                      struct worker_counters *counters) {
    struct stat file;

    *log = (struct access_log){.loop = loop, .fd = fd, .format = format, .counters = counters, .second = -1};
    if (fd < 0)
        return;
    log->lines = malloc(BUFFER_BYTES);
    if (!log->lines)
        fail(EXIT_FAILED, "access log: out of memory");
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow any more is like a full disk */
    if (fstat(fd, &file) == 0 && !S_ISREG(file.st_mode))
        log->write_limit = PIPE_BUF;
    log->is_socket = fstat(fd, &file) == 0 && S_ISSOCK(file.st_mode);
    ev_timer_init(&log->timer, flush_later, FLUSH_AFTER_S, FLUSH_AFTER_S);
    log->timer.data = log;
}

void access_log_close(struct access_log *log) {
    access_log_flush(log);
    if (log->fd >= 0)
        ev_timer_stop(log->loop, &log->timer);
    free(log->lines);
    log->lines = NULL;
}

/* "2026-01-31T12:34:56.789Z", without a system call; the date is made once a second. */
static const char *format_now(struct access_log *log) {
    double now = ev_now(log->loop), whole = floor(now);
    unsigned ms = (unsigned)((now - whole) * 1e3);
    time_t second = (time_t)whole;
    struct tm utc;

    if (log->second != (int64_t)second) {
        gmtime_r(&second, &utc);
        strftime(log->date, sizeof log->date, "%Y-%m-%dT%H:%M:%S", &utc);
        memcpy(log->date + 19, ".000Z", 5);
        log->second = (int64_t)second;
    }
    log->date[20] = (char)('0' + ms / 100);
    log->date[21] = (char)('0' + ms / 10 % 10);
    log->date[22] = (char)('0' + ms % 10);
    return log->date;
}

void access_log_write(struct access_log *log, const struct visit *visit) {
    if (log->fd < 0)
        return;
    if (BUFFER_BYTES - log->length < ACCESS_LINE_MAX)
        access_log_flush(log);
    if (BUFFER_BYTES - log->length < ACCESS_LINE_MAX) {
        stats_add(&log->counters->access_log_lost, 1);
        return;
    }
    log->length += access_log_line(log->lines + log->length, log->format, format_now(log), visit);
    if (!ev_is_active(&log->timer))
        ev_timer_again(log->loop, &log->timer);
}
