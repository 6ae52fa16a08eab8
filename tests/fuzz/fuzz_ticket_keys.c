/* SPDX-License-Identifier: MIT */
/* The ticket-key file: whatever is in it, it is refused with a reason or gives keys that can be told apart. */
#include "ticket_key_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

static void check(int holds) {
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    /* A copy of its own size, so that a byte read behind it is seen. */
    char *bytes = malloc(length ? length : 1);
    struct ticket_key_list list;
    const char *reason;

    memcpy(bytes, input, length);
    reason = ticket_key_file_parse(&list, bytes, length);
    free(bytes);
    if (reason) {
        check(strlen(reason) > 0 && !strchr(reason, '\n'));
        return 0;
    }
    check(list.count >= 1 && list.count <= TICKET_KEYS_MAX);
    for (int i = 0; i < list.count; i++) {
        check(list.key[i].secret_bytes == 16 || list.key[i].secret_bytes == 32);
        for (int j = 0; j < i; j++)
            check(memcmp(list.key[i].name, list.key[j].name, TICKET_KEY_NAME_BYTES) != 0);
    }
    return 0;
}
