/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_SHARED_MEMORY_H
#define TLSDYNO_SHARED_MEMORY_H
#include <stdbool.h>
#include <stddef.h>

/*
 * Zeroed memory that the processes forked from here on share with this one. Never freed: it lives as long as the
 * program. Exits with EXIT_FAILED if there is not enough.
 */
void *shared_memory_new(size_t bytes);

/*
 * False: the machine has not got so much memory, or does not give it, so that whoever asked for it can be refused.
 * Memory that nothing holds it to can be promised and not be there when it is written to.
 */
bool shared_memory_fits(size_t bytes);

/*
 * So much of it, from its beginning, is there for this process from now on, and not page by page as it is first used,
 * which costs several microseconds each time. A system that cannot do it does not.
 */
void shared_memory_populate(void *memory, size_t bytes);

#endif
