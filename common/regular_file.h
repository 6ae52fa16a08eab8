/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_REGULAR_FILE_H
#define TLSDYNO_REGULAR_FILE_H
#include <stdbool.h>
#include <stdio.h>

/*
 * Opens for reading what somebody named as a file. A FIFO, whose opening would wait for a writer, or a device, which
 * might never end, is refused: a program reads its files at a reload again. NULL with *why, valid until the next call.
 */
FILE *regular_file_open(const char *path, const char **why);

/* Whether a file that is not there could be made, and nothing is made. False with errno set. */
bool regular_file_can_be_made(const char *path);

#endif
