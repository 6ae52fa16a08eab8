/* SPDX-License-Identifier: MIT */
#include "handshake_failure.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/sslerr.h>
#include <stddef.h>

static const struct {
    const char *name, *text;
} failures[] = {
#define X(name, text) {#name, text},
    HANDSHAKE_FAILURES(X)
#undef X
};

/* What libssl calls it, and what it means here. An alert of the peer is SSL_AD_REASON_OFFSET + its number. */
static const struct {
    int reason;
    enum handshake_failure failure;
} meanings[] = {
    {SSL_R_HTTP_REQUEST, HANDSHAKE_not_tls},
    {SSL_R_HTTPS_PROXY_REQUEST, HANDSHAKE_not_tls},
    {SSL_R_WRONG_VERSION_NUMBER, HANDSHAKE_not_tls}, /* of a record: the first bytes were not those of one */
    {SSL_R_UNEXPECTED_EOF_WHILE_READING, HANDSHAKE_peer_gone},
    {SSL_R_UNSUPPORTED_PROTOCOL, HANDSHAKE_unsupported_version},
    {SSL_R_UNKNOWN_PROTOCOL, HANDSHAKE_unsupported_version},
    {SSL_R_VERSION_TOO_LOW, HANDSHAKE_unsupported_version},
    {SSL_R_INAPPROPRIATE_FALLBACK, HANDSHAKE_unsupported_version},
    {SSL_R_NO_PROTOCOLS_AVAILABLE, HANDSHAKE_unsupported_version},
    {SSL_R_NO_SHARED_CIPHER, HANDSHAKE_no_shared_cipher},
    {SSL_R_NO_CIPHERS_SPECIFIED, HANDSHAKE_no_shared_cipher},
    {SSL_R_NO_SUITABLE_KEY_SHARE, HANDSHAKE_no_shared_group},
    {SSL_R_NO_SHARED_GROUPS, HANDSHAKE_no_shared_group},
    {SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, HANDSHAKE_no_shared_signature},
    {SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, HANDSHAKE_no_shared_signature},
    {SSL_R_NO_APPLICATION_PROTOCOL, HANDSHAKE_no_shared_alpn},
    {SSL_R_CALLBACK_FAILED, HANDSHAKE_refused_name},
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, HANDSHAKE_peer_certificate},
    {SSL_R_CERTIFICATE_VERIFY_FAILED, HANDSHAKE_peer_certificate},
    {SSL_AD_REASON_OFFSET + SSL_AD_BAD_CERTIFICATE, HANDSHAKE_alert_bad_certificate},
    {SSL_AD_REASON_OFFSET + SSL_AD_CERTIFICATE_EXPIRED, HANDSHAKE_alert_certificate_expired},
    {SSL_AD_REASON_OFFSET + SSL_AD_CERTIFICATE_UNKNOWN, HANDSHAKE_alert_certificate_unknown},
    {SSL_AD_REASON_OFFSET + SSL_AD_UNKNOWN_CA, HANDSHAKE_alert_unknown_ca},
    {SSL_AD_REASON_OFFSET + SSL_AD_HANDSHAKE_FAILURE, HANDSHAKE_alert_handshake_failure},
    {SSL_AD_REASON_OFFSET + SSL_AD_PROTOCOL_VERSION, HANDSHAKE_alert_protocol_version},
    {ERR_R_INTERNAL_ERROR, HANDSHAKE_internal},
    {ERR_R_MALLOC_FAILURE, HANDSHAKE_internal},
};

enum handshake_failure handshake_failure_of(unsigned long tls_error, int system_error) {
    int reason = ERR_GET_REASON(tls_error);

    if (!tls_error)
        return system_error == ENOMEM || system_error == ENOBUFS ? HANDSHAKE_internal : HANDSHAKE_peer_gone;
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
        if (meanings[i].reason == reason)
            return meanings[i].failure;
    return ERR_GET_LIB(tls_error) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET ? HANDSHAKE_alert_other
                                                                                   : HANDSHAKE_protocol;
}

const char *handshake_failure_name(enum handshake_failure failure) {
    return failures[failure].name;
}

const char *handshake_failure_text(enum handshake_failure failure) {
    return failures[failure].text;
}
