/* SPDX-License-Identifier: MIT */
#include "shared_memory.h"

#include "log.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *map(size_t bytes) {
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

bool shared_memory_fits(size_t bytes) {
    size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    void *memory = bytes <= machine ? map(bytes) : MAP_FAILED;

    return memory != MAP_FAILED && munmap(memory, bytes) == 0;
}

void shared_memory_populate(void *memory, size_t bytes) {
    (void)madvise(memory, bytes, MADV_POPULATE_WRITE);
}

void *shared_memory_new(size_t bytes) {
    void *memory = map(bytes);

    if (memory == MAP_FAILED)
        fail(EXIT_FAILED, "shared memory: %zu bytes: %s", bytes, strerror(errno));
    return memory;
}
