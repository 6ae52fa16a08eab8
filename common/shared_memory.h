/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_SHARED_MEMORY_H
#define TLSDYNO_SHARED_MEMORY_H
#include <stddef.h>

/*
 * Zeroed memory that the processes forked from here on share with this one. Never freed: it lives as long as the
 * program. Exits with EXIT_FAILED if there is not enough.
 */
void *shared_memory_new(size_t bytes);

#endif
