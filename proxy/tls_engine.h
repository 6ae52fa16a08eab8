/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TLS_ENGINE_H
#define PROXY_TLS_ENGINE_H

/*
 * Has the provider of that name (or, where there is none, the ENGINE, as long as the TLS library still has such) do the
 * cryptography that it can, for the whole process. The one that is in use already stays. NULL, or one line that says
 * why not.
 */
const char *tls_engine_use(const char *name);

#endif
