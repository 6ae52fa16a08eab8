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

/* OpenSSL's names are short. */
#define NAME_BYTES 64

/* One of the two, or nothing: what OpenSSL prefers by itself. */
struct choice {
    char name[NAME_BYTES];
    OSSL_PROVIDER *provider;
    ENGINE *engine;
};

/* What is in use, and what was before tls_engine_use, until one of them is let go of. */
static struct choice current, former;
static bool is_undecided;

#ifdef OPENSSL_NO_ENGINE
static ENGINE *find_engine(const char *name) {
    (void)name;
    return NULL;
}

static bool prefer_engine(ENGINE *engine) {
    (void)engine;
    return false;
}

static void stop_preferring_engine(ENGINE *engine) {
    (void)engine;
}

static void let_go_of_engine(ENGINE *engine) {
    (void)engine;
}
#else
static ENGINE *find_engine(const char *name) {
    ENGINE *engine;

    ENGINE_load_builtin_engines();
    engine = ENGINE_by_id(name);
    if (engine && ENGINE_init(engine) != 1) {
        ENGINE_free(engine);
        engine = NULL;
    }
    return engine;
}

static bool prefer_engine(ENGINE *engine) {
    return ENGINE_set_default(engine, ENGINE_METHOD_ALL) == 1;
}

static void stop_preferring_engine(ENGINE *engine) {
    ENGINE_unregister_RSA(engine);
    ENGINE_unregister_DSA(engine);
    ENGINE_unregister_DH(engine);
    ENGINE_unregister_EC(engine);
    ENGINE_unregister_RAND(engine);
    ENGINE_unregister_ciphers(engine);
    ENGINE_unregister_digests(engine);
    ENGINE_unregister_pkey_meths(engine);
    ENGINE_unregister_pkey_asn1_meths(engine);
}

static void let_go_of_engine(ENGINE *engine) {
    ENGINE_finish(engine);
    ENGINE_free(engine);
}
#endif

static bool find(struct choice *choice, const char *name) {
    *choice = (struct choice){0};
    if (strlen(name) >= sizeof choice->name)
        return false;
    snprintf(choice->name, sizeof choice->name, "%s", name);
    choice->provider = OSSL_PROVIDER_try_load(NULL, name, 1);
    if (!choice->provider)
        choice->engine = find_engine(name);
    return choice->provider || choice->engine;
}

static bool prefer(const struct choice *choice) {
    char wish[NAME_BYTES + 16] = "";

    /* Wished for, not required: what it does not have, the others do. */
    if (choice->provider)
        snprintf(wish, sizeof wish, "?provider=%s", choice->name);
    return EVP_set_default_properties(NULL, wish) == 1 && (!choice->engine || prefer_engine(choice->engine));
}

static void stop_preferring(const struct choice *choice) {
    if (choice->engine)
        stop_preferring_engine(choice->engine);
}

static void let_go(struct choice *choice) {
    if (choice->provider)
        OSSL_PROVIDER_unload(choice->provider);
    if (choice->engine)
        let_go_of_engine(choice->engine);
    *choice = (struct choice){0};
}

const char *tls_engine_use(const char *name) {
    struct choice next = {0};
    bool good;

    if (strcmp(current.name, name ? name : "") == 0)
        return NULL;
    tls_engine_keep();
    good = !name || find(&next, name);
    if (good) {
        stop_preferring(&current);
        good = prefer(&next);
        if (!good) {
            stop_preferring(&next);
            prefer(&current);
        }
    }
    ERR_clear_error(); /* an engine is found after a provider was not */
    if (!good) {
        let_go(&next);
        return tls_reason("--engine: %s: neither a provider nor an engine of that name can be used here",
                          name ? name : "none");
    }
    former = current;
    current = next;
    is_undecided = true;
    return NULL;
}

void tls_engine_keep(void) {
    if (is_undecided)
        let_go(&former);
    is_undecided = false;
}

void tls_engine_give_back(void) {
    if (!is_undecided)
        return;
    stop_preferring(&current);
    prefer(&former);
    let_go(&current);
    current = former;
    former = (struct choice){0};
    is_undecided = false;
    ERR_clear_error();
}
