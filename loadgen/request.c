/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "request.h"

#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PATTERN_BYTES 65521 /* prime */

const char *const method_names[] = {"GET", "HEAD", "POST", "PUT", NULL};

static char pattern[PATTERN_BYTES];

static void fill_pattern(void) {
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

    for (size_t i = 0; i < sizeof pattern; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pattern[i] = (char)(state >> 32);
    }
}

const char *request_check_header(const char *line) {
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t name = strspn(line, token);

    if (name == 0 || line[name] != ':')
        return "not NAME: VALUE";
    if (strpbrk(line, "\r\n"))
        return "a line end in a header";
    if ((name == 14 && strncasecmp(line, "content-length", name) == 0) ||
        (name == 17 && strncasecmp(line, "transfer-encoding", name) == 0))
        return "the length of the body is what --body-size says";
    return NULL;
}

void request_init(struct request *request, const struct target *target, enum method method, const char *const *headers,
                  int count, uint64_t body_bytes) {
    bool has_host = false;
    char *head = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&head, &length);

    if (!out)
        fail(EXIT_FAILED, "out of memory");
    if (!pattern[0])
        fill_pattern();
    fprintf(out, "%s %s HTTP/1.1\r\n", method_names[method], target->path);
    for (int i = 0; i < count; i++)
        if (strncasecmp(headers[i], "host:", 5) == 0)
            has_host = true;
    if (!has_host)
        fprintf(out, "Host: %s\r\n", target->authority);
    for (int i = 0; i < count; i++)
        fprintf(out, "%s\r\n", headers[i]);
    if (method == METHOD_POST || method == METHOD_PUT)
        fprintf(out, "Content-Length: %llu\r\n", (unsigned long long)body_bytes);
    fputs("\r\n", out);
    if (fflush(out) != 0)
        fail(EXIT_FAILED, "out of memory");
    request->head_bytes = length;
    fwrite(pattern, 1, body_bytes < PATTERN_BYTES ? (size_t)body_bytes : PATTERN_BYTES, out);
    if (fclose(out) != 0)
        fail(EXIT_FAILED, "out of memory");
    request->start = head;
    request->start_bytes = length;
    request->body_bytes = body_bytes;
    request->total_bytes = request->head_bytes + body_bytes;
}

const char *request_piece(const struct request *request, uint64_t offset, size_t *length) {
    if (offset < request->start_bytes) {
        *length = request->start_bytes - (size_t)offset;
        return request->start + offset;
    }
    size_t at = (size_t)((offset - request->head_bytes) % PATTERN_BYTES);
    uint64_t left = request->total_bytes - offset;
    *length = PATTERN_BYTES - at;
    if (*length > left)
        *length = (size_t)left;
    return pattern + at;
}

bool request_body_matches(uint64_t offset, const char *bytes, size_t length) {
    while (length > 0) {
        size_t at = (size_t)(offset % PATTERN_BYTES), piece = PATTERN_BYTES - at;
        if (piece > length)
            piece = length;
        if (memcmp(pattern + at, bytes, piece) != 0)
            return false;
        offset += piece;
        bytes += piece;
        length -= piece;
    }
    return true;
}
