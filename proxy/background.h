/* SPDX-License-Identifier: MIT */
#ifndef PROXY_BACKGROUND_H
#define PROXY_BACKGROUND_H
/*
 * Going to the background in two steps, so that the exit status of the process that was started tells whether the
 * program is up: all it has to say until then goes to where it was started from.
 */

/*
 * Goes on in a child, in a session of its own. The process that was started waits, and ends with status 0 when the
 * child calls background_ready, or with the child's own when it ends before. Keeps the working directory: the files
 * that a reload reads may be named relative to it.
 */
void background_start(void);

/* The program is up: standard input, output and error go nowhere from here on. */
void background_ready(void);

#endif
