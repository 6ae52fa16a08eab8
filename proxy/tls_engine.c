/* SPDX-License-Identifier: MIT */
/* ENGINE is deprecated since OpenSSL 3.0; who has hardware with nothing newer still needs it. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "tls_engine.h"

#include "tls_reason.h"

#include <openssl/engine.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* OpenSSL's names are short; what is not in use cannot be asked of it, so we remember. */
static char used[64];

static bool use_provider(const char *name) {
    char wish[sizeof used + 16];
    OSSL_PROVIDER *provider = OSSL_PROVIDER_try_load(NULL, name, 1);

    if (!provider)
        return false;
    /* Wished for, not required: what it does not have, the others do. */
    snprintf(wish, sizeof wish, "?provider=%s", name);
    if (EVP_set_default_properties(NULL, wish) == 1)
        return true;
    OSSL_PROVIDER_unload(provider);
    return false;
}

static bool use_engine(const char *name) {
#ifdef OPENSSL_NO_ENGINE
    (void)name;
    return false;
#else
    ENGINE *engine;
    bool done;

    ENGINE_load_builtin_engines();
    engine = ENGINE_by_id(name);
    if (!engine)
        return false;
    done = ENGINE_init(engine) == 1;
    if (done && ENGINE_set_default(engine, ENGINE_METHOD_ALL) != 1) {
        ENGINE_finish(engine);
        done = false;
    }
    ENGINE_free(engine);
    return done;
#endif
}

const char *tls_engine_use(const char *name) {
    if (strcmp(used, name) == 0)
        return NULL;
    if (strlen(name) >= sizeof used || (!use_provider(name) && !use_engine(name))) {
        ERR_clear_error();
        return tls_reason("--engine: %s: neither a provider nor an engine of that name can be used here", name);
    }
    ERR_clear_error(); /* an engine is found after a provider was not */
    snprintf(used, sizeof used, "%s", name);
    return NULL;
}
