/* SPDX-License-Identifier: MIT */
#ifndef PROXY_MASTER_H
#define PROXY_MASTER_H
/* Owns the listening sockets, the workers and what they share. */
#include "settings.h"

/* Runs the proxy until it is told to stop: SIGTERM lets connections end, SIGINT does not. Returns the exit status. */
int master_run(const struct proxy_settings *settings);

#endif
