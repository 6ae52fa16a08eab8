/* SPDX-License-Identifier: MIT */
#ifndef PROXY_HANDSHAKE_FAILURE_H
#define PROXY_HANDSHAKE_FAILURE_H
/*
 * Why a TLS handshake did not come to its end, in the words of an operator. The peer is the client; with --client it is
 * the backend.
 */

/* X(name, text) */
#define HANDSHAKE_FAILURES(X)                                                                                          \
    X(timeout, "it took too long")                                                                                     \
    X(peer_gone, "the peer closed or reset the connection")                                                            \
    X(not_tls, "the peer spoke plain HTTP, or no TLS at all")                                                          \
    X(unsupported_version, "no protocol version in common")                                                            \
    X(no_shared_cipher, "no cipher in common")                                                                         \
    X(no_shared_group, "no key exchange group in common")                                                              \
    X(no_shared_signature, "no signature algorithm in common")                                                         \
    X(no_shared_alpn, "no application protocol in common")                                                             \
    X(refused_name, "the server name was refused")                                                                     \
    X(peer_certificate, "the peer's certificate was missing or refused")                                               \
    X(alert_bad_certificate, "alert of the peer: bad_certificate")                                                     \
    X(alert_certificate_expired, "alert of the peer: certificate_expired")                                             \
    X(alert_certificate_unknown, "alert of the peer: certificate_unknown")                                             \
    X(alert_unknown_ca, "alert of the peer: unknown_ca")                                                               \
    X(alert_handshake_failure, "alert of the peer: handshake_failure")                                                 \
    X(alert_protocol_version, "alert of the peer: protocol_version")                                                   \
    X(alert_other, "another alert of the peer")                                                                        \
    X(protocol, "the peer broke the protocol")                                                                         \
    X(internal, "the proxy's own trouble")

enum handshake_failure {
#define X(name, text) HANDSHAKE_##name,
    HANDSHAKE_FAILURES(X)
#undef X
        HANDSHAKE_FAILURE_COUNT,
    HANDSHAKE_NO_FAILURE = -1,
};

/*
 * From the first of OpenSSL's errors and errno, as a stream keeps them after STREAM_ERROR; both 0: the peer has ended
 * the connection without a word.
 */
enum handshake_failure handshake_failure_of(unsigned long tls_error, int system_error);

/* "no_shared_cipher"... */
const char *handshake_failure_name(enum handshake_failure failure);
const char *handshake_failure_text(enum handshake_failure failure);

#endif
