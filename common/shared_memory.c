/* SPDX-License-Identifier: MIT */
#include "shared_memory.h"

#include "log.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

void *shared_memory_new(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        fail(EXIT_FAILED, "shared memory: %zu bytes: %s", bytes, strerror(errno));
    return memory;
}
