/* SPDX-License-Identifier: MIT */
/*
 * Random datagrams, of any length up to 1400 bytes, so many a second until there were COUNT of them or SIGTERM comes.
 * Each begins with one of the beginnings, which are in hexadecimal, or with nothing of the kind; one with = before it
 * is the whole datagram. Prints one line of JSON: how many, in how long, and the sender's CPU time.
 *
 *   datagram-flood HOST:PORT DATAGRAMS_PER_SECOND COUNT [BEGINNING...]
 */
#define _GNU_SOURCE
#include "address.h"
#include "clock.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BYTES_MAX 1400
#define POOL      4096
#define AT_ONCE   64 /* datagrams of one call: no more come in a burst */
#define NS_PER_S  UINT64_C(1000000000)
#define REST_NS   200000

struct datagram {
    uint8_t bytes[BYTES_MAX];
    size_t length;
};

static struct datagram pool[POOL];
static volatile sig_atomic_t stopped;

static void stop(int signal_number) {
    (void)signal_number;
    stopped = 1;
}

static bool fill_pool(char **beginnings, int count) {
    for (int i = 0; i < POOL; i++) {
        struct datagram *datagram = &pool[i];
        const char *beginning = count ? beginnings[i % count] : "";
        bool whole = beginning[0] == '=';
        size_t begun = 0, random = 0;

        if (RAND_bytes(datagram->bytes, sizeof datagram->bytes) != 1)
            return false;
        memcpy(&random, datagram->bytes + sizeof datagram->bytes - sizeof random, sizeof random);
        if (beginning[0] &&
            !OPENSSL_hexstr2buf_ex(datagram->bytes, whole ? BYTES_MAX : BYTES_MAX / 2, &begun, beginning + whole, '\0'))
            return false;
        datagram->length = whole ? begun : begun + random % (BYTES_MAX - begun + 1);
    }
    return true;
}

/* How many of the pool's datagrams from number on, AT_ONCE at most, were sent; -1: not one. */
static int send_some(int fd, uint64_t number, uint64_t wanted) {
    struct mmsghdr headers[AT_ONCE] = {0};
    struct iovec vectors[AT_ONCE];
    unsigned count = wanted < AT_ONCE ? (unsigned)wanted : AT_ONCE;

    for (unsigned i = 0; i < count; i++) {
        struct datagram *datagram = &pool[(number + i) % POOL];

        vectors[i] = (struct iovec){datagram->bytes, datagram->length};
        headers[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    return sendmmsg(fd, headers, count, 0);
}

static uint64_t flood(int fd, double per_second, uint64_t count) {
    const struct timespec rest = {.tv_nsec = REST_NS};
    const uint64_t begun_ns = monotonic_ns();
    uint64_t sent = 0;

    while (sent < count && !stopped) {
        uint64_t due = (uint64_t)((double)(monotonic_ns() - begun_ns) / NS_PER_S * per_second);
        int done;

        if (due > count)
            due = count;
        done = due > sent ? send_some(fd, sent, due - sent) : -1;
        /* Nothing is due, or nobody listens any more. */
        if (done < 0)
            nanosleep(&rest, NULL);
        else
            sent += (uint64_t)done;
    }
    return sent;
}

int main(int argc, char **argv) {
    const struct sigaction stopping = {.sa_handler = stop};
    struct address address;
    uint64_t begun_ns, sent;
    int fd;

    if (argc < 4 || address_parse(&address, argv[1]) || !fill_pool(argv + 4, argc - 4)) {
        fprintf(stderr, "datagram-flood: HOST:PORT DATAGRAMS_PER_SECOND COUNT [BEGINNING...]\n");
        return 2;
    }
    fd = socket(address.sockaddr.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, &address.sockaddr.any, address.length) != 0) {
        perror("datagram-flood");
        return 1;
    }
    sigaction(SIGTERM, &stopping, NULL);
    begun_ns = monotonic_ns();
    sent = flood(fd, strtod(argv[2], NULL), strtoull(argv[3], NULL, 10));
    printf("{\"sent\": %llu, \"seconds\": %.3f, \"cpu_s\": %.3f}\n", (unsigned long long)sent,
           (double)(monotonic_ns() - begun_ns) / NS_PER_S, (double)process_cpu_ns() / NS_PER_S);
    return 0;
}
