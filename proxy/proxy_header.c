/* SPDX-License-Identifier: MIT */
#include "proxy_header.h"

#include "alpn.h"
#include "bytes.h"
#include "proxy_protocol.h"

#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* proxy-protocol.txt, section 2.2.1 and following. */
enum tlv {
    TLV_ALPN = 0x01,
    TLV_AUTHORITY = 0x02,
    TLV_SSL = 0x20,
    TLV_SSL_VERSION = 0x21,
    TLV_SSL_CN = 0x22,
    TLV_SSL_CIPHER = 0x23,
    TLV_SSL_SIG_ALG = 0x24,
    TLV_SSL_KEY_ALG = 0x25,
    TLV_SSL_GROUP = 0x26,
    TLV_SSL_CLIENT_CERT = 0x28, /* DER */
};
#define CLIENT_SSL       0x01
#define CLIENT_CERT_CONN 0x02 /* the certificate came in this connection's own handshake */
#define CLIENT_CERT_SESS 0x04 /* or in that of the session that it resumed */
#define NOT_VERIFIED     1    /* any number but 0, which is for a certificate that was verified */

static void put_tlv(struct writer *writer, enum tlv type, const void *bytes, size_t length) {
    writer_u8(writer, (uint8_t)type);
    writer_u16(writer, (uint16_t)length);
    writer_bytes(writer, bytes, length);
}

static void put_text(struct writer *writer, enum tlv type, const char *text) {
    if (text && *text)
        put_tlv(writer, type, text, strlen(text));
}

/* "SHA256", "RSA2048", "EC256": the names of the specification's examples. */
static void put_own_certificate(struct writer *writer, const X509 *certificate) {
    EVP_PKEY *key = X509_get0_pubkey(certificate);
    char name[32];
    int digest;

    if (X509_get_signature_info((X509 *)(uintptr_t)certificate, &digest, NULL, NULL, NULL) && digest != NID_undef)
        put_text(writer, TLV_SSL_SIG_ALG, OBJ_nid2sn(digest));
    switch (key ? EVP_PKEY_get_base_id(key) : NID_undef) {
    case EVP_PKEY_RSA:
    case EVP_PKEY_RSA_PSS:
        snprintf(name, sizeof name, "RSA%d", EVP_PKEY_get_bits(key));
        break;
    case EVP_PKEY_EC:
        snprintf(name, sizeof name, "EC%d", EVP_PKEY_get_bits(key));
        break;
    default:
        snprintf(name, sizeof name, "%s", key ? EVP_PKEY_get0_type_name(key) : "");
    }
    put_text(writer, TLV_SSL_KEY_ALG, name);
}

static void put_common_name(struct writer *writer, const X509 *certificate) {
    const X509_NAME *subject = X509_get_subject_name(certificate);
    int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1), length;
    unsigned char *name = NULL;

    if (index < 0)
        return;
    length = ASN1_STRING_to_UTF8(&name, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)));
    if (length > 0)
        put_tlv(writer, TLV_SSL_CN, name, (size_t)length);
    OPENSSL_free(name);
}

/* Left out if it does not fit: the rest is of use without it. */
static void put_certificate(struct writer *writer, const X509 *certificate) {
    unsigned char *der = NULL;
    int length = i2d_X509(certificate, &der);

    if (length > 0 && (size_t)length + 3 <= writer->size - writer->length)
        put_tlv(writer, TLV_SSL_CLIENT_CERT, der, (size_t)length);
    OPENSSL_free(der);
}

static void put_tls(struct writer *writer, SSL *ssl) {
    const X509 *client = SSL_get0_peer_certificate(ssl), *own = SSL_get_certificate(ssl);
    bool resumed = SSL_session_reused(ssl);
    int group = (int)SSL_get_negotiated_group(ssl);
    uint8_t flags = CLIENT_SSL;
    size_t begin;

    if (client)
        flags |= resumed ? CLIENT_CERT_SESS : CLIENT_CERT_CONN | CLIENT_CERT_SESS;
    writer_u8(writer, TLV_SSL);
    begin = writer_begin(writer, 2);
    writer_u8(writer, flags);
    writer_uint(writer, client ? (uint32_t)SSL_get_verify_result(ssl) : NOT_VERIFIED, 4);
    put_text(writer, TLV_SSL_VERSION, SSL_get_version(ssl));
    put_text(writer, TLV_SSL_CIPHER, SSL_get_cipher_name(ssl));
    if (group != NID_undef)
        put_text(writer, TLV_SSL_GROUP, SSL_group_to_name(ssl, group));
    /* A resumed handshake shows no certificate, and which one the first showed is not kept. */
    if (own && !resumed)
        put_own_certificate(writer, own);
    if (client) {
        put_common_name(writer, client);
        put_certificate(writer, client);
    }
    writer_end(writer, begin, 2);
}

static size_t make_version_2(char *bytes, const struct address *client, const struct address *own, bool authority,
                             SSL *ssl) {
    struct writer writer = writer_of((uint8_t *)bytes, PROXY_HEADER_BYTES_MAX);
    size_t fixed = proxy_protocol_header(bytes, PROXY_PROTOCOL_V2, client, own), rest;
    const unsigned char *alpn;
    unsigned int alpn_length;

    /* LOCAL, for a client on a UNIX socket: what follows would be ignored. */
    if (!ssl || fixed == PROXY_PROTOCOL_V2_FIXED)
        return fixed;
    writer.length = fixed;
    alpn_agreed(ssl, &alpn, &alpn_length);
    if (alpn_length)
        put_tlv(&writer, TLV_ALPN, alpn, alpn_length);
    if (authority)
        put_text(&writer, TLV_AUTHORITY, SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    put_tls(&writer, ssl);
    if (writer.full) /* no client's name is that long */
        return fixed;
    rest = writer.length - PROXY_PROTOCOL_V2_FIXED;
    bytes[PROXY_PROTOCOL_V2_LENGTH_AT] = (char)(rest >> 8);
    bytes[PROXY_PROTOCOL_V2_LENGTH_AT + 1] = (char)rest;
    return writer.length;
}

/* stud's --write-ip: the family as this host numbers it, in one octet, and the address in network order. */
static size_t make_ip(char *bytes, const struct address *client) {
    int family = client->sockaddr.any.sa_family;

    switch (family) {
    case AF_INET:
        memcpy(bytes + 1, &client->sockaddr.ipv4.sin_addr, 4);
        break;
    case AF_INET6:
        memcpy(bytes + 1, &client->sockaddr.ipv6.sin6_addr, 16);
        break;
    default:
        family = AF_UNSPEC;
    }
    bytes[0] = (char)family;
    return family == AF_INET ? 5 : family == AF_INET6 ? 17 : 1;
}

/* The four octets of the first stud; zeros for a client that has no IPv4 address. */
static size_t make_ipv4(char *bytes, const struct address *client) {
    memset(bytes, 0, 4);
    if (client->sockaddr.any.sa_family == AF_INET)
        memcpy(bytes, &client->sockaddr.ipv4.sin_addr, 4);
    return 4;
}

size_t proxy_header_make(char *bytes, enum proxy_header_kind kind, bool authority, const struct address *client,
                         int client_fd, SSL *ssl) {
    struct address own = {.length = sizeof own.sockaddr};

    if (kind == HEADER_IPV4)
        return make_ipv4(bytes, client);
    if (kind == HEADER_IP)
        return make_ip(bytes, client);
    /* Where the client really went: the frontend's own address may be a wildcard. */
    if (getsockname(client_fd, &own.sockaddr.any, &own.length) != 0)
        own.sockaddr.any.sa_family = AF_UNSPEC;
    address_unmap(&own);
    if (kind == HEADER_PROXY_V1)
        return proxy_protocol_header(bytes, PROXY_PROTOCOL_V1, client, &own);
    return make_version_2(bytes, client, &own, authority, ssl);
}

enum header_result proxy_header_receive(struct received_header **header, int fd, struct address *client) {
    struct proxy_protocol_fact fact;
    enum header_result result = received_header_take(header, fd, &fact);

    if (result == HEADER_OK && fact.source.length) {
        *client = fact.source;
        address_unmap(client);
    }
    return result;
}
