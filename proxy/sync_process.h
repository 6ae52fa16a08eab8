/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_PROCESS_H
#define PROXY_SYNC_PROCESS_H
/*
 * The process that takes what other hosts tell, and puts it into the store; it tells them of ticket keys, and answers
 * them. It alone reads the socket.
 */
#include "session_sync.h"
#include "sync_priority.h"

#include <ev.h>

/* Its whole life, after sync_priority_begin; returns its exit status. */
int sync_process_run(struct session_sync *sync, struct sync_priority *priority, struct ev_loop *loop);

#endif
