/* SPDX-License-Identifier: MIT */
#include "sharing.h"

#include "settings.h"
#include "tls_reason.h"
#include "units.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <string.h>

const char *const sharing_formats[] = {"sealed", "stud", NULL};

static const char *parse_udp(struct address *address, const char *text) {
    const char *reason = address_parse(address, text);

    if (!reason && address_is_local(address))
        return "not HOST:PORT";
    return reason;
}

const char *sharing_parse_own(struct sharing *sharing, const char *text) {
    sharing->on = true;
    return parse_udp(&sharing->own, text);
}

/* What the socket could send to nobody, or to nobody but itself. */
static const char *check_host(struct address address) {
    in_addr_t ipv4;

    address_unmap(&address);
    if (address_has_port_0(&address))
        return "port 0: nobody can be reached there";
    if (address.sockaddr.any.sa_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(&address.sockaddr.ipv6.sin6_addr) ? "not the address of a host" : NULL;
    ipv4 = address.sockaddr.ipv4.sin_addr.s_addr;
    return ipv4 == htonl(INADDR_ANY) || ipv4 == htonl(INADDR_BROADCAST) ? "not the address of a host" : NULL;
}

const char *sharing_parse_peer(struct sharing *sharing, const char *text) {
    struct address_list *peers = &sharing->peers;
    struct address *peer = &peers->address[peers->count];
    const char *reason;

    if (peers->count == ADDRESS_LIST_MAX)
        return "more than 16 peers";
    peers->count++;
    reason = parse_udp(peer, text);
    return reason ? reason : check_host(*peer);
}

/* The interface that has this IPv4 address, or 0. */
static unsigned find_interface(struct in_addr address) {
    struct ifaddrs *all, *one;
    unsigned found = 0;

    if (getifaddrs(&all) != 0)
        return 0;
    for (one = all; one && !found; one = one->ifa_next) {
        const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)(const void *)one->ifa_addr;
        if (ipv4 && ipv4->sin_family == AF_INET && ipv4->sin_addr.s_addr == address.s_addr)
            found = if_nametoindex(one->ifa_name);
    }
    freeifaddrs(all);
    return found;
}

/* stud's: a name, a number, an IPv4 address of the interface, or * for the system's choice. */
const char *sharing_parse_interface(struct sharing *sharing, const char *text) {
    const char *comma = strchr(text, ',');
    size_t length = comma ? (size_t)(comma - text) : strlen(text);
    char name[64], known[IF_NAMESIZE];
    struct in_addr ipv4;
    uint64_t number;

    sharing->interface_text = text;
    sharing->hops = 1;
    if (comma && (!parse_uint(comma + 1, &sharing->hops) || sharing->hops > 255))
        return "the hops after the comma are not a number up to 255";
    if (length == 0)
        return *text ? "no interface before the comma" : "must not be empty";
    if (length >= sizeof name)
        return "no such interface";
    memcpy(name, text, length);
    name[length] = '\0';
    if (strcmp(name, "*") == 0)
        sharing->interface = 0;
    else if (inet_pton(AF_INET, name, &ipv4) == 1)
        sharing->interface = find_interface(ipv4);
    else if (parse_uint(name, &number) && number <= UINT_MAX)
        sharing->interface = if_indextoname((unsigned)number, known) ? (unsigned)number : 0;
    else
        sharing->interface = if_nametoindex(name);
    return sharing->interface || strcmp(name, "*") == 0 ? NULL : "no such interface";
}

bool sharing_is_multicast(const struct address *address) {
    if (address->sockaddr.any.sa_family == AF_INET)
        return IN_MULTICAST(ntohl(address->sockaddr.ipv4.sin_addr.s_addr));
    return IN6_IS_ADDR_MULTICAST(&address->sockaddr.ipv6.sin6_addr);
}

/* An IPv6 socket sends to an IPv4 address as ::ffff:a.b.c.d. */
static void map_to_ipv6(struct address *address) {
    struct sockaddr_in ipv4 = address->sockaddr.ipv4;
    struct sockaddr_in6 *ipv6 = &address->sockaddr.ipv6;

    *ipv6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = ipv4.sin_port};
    ipv6->sin6_addr.s6_addr[10] = ipv6->sin6_addr.s6_addr[11] = 0xff;
    memcpy(ipv6->sin6_addr.s6_addr + 12, &ipv4.sin_addr, sizeof ipv4.sin_addr);
    address->length = sizeof *ipv6;
}

static const char *check_peer(const struct sharing *sharing, struct address *peer) {
    sa_family_t own = sharing->own.sockaddr.any.sa_family, family = peer->sockaddr.any.sa_family;
    char text[ADDRESS_TEXT_MAX];

    address_format(peer, text);
    if (sharing_is_multicast(&sharing->own))
        return address_is_equal(peer, &sharing->own)
                   ? NULL
                   : tls_reason("--shared-cache-peer: %s: not together with a multicast group", text);
    if (sharing_is_multicast(peer))
        return tls_reason("--shared-cache-peer: %s: a multicast group is given with --shared-cache", text);
    if (own == AF_INET6 && family == AF_INET && IN6_IS_ADDR_UNSPECIFIED(&sharing->own.sockaddr.ipv6.sin6_addr))
        map_to_ipv6(peer);
    else if (own != family)
        return tls_reason("--shared-cache-peer: %s: of another address family than --shared-cache", text);
    if (address_is_equal(peer, &sharing->own))
        return tls_reason("--shared-cache-peer: %s: this host's own --shared-cache", text);
    for (const struct address *earlier = sharing->peers.address; earlier < peer; earlier++)
        if (address_is_equal(peer, earlier))
            return tls_reason("--shared-cache-peer: %s: given twice", text);
    return NULL;
}

/* A group that is another one on each link, RFC 4291, 2.7. */
static bool is_of_one_link(const struct address *group) {
    const struct in6_addr *ipv6 = &group->sockaddr.ipv6.sin6_addr;

    return group->sockaddr.any.sa_family == AF_INET6 &&
           (IN6_IS_ADDR_MC_LINKLOCAL(ipv6) || IN6_IS_ADDR_MC_NODELOCAL(ipv6));
}

static const char *check_own(const struct sharing *sharing) {
    char text[ADDRESS_TEXT_MAX];

    if (!sharing_is_multicast(&sharing->own))
        return NULL;
    address_format(&sharing->own, text);
    if (address_has_port_0(&sharing->own))
        return tls_reason("--shared-cache: %s: port 0: a multicast group has the same port on all hosts", text);
    if (is_of_one_link(&sharing->own) && !sharing->interface)
        return tls_reason("--shared-cache: %s: a group of one link: give its interface with --shared-cache-if (-M)",
                          text);
    return NULL;
}

const char *sharing_check(struct proxy_settings *settings) {
    struct sharing *sharing = &settings->sharing;
    const char *needs = sharing->peers.count                ? "shared-cache-peer"
                        : sharing->interface_text           ? "shared-cache-if"
                        : sharing->key_file                 ? "shared-cache-key"
                        : sharing->pull_ns                  ? "shared-cache-pull"
                        : sharing->format != SHARING_SEALED ? "shared-cache-format"
                                                            : NULL;
    const char *reason;

    if (!sharing->on)
        return needs ? tls_reason("--%s: only with --shared-cache", needs) : NULL;
    if (settings->client_role)
        return "--shared-cache: not together with --client, which keeps no sessions";
    if (!settings->session_cache && (!settings->tickets || settings->ticket_keys))
        return "--shared-cache: nothing to share: there is neither a session cache nor a random ticket key";
    if (sharing->format == SHARING_STUD && settings->tickets)
        return "--shared-cache-format: stud: knows no ticket keys, so give --tickets off too";
    if (sharing->format == SHARING_STUD && sharing->pull_ns)
        return "--shared-cache-pull: not with --shared-cache-format stud";
    if (sharing->pull_ns && !settings->session_cache)
        return "--shared-cache-pull: there is no session cache";
    if (sharing->interface_text && !sharing_is_multicast(&sharing->own))
        return tls_reason("--shared-cache-if: %s: only where --shared-cache is a multicast group",
                          sharing->interface_text);
    reason = check_own(sharing);
    for (int i = 0; !reason && i < sharing->peers.count; i++)
        reason = check_peer(sharing, &sharing->peers.address[i]);
    return reason;
}
