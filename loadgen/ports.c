/* SPDX-License-Identifier: MIT */
#include "ports.h"

#include "log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The kernel's: TCP_TIMEWAIT_LEN, and with tcp_tw_reuse the second after which timestamps tell old from new. */
#define TIME_WAIT_NS        (60 * NS_PER_S)
#define TIME_WAIT_REUSED_NS NS_PER_S

static uint64_t port_range(void) {
    FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
    unsigned low = 0, high = 65535;

    if (!file)
        return 65536; /* refuse nothing that may work */
    if (fscanf(file, "%u %u", &low, &high) != 2 || high < low)
        low = 0, high = 65535;
    fclose(file);
    return high - low + 1;
}

static int tcp_tw_reuse(void) {
    FILE *file = fopen("/proc/sys/net/ipv4/tcp_tw_reuse", "r");
    int value = 0;

    if (!file)
        return 0;
    if (fscanf(file, "%d", &value) != 1)
        value = 0;
    fclose(file);
    return value;
}

/* tcp_tw_reuse: 0 never, 1 always, 2 on loopback. */
static uint64_t time_wait_ns(const struct plan *plan) {
    int reuse = tcp_tw_reuse();
    bool loopback = true;

    if (plan->close_how == CLOSE_RST)
        return 0;
    for (int i = 0; i < plan->targets; i++)
        loopback = loopback && address_is_loopback(&plan->target[i].address);
    return reuse == 1 || (reuse == 2 && loopback) ? TIME_WAIT_REUSED_NS : TIME_WAIT_NS;
}

static bool same_address(const struct address *one, const struct address *other) {
    return one->length == other->length && memcmp(&one->sockaddr, &other->sockaddr, one->length) == 0;
}

static uint64_t destinations(const struct plan *plan) {
    uint64_t count = 0;

    for (int i = 0; i < plan->targets; i++) {
        bool seen = false;
        for (int j = 0; j < i; j++)
            seen = seen || same_address(&plan->target[i].address, &plan->target[j].address);
        count += !seen;
    }
    return count;
}

uint64_t ports_capacity(const struct ports *ports) {
    return ports->range * ports->sources * ports->destinations; /* 2^16 x 2^32 x 2^6 at most */
}

uint64_t ports_in_time_wait(const struct ports *ports, double connections_per_s, uint64_t load_ns) {
    uint64_t ns = ports->time_wait_ns < load_ns ? ports->time_wait_ns : load_ns;

    return (uint64_t)(connections_per_s * (double)ns / 1e9);
}

static double connections_per_s(const struct plan *plan) {
    uint64_t each = plan->requests_per_connection;

    return each == UINT64_MAX ? 0 : plan->pacing.rate_per_s / (each ? (double)each : 1);
}

static uint64_t load_ns(const struct plan *plan) {
    uint64_t measured_ns = plan->duration_ns ? plan->duration_ns : UINT64_MAX / 4;

    if (plan->pacing.limit && plan->pacing.rate_per_s > 0) {
        double limit_ns = (double)plan->pacing.limit / plan->pacing.rate_per_s * 1e9;
        if (limit_ns < (double)measured_ns)
            measured_ns = (uint64_t)limit_ns;
    }
    return plan->pacing.ramp_ns + plan->warmup_ns + measured_ns;
}

void ports_check(const struct plan *plan) {
    const struct ports ports = {
        .range = port_range(),
        .sources = plan->source.count ? plan->source.count : 1,
        .destinations = destinations(plan),
        .time_wait_ns = time_wait_ns(plan),
    };
    uint64_t capacity = ports_capacity(&ports), closed;

    if (plan->unix_path)
        return;
    if (plan->connections > capacity)
        fail(EXIT_USAGE,
             "--connections: %" PRIu64 ": %" PRIu64 " local ports (net.ipv4.ip_local_port_range) x %" PRIu64
             " source address(es) x %" PRIu64 " target(s) allow %" PRIu64 " at a time (see --source)",
             plan->connections, ports.range, ports.sources, ports.destinations, capacity);
    closed = ports_in_time_wait(&ports, connections_per_s(plan), load_ns(plan));
    if (closed + plan->connections > capacity)
        log_info("warning: %.0f connections a second that keep their port for %" PRIu64
                 " s after the end (TIME_WAIT) need %" PRIu64 " ports with those in use, and %" PRIu64
                 " local ports (net.ipv4.ip_local_port_range) x %" PRIu64 " source address(es) x %" PRIu64
                 " target(s) are %" PRIu64 ": expect address_unavailable (see --source, --close rst)",
                 connections_per_s(plan), ports.time_wait_ns / NS_PER_S, closed + plan->connections, ports.range,
                 ports.sources, ports.destinations, capacity);
}
