/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_OUTPUT_H
#define TLSDYNO_OUTPUT_H
/* A file that an option names, for results: "-" is standard output. */
#include <stdbool.h>
#include <stdio.h>

/* NULL is no file, and not standard output. */
bool output_is_stdout(const char *file);

/* Ends the program (EXIT_USAGE) if it cannot be written to. Better now than after the measurement. */
void output_check(const char *option, const char *file);

/*
 * Empties the file, or makes it. A named pipe must have somebody who reads it by now: it is not waited for. NULL, with
 * a line on standard error.
 */
FILE *output_open(const char *option, const char *file);

/* written: false if writing has failed already. False, with a line on standard error, if not all of it got there. */
bool output_close(const char *option, const char *file, FILE *out, bool written);

#endif
