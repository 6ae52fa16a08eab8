/* SPDX-License-Identifier: MIT */
#ifndef PROXY_MASTER_H
#define PROXY_MASTER_H
/*
 * Owns the listening sockets, the workers and what they share. On SIGHUP it makes a new configuration, all of it or
 * none: settings, certificates, keys, log file; then a new generation of workers, which take over the listening
 * sockets, while the old ones finish what they have.
 */
#include "settings.h"

/* Reads the settings anew. NULL and *settings, or why they are refused. */
typedef const char *settings_reader(struct proxy_settings **settings);

/*
 * Runs the proxy until it is told to stop: SIGTERM lets connections end, SIGINT does not. Owns the settings from here
 * on. Returns the exit status.
 */
int master_run(struct proxy_settings *settings, settings_reader *reread);

#endif
