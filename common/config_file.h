/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_CONFIG_FILE_H
#define TLSDYNO_CONFIG_FILE_H
/*
 * A configuration file: one option of the table a line, by its long name.
 *
 *   # a comment
 *   backend  = "[127.0.0.1]:8000"    # double quotes, in which \" and \\ stand for themselves; or single ones, or none
 *   pem-file = "a.pem"
 *   quiet    = yes
 *
 * A value that is empty, in quotes, leaves the option as it is: so stud writes what is not set. An option that may be a
 * block is one where its value begins with a brace, and then has lines of its own:
 *
 *   frontend = {
 *       port = 443
 *   }
 */
#include "options.h"

/*
 * Reads the file into the targets of the table. NULL if all is well, else one line that names file, line, key and
 * reason, valid until the next call. *text is what string options point into: the caller frees it when it needs them no
 * more. It is NULL after a refusal; what the lines before the refused one set stays set.
 */
const char *config_file_read(const struct option_table *table, const char *path, char **text);

/* The same from memory: length bytes of text, which is changed, with a zero after them; name is for the refusal. */
const char *config_file_parse(const struct option_table *table, const char *name, char *text, size_t length);

#endif
