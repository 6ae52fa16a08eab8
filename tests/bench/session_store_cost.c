/* SPDX-License-Identifier: MIT */
/*
 * What a session that is looked up costs, by how many there are: of the store alone, and of all that the TLS library
 * asks for, which makes a session of what was stored. And how much memory a session takes. One line of JSON for each
 * size. All sizes are measured at once and take turns on the CPU, so that whatever makes that slower or faster falls on
 * all alike: what they cost is CPU time.
 *
 *   session-store-cost SESSIONS...
 */
#include "clock.h"
#include "session_store.h"
#include "shared_memory.h"

#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEASURED_NS UINT64_C(400000000) /* CPU time of each figure */
#define LOOKUPS     4096                /* before the clock is looked at again */
#define NOW         UINT64_C(1000)
#define POLL_NS     1000000

/* A session as the proxy keeps it, but for its ID. */
static size_t make_session(uint8_t *bytes) {
    SSL_SESSION *session = SSL_SESSION_new();
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    SSL *ssl = SSL_new(context);
    uint8_t secret[48], id[SESSION_ID_MAX] = {1}, id_context[32] = {1}, *end = bytes;
    int length;

    RAND_bytes(secret, sizeof secret);
    SSL_SESSION_set_protocol_version(session, TLS1_2_VERSION);
    SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, (const unsigned char *)"\xc0\x2f"));
    SSL_SESSION_set1_master_key(session, secret, sizeof secret);
    SSL_SESSION_set1_id(session, id, sizeof id);
    SSL_SESSION_set1_id_context(session, id_context, sizeof id_context);
    length = i2d_SSL_SESSION(session, &end);
    SSL_SESSION_free(session);
    SSL_free(ssl);
    SSL_CTX_free(context);
    return length > 0 ? (size_t)length : 0;
}

/* IDs are random bytes; these can be told again from their number. */
static void id_of(uint64_t number, uint8_t *id) {
    for (int i = 0; i < 4; i++) {
        uint64_t mixed = (number + 1) * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)i * UINT64_C(0xbf58476d1ce4e5b9);
        mixed = (mixed ^ mixed >> 31) * UINT64_C(0x94d049bb133111eb);
        mixed ^= mixed >> 29;
        memcpy(id + 8 * i, &mixed, sizeof mixed);
    }
}

/* Of shared memory: what the store has touched. */
static long resident_bytes(void) {
    FILE *stream = fopen("/proc/self/status", "r");
    char line[256];
    long kib = 0;

    while (stream && fgets(line, sizeof line, stream))
        if (strncmp(line, "RssShmem:", 9) == 0)
            kib = strtol(line + 9, NULL, 10);
    if (stream)
        fclose(stream);
    return kib * 1024;
}

static void draw(uint64_t *order, uint64_t sessions) {
    RAND_bytes((uint8_t *)order, LOOKUPS * sizeof *order);
    for (size_t i = 0; i < LOOKUPS; i++)
        order[i] %= sessions;
}

static void look_up(struct session_store *store, uint64_t number, bool decode) {
    uint8_t id[SESSION_ID_MAX], bytes[SESSION_BYTES_MAX];
    const unsigned char *start = bytes;
    uint64_t expires_s;
    size_t length;
    bool expired;

    id_of(number, id);
    length = session_store_get(store, id, sizeof id, bytes, NOW, false, &expired, &expires_s);
    if (!length) {
        fprintf(stderr, "session-store-cost: a session is missing\n");
        _exit(1);
    }
    if (decode)
        SSL_SESSION_free(d2i_SSL_SESSION(NULL, &start, (long)length));
}

static double cost_ns(struct session_store *store, uint64_t sessions, bool decode) {
    static uint64_t order[LOOKUPS];
    uint64_t spent = 0, done = 0;

    while (spent < MEASURED_NS) {
        uint64_t begun;

        draw(order, sessions);
        begun = process_cpu_ns();
        for (size_t i = 0; i < LOOKUPS; i++)
            look_up(store, order[i], decode);
        spent += process_cpu_ns() - begun;
        done += LOOKUPS;
    }
    return (double)spent / (double)done;
}

/* Until all are there: of the processes that count themselves in *arrived, so many. */
static void meet(unsigned *arrived, unsigned wanted) {
    const struct timespec rest = {.tv_nsec = POLL_NS};

    __atomic_fetch_add(arrived, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(arrived, __ATOMIC_SEQ_CST) < wanted)
        nanosleep(&rest, NULL);
}

static void measure(uint64_t sessions, unsigned *arrived, unsigned sizes) {
    uint8_t id[SESSION_ID_MAX], bytes[SESSION_BYTES];
    size_t length = make_session(bytes);
    long before = resident_bytes();
    /* Shards fill unevenly: none is full when all together are to nine tenths. */
    struct session_store *store = session_store_new(sessions * 10 / 9, SESSION_BYTES);
    double alone, whole;

    for (uint64_t number = 0; number < sessions; number++) {
        id_of(number, id);
        session_store_put(store, id, sizeof id, bytes, length, NOW, NOW + 1000);
    }
    cost_ns(store, sessions, false);
    meet(arrived, sizes);
    alone = cost_ns(store, sessions, false);
    meet(arrived, 2 * sizes);
    whole = cost_ns(store, sessions, true);
    printf("{\"sessions\": %llu, \"store_ns\": %.1f, \"lookup_ns\": %.1f, \"bytes_per_session\": %.1f}\n",
           (unsigned long long)sessions, alone, whole, (double)(resident_bytes() - before) / (double)sessions);
    fflush(stdout);
}

/* Each size in a process of its own: none is warmed up by another. */
int main(int argc, char **argv) {
    unsigned sizes = (unsigned)argc - 1, *arrived = shared_memory_new(sizeof *arrived);
    pid_t *children = calloc(sizes, sizeof *children);
    int failed = 0, status;

    for (unsigned i = 0; children && i < sizes; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            measure(strtoull(argv[1 + i], NULL, 10), arrived, sizes);
            _exit(0);
        }
    }
    while (wait(&status) > 0)
        if (status != 0 && !failed++)
            for (unsigned i = 0; i < sizes; i++)
                kill(children[i], SIGTERM); /* it would wait for the one that died */
    free(children);
    return failed > 0;
}
