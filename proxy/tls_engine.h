/* SPDX-License-Identifier: MIT */
#ifndef PROXY_TLS_ENGINE_H
#define PROXY_TLS_ENGINE_H
/*
 * The provider or ENGINE of OpenSSL that all the rest prefers. It holds for the whole process, not for a context, so a
 * configuration that is refused after it was taken up has to give it back.
 */

/*
 * Prefers the one of that name from here on, NULL: none. The one before is kept until it is known which of the two
 * stays. NULL, or one line that says why it is refused: nothing has changed then.
 */
const char *tls_engine_use(const char *name);

/* It stays, or the one before does. Nothing is done where tls_engine_use has changed nothing since. */
void tls_engine_keep(void);
void tls_engine_give_back(void);

#endif
