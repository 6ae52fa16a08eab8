/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_PROCESS_H
#define PROXY_SYNC_PROCESS_H
/*
 * The process that shares sessions with other hosts: it tells them what workers announce, and puts what they tell into
 * the store. It alone reads the socket.
 */
#include "session_sync.h"

#include <ev.h>

/* Its whole life; returns its exit status. */
int sync_process_run(struct session_sync *sync, struct ev_loop *loop);

#endif
