/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_UNITS_H
#define TLSDYNO_UNITS_H
/* Numbers as people write them on a command line, in a configuration file and in a query string. */
#include <stdbool.h>
#include <stdint.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

/* The whole text must be a decimal number without sign; false (and *value untouched) if not, or if it does not fit. */
bool parse_uint(const char *text, uint64_t *value);

/* "250ms", "5s", "2m", "1h"; a bare number is seconds; a fraction is allowed ("1.5s"). At most 10 years. */
bool parse_duration_ns(const char *text, uint64_t *value_ns);

/* "100", "16k", "2m", "1g": powers of 1024. */
bool parse_size(const char *text, uint64_t *value_bytes);

#endif
