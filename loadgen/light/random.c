/* SPDX-License-Identifier: MIT */
#include "random.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static uint64_t state[2];
static bool seeded;

static void forget_seed(void) {
    seeded = false;
}

static void seed(void) {
    static bool watching_forks;

    if (!watching_forks)
        pthread_atfork(NULL, NULL, forget_seed);
    watching_forks = true;
    if (getrandom(state, sizeof state, 0) != (ssize_t)sizeof state) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        state[0] = (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec;
        state[1] = (uint64_t)getpid();
    }
    state[1] |= 1;
    seeded = true;
}

/* xorshift128+ */
static uint64_t next(void) {
    uint64_t x = state[0], y = state[1];

    state[0] = y;
    x ^= x << 23;
    state[1] = x ^ y ^ x >> 17 ^ y >> 26;
    return state[1] + y;
}

void light_random(uint8_t *bytes, size_t length) {
    if (!seeded)
        seed();
    while (length > 0) {
        uint64_t word = next();
        size_t piece = length < sizeof word ? length : sizeof word;
        memcpy(bytes, &word, piece);
        bytes += piece;
        length -= piece;
    }
}
