/* SPDX-License-Identifier: MIT */
/* A provider of OpenSSL whose SHA-256 never works: whoever prefers it for one handshake is found out. */
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <stddef.h>

static void *new_context(void *provider) {
    (void)provider;
    return NULL;
}

static void free_context(void *context) {
    (void)context;
}

static int begin(void *context, const OSSL_PARAM *parameters) {
    (void)context, (void)parameters;
    return 0;
}

static int update(void *context, const unsigned char *bytes, size_t length) {
    (void)context, (void)bytes, (void)length;
    return 0;
}

static int final(void *context, unsigned char *digest, size_t *length, size_t size) {
    (void)context, (void)digest, (void)length, (void)size;
    return 0;
}

static int get_parameters(OSSL_PARAM *parameters) {
    OSSL_PARAM *block = OSSL_PARAM_locate(parameters, OSSL_DIGEST_PARAM_BLOCK_SIZE);
    OSSL_PARAM *digest = OSSL_PARAM_locate(parameters, OSSL_DIGEST_PARAM_SIZE);

    return (!block || OSSL_PARAM_set_size_t(block, 64)) && (!digest || OSSL_PARAM_set_size_t(digest, 32));
}

#define FUNCTION(number, function)                                                                                     \
    { number, (void (*)(void))(function) }

static const OSSL_DISPATCH sha256[] = {
    FUNCTION(OSSL_FUNC_DIGEST_NEWCTX, new_context),
    FUNCTION(OSSL_FUNC_DIGEST_FREECTX, free_context),
    FUNCTION(OSSL_FUNC_DIGEST_INIT, begin),
    FUNCTION(OSSL_FUNC_DIGEST_UPDATE, update),
    FUNCTION(OSSL_FUNC_DIGEST_FINAL, final),
    FUNCTION(OSSL_FUNC_DIGEST_GET_PARAMS, get_parameters),
    {0, NULL},
};

static const OSSL_ALGORITHM digests[] = {{"SHA2-256:SHA-256:SHA256", "provider=broken_provider", sha256, NULL},
                                         {NULL, NULL, NULL, NULL}};

static const OSSL_ALGORITHM *query(void *provider, int operation, int *no_cache) {
    (void)provider;
    *no_cache = 0;
    return operation == OSSL_OP_DIGEST ? digests : NULL;
}

static const OSSL_DISPATCH functions[] = {FUNCTION(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query), {0, NULL}};

int OSSL_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
                       void **provider) {
    static char context;

    (void)handle, (void)in;
    *out = functions;
    *provider = &context;
    return 1;
}
