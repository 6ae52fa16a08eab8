/* SPDX-License-Identifier: MIT */
#ifndef PROXY_ALLOCATOR_H
#define PROXY_ALLOCATOR_H
/*
 * The TLS library's memory. A handshake makes many small allocations, of sizes that the last one has just freed. Each
 * size has a list of free pieces, the one freed last first; a worker has one thread, so there is nothing to lock, and
 * the size of a piece follows from where it lies, so it has no header.
 */
#include <stddef.h>

/*
 * OpenSSL allocates here from now on. To be called before it has allocated anything, else (or without address space for
 * it, or in a build with AddressSanitizer, which must see each piece) all stays with malloc; so it does with
 * TLSDYNO_PLAIN_MALLOC in the environment, for valgrind. Memory that was needed
 * once is kept for the next who needs it.
 */
void allocator_serve_tls(void);

/* As malloc, realloc and free; for the TLS library's functions and for tests. */
void *allocator_take(size_t size);
void *allocator_resize(void *piece, size_t size);
void allocator_return(void *piece);

#endif
