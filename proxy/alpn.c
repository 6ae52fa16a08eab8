/* SPDX-License-Identifier: MIT */
#include "alpn.h"

#include "tls_reason.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

static bool holds(const struct alpn *alpn, const char *name, size_t length) {
    for (unsigned at = 0; at < alpn->length; at += 1u + alpn->wire[at])
        if (alpn->wire[at] == length && memcmp(alpn->wire + at + 1, name, length) == 0)
            return true;
    return false;
}

const char *alpn_parse(struct alpn *alpn, const char *list) {
    alpn->length = 0;
    for (const char *name = list;; name++) {
        size_t span, length;

        name += strspn(name, " \t");
        length = span = strcspn(name, ",");
        while (length > 0 && (name[length - 1] == ' ' || name[length - 1] == '\t'))
            length--;
        if (length == 0 || length > 255)
            return tls_reason("--alpn: %s: the name of a protocol has 1 to 255 bytes", list);
        for (size_t i = 0; i < length; i++)
            if (!isgraph((unsigned char)name[i]))
                return tls_reason("--alpn: %s: the name of a protocol has no blank in it, and nothing invisible", list);
        if (holds(alpn, name, length))
            return tls_reason("--alpn: %s: %.*s comes twice", list, (int)length, name);
        if (alpn->length + 1 + length > sizeof alpn->wire)
            return tls_reason("--alpn: more than %zu bytes", sizeof alpn->wire);
        alpn->wire[alpn->length] = (uint8_t)length;
        memcpy(alpn->wire + alpn->length + 1, name, length);
        alpn->length += 1 + (unsigned)length;
        name += span;
        if (!*name)
            return NULL;
    }
}

static int choose(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_length, const unsigned char *offered,
                  unsigned offered_length, void *user) {
    (void)ssl;
    const struct alpn *alpn = user;
    unsigned char *found;

    if (SSL_select_next_proto(&found, chosen_length, alpn->wire, alpn->length, offered, offered_length) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *chosen = found;
    return SSL_TLSEXT_ERR_OK;
}

#ifndef OPENSSL_NO_NEXTPROTONEG
static int show(SSL *ssl, const unsigned char **list, unsigned *length, void *user) {
    (void)ssl;
    const struct alpn *alpn = user;

    *list = alpn->wire;
    *length = alpn->length;
    return SSL_TLSEXT_ERR_OK;
}
#endif

/* Our list: hung on the context. */
static int list_index = -1;

void alpn_serve(SSL_CTX *context, const struct alpn *alpn) {
    SSL_CTX_set_alpn_select_cb(context, choose, (void *)(uintptr_t)alpn);
#ifndef OPENSSL_NO_NEXTPROTONEG
    if (list_index < 0)
        list_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    SSL_CTX_set_ex_data(context, list_index, (void *)(uintptr_t)alpn);
    SSL_CTX_set_next_protos_advertised_cb(context, show, (void *)(uintptr_t)alpn);
#endif
}

#ifndef OPENSSL_NO_NEXTPROTONEG
/* A client may choose what it was not shown. */
static bool is_ours(const SSL *ssl, const unsigned char *name, unsigned length) {
    const struct alpn *alpn = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), list_index);

    return alpn && holds(alpn, (const char *)name, length);
}
#endif

void alpn_agreed(const SSL *ssl, const unsigned char **name, unsigned *length) {
    SSL_get0_alpn_selected(ssl, name, length);
#ifndef OPENSSL_NO_NEXTPROTONEG
    if (*length)
        return;
    SSL_get0_next_proto_negotiated(ssl, name, length);
    if (*length && !is_ours(ssl, *name, *length))
        *length = 0;
#endif
}
