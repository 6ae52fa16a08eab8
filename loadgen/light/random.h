/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_RANDOM_H
#define TLSDYNO_LIGHT_RANDOM_H
#include <stddef.h>
#include <stdint.h>

/*
 * Bytes that differ from one call, process and run to the next, and cost next to nothing. They are not secret, as
 * nothing about a light connection is.
 */
void light_random(uint8_t *bytes, size_t length);

#endif
