/* SPDX-License-Identifier: MIT */
#ifndef PROXY_PRIVILEGES_H
#define PROXY_PRIVILEGES_H
/*
 * Who serves the network is nobody of importance, and sees nothing of the file system. The master keeps its rights, so
 * that a reload can read keys that only root may read; it never reads a byte from the network.
 */
#include <stdbool.h>
#include <sys/types.h>

#define PRIVILEGES_GROUPS_MAX 256

struct privileges {
    const char *root; /* NULL: no chroot */
    bool change_user, change_group;
    uid_t uid;
    gid_t gid;
    int group_count;
    gid_t groups[PRIVILEGES_GROUPS_MAX];
};

/*
 * Looks the names up while that is still possible (each may be NULL, or a number). NULL, or one line that says why it
 * is refused, valid until the next call.
 */
const char *privileges_find(struct privileges *privileges, const char *user, const char *group, const char *root);

/* Becomes that, for ever. NULL, or what went wrong: then nothing may go on. */
const char *privileges_drop(const struct privileges *privileges);

#endif
