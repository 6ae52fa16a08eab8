/* SPDX-License-Identifier: MIT */
#include "respond.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_BYTES_MAX 512

/* How long the body is, as the head says it. */
enum body_end { END_BY_LENGTH, END_BY_CHUNKS, END_BY_CLOSE, END_WITHOUT_BODY };

static char text_block[OUTPUT_BLOCK_TWICE];
static char random_block[OUTPUT_BLOCK_TWICE];

void respond_init(void) {
    static const char line[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.\n";
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

    for (size_t i = 0; i < sizeof text_block; i++)
        text_block[i] = line[i % (sizeof line - 1)];
    for (size_t i = 0; i < OUTPUT_BLOCK_BYTES; i++) { /* xorshift64 */
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        random_block[i] = random_block[OUTPUT_BLOCK_BYTES + i] = (char)(state >> 32);
    }
}

static bool status_has_body(unsigned status) {
    return status != 204 && status != 304;
}

/* Writes at most HEAD_BYTES_MAX. */
static size_t write_head(char *head, const struct request *request, enum body_end end, uint64_t body_bytes,
                         const char *type) {
    char *at = head, *limit = head + HEAD_BYTES_MAX;
    const char *phrase = http_status_str(request->status);

    at += snprintf(at, (size_t)(limit - at), "HTTP/1.1 %u %s\r\n", request->status, *phrase == '<' ? "Other" : phrase);
    if (end != END_WITHOUT_BODY)
        at += snprintf(at, (size_t)(limit - at), "Content-Type: %s\r\n", type);
    if (end == END_BY_LENGTH)
        at += snprintf(at, (size_t)(limit - at), "Content-Length: %llu\r\n", (unsigned long long)body_bytes);
    if (end == END_BY_CHUNKS)
        at += snprintf(at, (size_t)(limit - at), "Transfer-Encoding: chunked\r\n");
    if (request->status == 405)
        at += snprintf(at, (size_t)(limit - at), "Allow: GET, HEAD, POST, PUT\r\n");
    if (!request->keep_alive)
        at += snprintf(at, (size_t)(limit - at), "Connection: close\r\n");
    else if (request->http_1_0)
        at += snprintf(at, (size_t)(limit - at), "Connection: keep-alive\r\n");
    at += snprintf(at, (size_t)(limit - at), "\r\n");
    return (size_t)(at - head);
}

static void put_head(struct output *output, const struct request *request, enum body_end end, uint64_t body_bytes,
                     const char *type) {
    char head[HEAD_BYTES_MAX];

    output_put(output, head, write_head(head, request, end, body_bytes, type));
}

/*
 * Small objects are kept whole, head and body, so that the usual answer is one write of bytes that lie ready. They are
 * kept for ever (the output points at them), so there is a limit; what is over it is put together each time.
 */
#define PREPARED_BODY_MAX  (64 * 1024)
#define PREPARED_TOTAL_MAX (8 * 1024 * 1024)
#define PREPARED_SLOTS     256
#define PREPARED_PROBES    8

/* As small as that, beside others copying is cheaper than a write of its own. */
#define PREPARED_COPY_MAX (4 * 1024)

struct prepared {
    unsigned status, flags; /* which object this is; status 0: an empty slot */
    uint64_t size_bytes;
    size_t head_bytes, length;
    char *bytes; /* head and body */
};

static struct prepared prepared_objects[PREPARED_SLOTS];
static size_t prepared_total;

static const char *object_block(const struct request *request) {
    return request->random ? random_block : text_block;
}

static const char *object_type(const struct request *request) {
    return request->random ? "application/octet-stream" : "text/plain";
}

static bool prepare(struct prepared *object, const struct request *request, unsigned flags) {
    char head[HEAD_BYTES_MAX];
    size_t body_bytes = status_has_body(request->status) ? (size_t)request->size_bytes : 0;
    enum body_end end = status_has_body(request->status) ? END_BY_LENGTH : END_WITHOUT_BODY;
    size_t head_bytes = write_head(head, request, end, body_bytes, object_type(request));

    if (prepared_total + head_bytes + body_bytes > PREPARED_TOTAL_MAX)
        return false;
    object->bytes = malloc(head_bytes + body_bytes);
    if (!object->bytes)
        return false;
    memcpy(object->bytes, head, head_bytes);
    memcpy(object->bytes + head_bytes, object_block(request), body_bytes);
    object->head_bytes = head_bytes;
    object->length = head_bytes + body_bytes;
    object->status = request->status;
    object->flags = flags;
    object->size_bytes = request->size_bytes;
    prepared_total += object->length;
    return true;
}

/* NULL if this object is not kept and there is no place for it. */
static const struct prepared *find_prepared(const struct request *request) {
    unsigned flags = (unsigned)request->keep_alive | (unsigned)request->http_1_0 << 1 | (unsigned)request->random << 2;
    uint64_t hash = (request->size_bytes << 16 ^ request->status << 3 ^ flags) * UINT64_C(0x9e3779b97f4a7c15);

    for (unsigned i = 0; i < PREPARED_PROBES; i++) {
        struct prepared *object = &prepared_objects[((hash >> 56) + i) % PREPARED_SLOTS];
        if (object->size_bytes == request->size_bytes && object->status == request->status && object->flags == flags)
            return object;
        if (object->status == 0)
            return prepare(object, request, flags) ? object : NULL;
    }
    return NULL;
}

const char *respond_ready(const struct request *request, size_t *length) {
    const struct prepared *object = NULL;

    if (request->kind == REQUEST_OBJECT && !request->chunked && !request->piece_bytes && request->told == LENGTH_TRUE &&
        request->size_bytes <= PREPARED_BODY_MAX)
        object = find_prepared(request);
    if (!object)
        return NULL;
    *length = request->head_only ? object->head_bytes : object->length;
    return object->bytes;
}

static void respond_object(struct output *output, const struct request *request) {
    size_t ready_bytes;
    const char *ready = respond_ready(request, &ready_bytes);
    uint64_t told_bytes = request->told == LENGTH_FALSE ? request->told_bytes : request->size_bytes;
    enum body_end end = request->chunked                  ? END_BY_CHUNKS
                        : request->told == LENGTH_OMITTED ? END_BY_CLOSE
                                                          : END_BY_LENGTH;

    if (ready) {
        bool has_company = output->staged || output->more_comes;
        if (has_company && ready_bytes <= PREPARED_COPY_MAX)
            output_put(output, ready, ready_bytes);
        else
            output_refer(output, ready, ready_bytes);
        return;
    }
    if (!status_has_body(request->status))
        end = END_WITHOUT_BODY;
    put_head(output, request, end, told_bytes, object_type(request));
    if (!request->head_only && end != END_WITHOUT_BODY)
        output_repeat(output, object_block(request), request->size_bytes, request->chunked, request->piece_bytes);
}

static void respond_text(struct output *output, const struct request *request, const char *type, const char *text) {
    size_t length = strlen(text);
    bool has_body = status_has_body(request->status);

    put_head(output, request, has_body ? END_BY_LENGTH : END_WITHOUT_BODY, length, type);
    if (has_body && !request->head_only)
        output_put(output, text, length);
}

static void respond_refusal(struct output *output, const struct request *request, unsigned status, const char *reason) {
    struct request refused = *request;
    char line[160];

    refused.status = status;
    snprintf(line, sizeof line, "%s\n", reason);
    respond_text(output, &refused, "text/plain", line);
}

static void respond_whoami(struct output *output, const struct request *request, const struct whoami_facts *facts) {
    char text[WHOAMI_BYTES_MAX];

    whoami_write(text, facts);
    respond_text(output, request, "application/json", text);
}

void respond(struct output *output, const struct request *request, const struct whoami_facts *facts) {
    switch (request->kind) {
    case REQUEST_OBJECT:
    case REQUEST_ECHO:
        respond_object(output, request);
        return;
    case REQUEST_WHOAMI:
        respond_whoami(output, request, facts);
        return;
    case REQUEST_HELP:
        respond_text(output, request, "text/plain", request_help());
        return;
    case REQUEST_BAD:
        respond_refusal(output, request, 400, request->refusal);
        return;
    case REQUEST_OTHER_METHOD:
        respond_refusal(output, request, 405, "only GET, HEAD, POST and PUT are answered");
        return;
    }
}

void respond_continue(struct output *output) {
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";

    output_put(output, line, sizeof line - 1);
}

void respond_bad(struct output *output, const char *reason) {
    const struct request request = {.keep_alive = false};

    respond_refusal(output, &request, 400, reason);
}

static bool echo_has_body(const struct request *request) {
    return status_has_body(request->status);
}

void respond_echo_head(struct output *output, const struct request *request) {
    enum body_end end = request->has_length ? END_BY_LENGTH : request->chunked ? END_BY_CHUNKS : END_BY_CLOSE;

    put_head(output, request, echo_has_body(request) ? end : END_WITHOUT_BODY, request->size_bytes,
             "application/octet-stream");
}

void respond_echo_piece(struct output *output, const struct request *request, const char *bytes, size_t length) {
    if (!echo_has_body(request))
        return;
    if (request->chunked)
        output_put_chunk(output, bytes, length);
    else
        output_put(output, bytes, length);
}

void respond_echo_end(struct output *output, const struct request *request) {
    if (request->chunked && echo_has_body(request))
        output_put_last_chunk(output);
}
