/* SPDX-License-Identifier: MIT */
#include "allocator.h"

#include <openssl/crypto.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Sizes up to SMALL_MAX in steps of STEP, then in steps of BIG_STEP; what is larger is malloc's. */
#define STEP      16
#define SMALL_MAX 1024
#define BIG_STEP  1024
#define BIG_MAX   (18 * 1024) /* a TLS record, its buffer and what libssl adds */

#define SMALL_CLASSES (SMALL_MAX / STEP)
#define CLASSES       (SMALL_CLASSES + (BIG_MAX - SMALL_MAX) / BIG_STEP)

/* Pieces of one size lie together in a slab. Address space is all that the region takes until it is used. */
#define SLAB_BYTES   (UINT64_C(64) * 1024)
#define REGION_BYTES (UINT64_C(16) * 1024 * 1024 * 1024)
#define SLABS        (REGION_BYTES / SLAB_BYTES)

struct free_piece {
    struct free_piece *next;
};

static char *region, *region_unused;
static uint8_t slab_class[SLABS];
static struct free_piece *free_pieces[CLASSES];

static unsigned class_of(size_t size) {
    if (size <= SMALL_MAX)
        return size ? (unsigned)((size - 1) / STEP) : 0;
    return SMALL_CLASSES + (unsigned)((size - SMALL_MAX - 1) / BIG_STEP);
}

static size_t bytes_of(unsigned class) {
    return class < SMALL_CLASSES ? (class + 1u) * STEP : SMALL_MAX + (class - SMALL_CLASSES + 1u) * BIG_STEP;
}

static bool is_ours(const void *piece) {
    return (uintptr_t)piece - (uintptr_t)region < REGION_BYTES && region;
}

static unsigned class_of_piece(const void *piece) {
    return slab_class[(size_t)((const char *)piece - region) / SLAB_BYTES];
}

/* The first pieces of a new slab: all of them, so that the next ones need only be taken. */
static void *take_slab(unsigned class) {
    size_t size = bytes_of(class);
    char *slab = region_unused;

    if (!region || (size_t)(slab - region) == REGION_BYTES)
        return NULL;
    region_unused += SLAB_BYTES;
    slab_class[(size_t)(slab - region) / SLAB_BYTES] = (uint8_t) class;
    for (size_t at = SLAB_BYTES / size * size; at > size; at -= size) {
        struct free_piece *piece = (struct free_piece *)(void *)(slab + at - size);
        piece->next = free_pieces[class];
        free_pieces[class] = piece;
    }
    return slab;
}

void *allocator_take(size_t size) {
    unsigned class;
    struct free_piece *piece;

    if (size > BIG_MAX)
        return malloc(size);
    class = class_of(size);
    piece = free_pieces[class];
    if (piece) {
        free_pieces[class] = piece->next;
        return piece;
    }
    piece = take_slab(class);
    return piece ? piece : malloc(size);
}

void allocator_return(void *piece) {
    struct free_piece *freed = piece;
    unsigned class;

    if (!is_ours(piece)) {
        free(piece);
        return;
    }
    class = class_of_piece(piece);
    freed->next = free_pieces[class];
    free_pieces[class] = freed;
}

void *allocator_resize(void *piece, size_t size) {
    size_t old;
    void *other;

    if (!piece)
        return allocator_take(size);
    if (!is_ours(piece))
        return realloc(piece, size);
    old = bytes_of(class_of_piece(piece));
    if (size <= old && size > old / 2)
        return piece;
    other = allocator_take(size);
    if (!other)
        return NULL;
    memcpy(other, piece, size < old ? size : old);
    allocator_return(piece);
    return other;
}

static void *take(size_t size, const char *file, int line) {
    (void)file, (void)line;
    return allocator_take(size);
}

static void *resize(void *piece, size_t size, const char *file, int line) {
    (void)file, (void)line;
    return allocator_resize(piece, size);
}

static void give_back(void *piece, const char *file, int line) {
    (void)file, (void)line;
    allocator_return(piece);
}

void allocator_serve_tls(void) {
    if (getenv("TLSDYNO_PLAIN_MALLOC"))
        return;
#ifndef __SANITIZE_ADDRESS__
    void *space = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (space == MAP_FAILED)
        return;
    region = region_unused = space;
#endif
    CRYPTO_set_mem_functions(take, resize, give_back);
}
