/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SLOWDOWN_H
#define PROXY_SLOWDOWN_H

/*
 * For tests of the regression gate only: `make PROXY_SLOWDOWN=N` builds a proxy that spends N per cent more CPU time on
 * a connection with its handshake, in a busy loop. Nothing of it is in any other build.
 */
#ifdef PROXY_SLOWDOWN
void slowdown_after_handshake(void);
#else
static inline void slowdown_after_handshake(void) {
}
#endif

#endif
