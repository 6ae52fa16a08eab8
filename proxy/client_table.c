/* SPDX-License-Identifier: MIT */
#include "client_table.h"

#include "shared_memory.h"

#include <arpa/inet.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_MIN 1024
/* Entries for each one that is shown: the error shrinks with it. */
#define ENTRIES_A_SHOWN 16
/* A reader that meets a writer each time takes what it sees: the writer may have died there. */
#define READ_TRIES 100

uint32_t client_table_size(uint64_t shown) {
    uint32_t size = SIZE_MIN;

    while (size < shown * ENTRIES_A_SHOWN)
        size *= 2;
    return size;
}

static size_t bytes_of(uint32_t size) {
    return sizeof(struct client_entries) + size * sizeof(struct client_entry);
}

/* Of the hash, as clients choose their addresses. One for all tables. */
static uint64_t secret[2];

void client_table_init(struct client_table *table, uint32_t size) {
    if (!secret[0] && RAND_bytes((unsigned char *)secret, sizeof secret) != 1)
        secret[0] = 1; /* without randomness there is no TLS either */
    *table = (struct client_table){.shared = shared_memory_new(bytes_of(size)), .size = size};
}

static uint32_t hash(const uint8_t *address) {
    uint64_t half[2];
    unsigned __int128 product;

    memcpy(half, address, sizeof half);
    product = (unsigned __int128)(half[0] ^ secret[0]) * (half[1] ^ secret[1] ^ UINT64_C(0x9e3779b97f4a7c15));
    return (uint32_t)((uint64_t)(product >> 64) ^ (uint64_t)product);
}

/* The entry of an address, or the free one where it would be. There is always a free one. */
static struct client_entry *find(const struct client_table *table, const uint8_t *address) {
    uint32_t mask = table->size - 1, at = hash(address) & mask;
    struct client_entry *entry = table->shared->entry;

    while (entry[at].weight && memcmp(entry[at].address, address, sizeof entry[at].address) != 0)
        at = (at + 1) & mask;
    return &entry[at];
}

static int compare_weights(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

    return (a > b) - (a < b);
}

static uint64_t median_weight(const struct client_table *table, uint64_t *weights) {
    size_t count = 0;

    for (uint32_t i = 0; i < table->size; i++)
        if (table->shared->entry[i].weight)
            weights[count++] = table->shared->entry[i].weight;
    qsort(weights, count, sizeof *weights, compare_weights);
    return weights[count / 2];
}

/* Takes the median off all: at least half of the entries go. */
static void make_room(const struct client_table *table) {
    /* Both are the writer's own, once for all its tables: they have the same size. */
    static uint64_t *weights;
    static struct client_entry *old;
    struct client_entries *shared = table->shared;
    size_t bytes = table->size * sizeof *old;
    uint64_t median;

    if (!weights)
        weights = malloc(table->size * sizeof *weights);
    if (!old)
        old = malloc(bytes);
    if (!weights || !old)
        return; /* the table overfills a little: it is asked again with the next client */
    median = median_weight(table, weights);
    memcpy(old, shared->entry, bytes);
    memset(shared->entry, 0, bytes);
    shared->used = 0;
    shared->error += median;
    for (uint32_t i = 0; i < table->size; i++) {
        if (old[i].weight <= median)
            continue;
        old[i].weight -= median;
        *find(table, old[i].address) = old[i];
        shared->used++;
    }
}

static void count(const struct client_table *table, const uint8_t *address, uint64_t weight, uint64_t bytes,
                  uint64_t connections) {
    struct client_entries *shared = table->shared;
    struct client_entry *entry = find(table, address);

    if (!entry->weight) {
        if (shared->used >= CLIENT_TABLE_FILL(table->size)) {
            make_room(table);
            entry = find(table, address);
        }
        if (shared->used + 1 >= table->size) {
            shared->error += weight; /* there was no memory to make room with */
            return;
        }
        memcpy(entry->address, address, sizeof entry->address);
        entry->bytes = entry->connections = 0;
        shared->used++;
    }
    entry->weight += weight;
    entry->bytes += bytes;
    entry->connections += connections;
}

static void begin_change(struct client_entries *shared) {
    __atomic_store_n(&shared->sequence, shared->sequence | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void end_change(struct client_entries *shared) {
    __atomic_store_n(&shared->sequence, (shared->sequence | 1) + 1, __ATOMIC_RELEASE);
}

void client_table_take_over(struct client_table *table) {
    struct client_entries *shared = table->shared;

    begin_change(shared);
    shared->used = 0;
    for (uint32_t i = 0; i < table->size; i++)
        shared->used += shared->entry[i].weight > 0;
    end_change(shared);
}

void client_table_add(struct client_table *table, const struct address *client, uint64_t bytes, uint64_t connections) {
    struct in6_addr mapped = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
    const uint8_t *address;

    switch (client->sockaddr.any.sa_family) {
    case AF_INET:
        memcpy(&mapped.s6_addr[12], &client->sockaddr.ipv4.sin_addr, 4);
        address = mapped.s6_addr;
        break;
    case AF_INET6:
        address = client->sockaddr.ipv6.sin6_addr.s6_addr;
        break;
    default:
        return;
    }
    begin_change(table->shared);
    /* A connection weighs a little itself: who only shakes hands is seen too. */
    count(table, address, bytes + connections, bytes, connections);
    end_change(table->shared);
}

/* A copy of one moment. */
static void copy_entries(struct client_entries *copy, const struct client_table *table) {
    const struct client_entries *shared = table->shared;

    for (int tries = 0; tries < READ_TRIES; tries++) {
        uint32_t before = __atomic_load_n(&shared->sequence, __ATOMIC_ACQUIRE);

        memcpy(copy, shared, bytes_of(table->size));
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(before & 1) && before == __atomic_load_n(&shared->sequence, __ATOMIC_RELAXED))
            return;
    }
}

static int compare_addresses(const void *one, const void *other) {
    const struct client_entry *a = one, *b = other;

    return memcmp(a->address, b->address, sizeof a->address);
}

static int compare_busy(const void *one, const void *other) {
    const struct client_entry *a = one, *b = other;

    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? 1 : -1;
    return (a->connections < b->connections) - (a->connections > b->connections);
}

/* Makes one of several entries with the same address, which are neighbours. Returns how many are left. */
static size_t join(struct client_entry *entries, size_t length) {
    size_t joined = 0;

    for (size_t i = 0; i < length; i++) {
        if (joined && compare_addresses(&entries[joined - 1], &entries[i]) == 0) {
            entries[joined - 1].bytes += entries[i].bytes;
            entries[joined - 1].connections += entries[i].connections;
        } else {
            entries[joined++] = entries[i];
        }
    }
    return joined;
}

size_t client_table_top(const struct client_table *tables, size_t count_of_tables, struct client_entry *top,
                        size_t limit, uint64_t *error) {
    uint32_t size = count_of_tables ? tables[0].size : 0;
    struct client_entries *copy = malloc(bytes_of(size));
    struct client_entry *all = malloc((count_of_tables * size + 1) * sizeof *all);
    size_t length = 0;

    *error = 0;
    for (size_t t = 0; copy && all && t < count_of_tables; t++) {
        copy_entries(copy, &tables[t]);
        *error += copy->error;
        for (uint32_t i = 0; i < size; i++)
            if (copy->entry[i].weight)
                all[length++] = copy->entry[i];
    }
    if (length) {
        qsort(all, length, sizeof *all, compare_addresses);
        length = join(all, length);
        qsort(all, length, sizeof *all, compare_busy);
        if (length > limit)
            length = limit;
        memcpy(top, all, length * sizeof *all);
    }
    free(copy);
    free(all);
    return length;
}

const char *client_entry_format(const struct client_entry *entry, char *text) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    bool ipv4 = memcmp(entry->address, mapped, sizeof mapped) == 0;

    return inet_ntop(ipv4 ? AF_INET : AF_INET6, entry->address + (ipv4 ? 12 : 0), text, INET6_ADDRSTRLEN);
}
