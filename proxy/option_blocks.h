/* SPDX-License-Identifier: MIT */
#ifndef PROXY_OPTION_BLOCKS_H
#define PROXY_OPTION_BLOCKS_H
/* The blocks of the configuration file: frontend = { } and pem-file = { }, spelt as hitch has them. */
#include "options.h"
#include "settings.h"

extern const struct option_block frontend_block, certificate_block;

/* Where what they say is put, from here on. */
void option_blocks_fill(struct proxy_settings *settings);

/*
 * A frontend of one line: an address, or, with certificates of its own, HOST:PORT+FILE. NULL, or why it is refused. The
 * file's name is not copied.
 */
const char *frontend_parse(struct frontend *frontend, const char *text);

#endif
