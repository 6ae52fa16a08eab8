/* SPDX-License-Identifier: MIT */
#ifndef PROXY_CLIENT_TABLE_H
#define PROXY_CLIENT_TABLE_H
/*
 * The busiest client addresses, in bounded memory however many there are: the algorithm of Misra and Gries for weighted
 * items. A hash table counts each address; when it is full, the median weight is taken off all, and who has none left
 * is forgotten: that costs a sort, once in so many new addresses as half the table holds.
 *
 * What an entry shows was really counted; what was forgotten of it before is at most the table's error, which is itself
 * at most two in CLIENT_TABLE_FILL of all that was counted, and 0 as long as there was room for all. So an address that
 * has moved more than the error is in the table for certain.
 *
 * A table is in shared memory, has one writer, and may be read at any time. It stays when its writer ends: the next
 * process of the same slot goes on with it. What decides which memory is touched is in each process's own memory, so
 * that nobody who can write into the table can lead another process out of it.
 */
#include "address.h"

#include <stddef.h>
#include <stdint.h>

struct client_entry {
    uint8_t address[16];  /* IPv6; IPv4 as ::ffff:a.b.c.d */
    uint64_t weight;      /* for who stays; 0: no entry */
    uint64_t bytes;       /* both ways, in the clear */
    uint64_t connections; /* ended ones */
};

/* In shared memory. */
struct client_entries {
    uint32_t sequence; /* odd while they are being changed */
    uint32_t used;
    uint64_t error;
    struct client_entry entry[];
};

/* A process's own. */
struct client_table {
    struct client_entries *shared;
    uint32_t size; /* entries: a power of two */
};

/* At which share of its size a table is full: below, chains of entries stay short. */
#define CLIENT_TABLE_FILL(size) ((size) / 4 * 3)

/* The size of a table that shows so many of its clients. */
uint32_t client_table_size(uint64_t shown);

/* Makes an empty table, before the processes that use it are forked. */
void client_table_init(struct client_table *table, uint32_t size);

/* In a process that is going to write: whoever did before may have been killed in the middle of a change. */
void client_table_take_over(struct client_table *table);

/* Counts. Addresses that are not IP (UNIX sockets) are not counted. */
void client_table_add(struct client_table *table, const struct address *client, uint64_t bytes, uint64_t connections);

/*
 * The busiest of several tables of one size together, the busiest first, at most limit of them. Returns how many;
 * *error is the sum of the tables' errors.
 */
size_t client_table_top(const struct client_table *tables, size_t count, struct client_entry *top, size_t limit,
                        uint64_t *error);

/* "192.0.2.1" or "2001:db8::1"; text holds INET6_ADDRSTRLEN bytes. Returns text. */
const char *client_entry_format(const struct client_entry *entry, char *text);

#endif
