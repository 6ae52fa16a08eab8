/* SPDX-License-Identifier: MIT */
#ifndef PROXY_PEM_FOLDER_H
#define PROXY_PEM_FOLDER_H
/* A folder with a certificate in each file. */
#include "settings.h"

/*
 * Adds its regular files (and links to such) whose names match the pattern (NULL: all), but those that begin with a
 * dot, in the order of their bytes. NULL, or one line that names the folder and says why it is refused, valid until the
 * next call; what was added by then stays.
 */
const char *pem_folder_add(struct certificate_list *certificates, const char *folder, const char *pattern);

#endif
