/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "privileges.h"

#include "units.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char refusal[512];

static const char *refuse(const char *option, const char *value, const char *why) {
    snprintf(refusal, sizeof refusal, "--%s: %.255s: %s", option, value, why);
    return refusal;
}

static const char *find_user(struct privileges *privileges, const char *user) {
    const struct passwd *entry = getpwnam(user);
    uint64_t number;

    if (!entry && parse_uint(user, &number) && number < UINT_MAX)
        entry = getpwuid((uid_t)number);
    if (!entry)
        return refuse("user", user, "there is no such user");
    privileges->change_user = privileges->change_group = true;
    privileges->uid = entry->pw_uid;
    privileges->gid = entry->pw_gid;
    privileges->group_count = PRIVILEGES_GROUPS_MAX;
    if (getgrouplist(entry->pw_name, entry->pw_gid, privileges->groups, &privileges->group_count) < 0)
        return refuse("user", user, "is in too many groups");
    return NULL;
}

static const char *find_group(struct privileges *privileges, const char *group) {
    const struct group *entry = getgrnam(group);
    uint64_t number;

    if (!entry && parse_uint(group, &number) && number < UINT_MAX)
        entry = getgrgid((gid_t)number);
    if (!entry)
        return refuse("group", group, "there is no such group");
    privileges->change_group = true;
    privileges->gid = entry->gr_gid;
    /* Asked for by name, it stands for those of the user. */
    privileges->groups[0] = entry->gr_gid;
    privileges->group_count = 1;
    return NULL;
}

static const char *check_root(const char *root) {
    struct stat file;

    if (stat(root, &file) != 0)
        return refuse("chroot", root, strerror(errno));
    return S_ISDIR(file.st_mode) ? NULL : refuse("chroot", root, strerror(ENOTDIR));
}

const char *privileges_find(struct privileges *privileges, const char *user, const char *group, const char *root) {
    const char *reason = NULL;

    *privileges = (struct privileges){.root = root};
    if (user)
        reason = find_user(privileges, user);
    if (!reason && group)
        reason = find_group(privileges, group);
    if (!reason && root)
        reason = check_root(root);
    if (!reason && (user || group || root) && geteuid() != 0)
        return refuse(user    ? "user"
                      : group ? "group"
                              : "chroot",
                      user    ? user
                      : group ? group
                              : root,
                      "only root can do that");
    return reason;
}

static const char *fail_at(const char *what) {
    snprintf(refusal, sizeof refusal, "%s: %s", what, strerror(errno));
    return refusal;
}

const char *privileges_drop(const struct privileges *privileges) {
    if (privileges->root && (chroot(privileges->root) != 0 || chdir("/") != 0))
        return fail_at("chroot");
    if (privileges->change_group && setgroups((size_t)privileges->group_count, privileges->groups) != 0)
        return fail_at("setgroups");
    if (privileges->change_group && setgid(privileges->gid) != 0)
        return fail_at("setgid");
    if (privileges->change_user && setuid(privileges->uid) != 0)
        return fail_at("setuid");
    /* Believed only when the way back is seen to be closed. */
    if (privileges->change_user && privileges->uid != 0 && (setuid(0) == 0 || seteuid(0) == 0 || setgid(0) == 0))
        return "setuid: root's rights can be regained";
    return NULL;
}
