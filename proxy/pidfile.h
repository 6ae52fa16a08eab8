/* SPDX-License-Identifier: MIT */
#ifndef PROXY_PIDFILE_H
#define PROXY_PIDFILE_H
/*
 * A file with the number of the process. The process holds a lock on it, so a file that an earlier one left behind is
 * told from that of one that runs, whatever number it says.
 */

/* NULL, or why not: valid until the next call. The file is this process's own from here on, not its children's. */
const char *pidfile_write(const char *path);

/* NULL, or why it could not be written, as far as that can be said without doing it; valid until the next call. */
const char *pidfile_check(const char *path);

/* By the same process. */
void pidfile_remove(const char *path);

/* In a forked process: the file, and the lock on it, are its parent's alone. */
void pidfile_let_go(void);

#endif
