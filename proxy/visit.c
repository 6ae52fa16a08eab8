/* SPDX-License-Identifier: MIT */
#include "visit.h"

#include "log.h"
#include "units.h"
#include "worker.h"

/* Anybody can make handshakes fail, as often as he likes: one line a second tells as much as a thousand. */
static void tell_failure(const struct visit *visit) {
    static struct log_limit limit;
    char client[ADDRESS_TEXT_MAX], more[48] = "";
    uint64_t kept_back;

    if (!log_allowed(&limit, visit->ended_ns / NS_PER_S, &kept_back))
        return;
    if (kept_back)
        snprintf(more, sizeof more, " (and %llu more)", (unsigned long long)kept_back);
    log_info("client %s: handshake failed: %s: %s%s", address_format(visit->client, client),
             handshake_failure_name(visit->failure), handshake_failure_text(visit->failure), more);
}

void visit_ended(struct worker *worker, const struct visit *visit) {
    if (visit->failure != HANDSHAKE_NO_FAILURE) {
        stats_add(&worker->counters->handshake_failures[visit->failure], 1);
        tell_failure(visit);
    }
    if (worker->clients)
        client_table_add(worker->clients, visit->client, visit->bytes_from_client + visit->bytes_to_client, 1);
    access_log_write(&worker->access_log, visit);
}
