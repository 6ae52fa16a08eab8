/* SPDX-License-Identifier: MIT */
#include "whoami.h"

#include "address.h"
#include "ring.h"
#include "tls_credentials.h"
#include "tlvs.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

typedef int (*name_of_socket)(int fd, struct sockaddr *address, socklen_t *length);

static json_t *socket_name(int fd, name_of_socket name_of) {
    struct address address = {.length = sizeof address.sockaddr};
    char text[ADDRESS_TEXT_MAX];

    if (name_of(fd, &address.sockaddr.any, &address.length) != 0)
        return json_string("");
    return json_string(address_format(&address, text));
}

static void set_address(json_t *object, const char *key, const struct address *address) {
    char text[ADDRESS_TEXT_MAX];

    if (address->length)
        json_object_set_new(object, key, json_string(address_format(address, text)));
}

/* It was read before, so it is whole. */
static json_t *tell_header(const struct received_header *header) {
    struct proxy_protocol_fact fact;
    json_t *told = json_object();

    proxy_protocol_read(header->bytes, header->length, &fact);
    json_object_set_new(told, "version", json_integer(fact.version == PROXY_PROTOCOL_V1 ? 1 : 2));
    if (fact.version == PROXY_PROTOCOL_V2)
        json_object_set_new(told, "command", json_string(fact.local ? "LOCAL" : "PROXY"));
    set_address(told, "source", &fact.source);
    set_address(told, "destination", &fact.destination);
    json_object_set_new(told, "bytes", json_integer((json_int_t)header->length));
    if (fact.tlvs_at < fact.length)
        json_object_set_new(told, "tlvs", tlvs_tell(header->bytes + fact.tlvs_at, fact.length - fact.tlvs_at));
    return told;
}

static json_t *tell_ip(const struct prologue *prologue, enum prologue_kind kind) {
    bool has_family = kind == PROLOGUE_IP;
    int family = has_family ? prologue->ip[0] : AF_INET;
    char text[INET6_ADDRSTRLEN] = "";

    if (family != AF_UNSPEC)
        inet_ntop(family, prologue->ip + has_family, text, sizeof text);
    return json_string(text);
}

static json_t *tell_tls(SSL *ssl) {
    const char *server_name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    json_t *told = json_pack("{s:s,s:s,s:b}", "version", SSL_get_version(ssl), "cipher", SSL_get_cipher_name(ssl),
                             "resumed", SSL_session_reused(ssl));
    int group = (int)SSL_get_negotiated_group(ssl);

    if (group != NID_undef)
        json_object_set_new(told, "group", json_string(tls_group_name(group)));
    if (server_name)
        json_object_set_new(told, "server_name", json_string(server_name)); /* left out if it is no UTF-8 */
    return told;
}

static json_t *tell_service(const struct service_queue *service) {
    struct service_tally tally = service_queue_tally(service);
    double total_ms = (double)tally.total_ns * 1e-6;

    return json_pack("{s:s,s:I,s:I,s:I,s:f,s:f,s:f}", "model", service_queue_model(service)->text, "in_flight",
                     (json_int_t)tally.in_flight, "most_in_flight", (json_int_t)tally.most_in_flight, "served",
                     (json_int_t)tally.served, "total_ms", total_ms, "mean_ms",
                     tally.served ? total_ms / (double)tally.served : 0., "longest_ms",
                     (double)tally.longest_ns * 1e-6);
}

static json_t *tell(const struct whoami_facts *facts) {
    int fd = facts->stream->fd;
    json_t *told = json_object();

    json_object_set_new(told, "peer", socket_name(fd, getpeername));
    json_object_set_new(told, "local", socket_name(fd, getsockname));
    if (facts->prologue_kind == PROLOGUE_PROXY)
        json_object_set_new(told, "proxy", tell_header(facts->prologue->header));
    else if (facts->prologue_kind != PROLOGUE_NONE)
        json_object_set_new(told, "ip", tell_ip(facts->prologue, facts->prologue_kind));
    if (facts->stream->ssl)
        json_object_set_new(told, "tls", tell_tls(facts->stream->ssl));
    if (facts->service)
        json_object_set_new(told, "service", tell_service(facts->service));
    json_object_set_new(told, "worker_pid", json_integer(getpid()));
    json_object_set_new(told, "connections", json_integer((json_int_t)facts->connections));
    json_object_set_new(told, "requests", json_integer((json_int_t)facts->requests));
    if (ring_is_there())
        json_object_set_new(told, "io_uring", json_integer((json_int_t)facts->ring_requests));
    return told;
}

void whoami_write(char text[WHOAMI_BYTES_MAX], const struct whoami_facts *facts) {
    json_t *told = tell(facts);
    size_t length = json_dumpb(told, text, WHOAMI_BYTES_MAX - 2, JSON_REAL_PRECISION(9));

    json_decref(told);
    text[length] = '\n';
    text[length + 1] = '\0';
}
