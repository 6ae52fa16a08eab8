/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "pem_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int by_bytes(const void *one, const void *other) {
    const struct certificate_source *first = one, *second = other;

    return strcmp(first->file, second->file);
}

static const char *refuse(const char *folder, const char *why) {
    static char refusal[512];

    snprintf(refusal, sizeof refusal, "--pem-dir: %.255s: %s", folder, why);
    return refusal;
}

/* NULL, or why. What is no file, or not called as asked, is passed over. */
static const char *add(struct certificate_list *certificates, const char *folder, const char *name,
                       const char *pattern) {
    struct certificate_source source = {0};
    struct stat file;
    const char *reason;

    if (fnmatch(pattern ? pattern : "*", name, FNM_PERIOD) != 0)
        return NULL;
    if (asprintf(&source.owned, "%s/%s", folder, name) < 0)
        return "out of memory";
    source.file = source.owned;
    /* One that leads nowhere is for the reader of certificates to complain of. */
    if (stat(source.file, &file) == 0 && !S_ISREG(file.st_mode)) {
        free(source.owned);
        return NULL;
    }
    reason = certificate_list_add(certificates, &source);
    if (reason)
        free(source.owned);
    return reason;
}

const char *pem_folder_add(struct certificate_list *certificates, const char *folder, const char *pattern) {
    int before = certificates->count;
    const char *reason = NULL;
    const struct dirent *entry;
    DIR *open = opendir(folder);

    if (!open)
        return refuse(folder, strerror(errno));
    while (!reason && (errno = 0, entry = readdir(open)))
        reason = add(certificates, folder, entry->d_name, pattern);
    if (!reason && errno)
        reason = refuse(folder, strerror(errno));
    closedir(open);
    if (!reason && certificates->count == before)
        reason = refuse(folder, pattern ? "no file there is called like --pem-dir-glob" : "no file is there");
    if (!reason)
        qsort(certificates->source + before, (size_t)(certificates->count - before), sizeof *certificates->source,
              by_bytes);
    return reason;
}
