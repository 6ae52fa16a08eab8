/* SPDX-License-Identifier: MIT */
#include "tls_context.h"

#include "client_verification.h"
#include "log.h"
#include "session_identity.h"
#include "tls_engine.h"
#include "tls_policy.h"
#include "tls_reason.h"
#include "tls_state.h"
#include "units.h"

#include <stdlib.h>
#include <string.h>

static int state_index = -1;

/*
 * A worker's own: what its contexts have to tell other hosts leaves together, and after a step in any of them. sync
 * NULL: nothing is told.
 */
static struct announcer announcer;

static void free_state(void *parent, void *state_of_context, CRYPTO_EX_DATA *data, int index, long number, void *user) {
    (void)parent, (void)data, (void)index, (void)number, (void)user;
    struct tls_state *state = state_of_context;

    if (!state)
        return;
    certificate_set_free(state->certificates);
    tls_tickets_free(&state->tickets);
    free(state);
}

struct tls_state *tls_state_of(const SSL_CTX *context) {
    return SSL_CTX_get_ex_data(context, state_index);
}

static struct tls_state *add_state(SSL_CTX *context) {
    struct tls_state *state = calloc(1, sizeof *state);

    if (state_index < 0)
        state_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_state);
    if (!state || state_index < 0 || !SSL_CTX_set_ex_data(context, state_index, state)) {
        free(state);
        return NULL;
    }
    return state;
}

static const char *set_up_resumption(SSL_CTX *context, struct tls_state *state, const struct proxy_settings *settings,
                                     struct session_store *store, struct ticket_keys *keys, struct session_sync *sync) {
    state->sessions = (struct tls_sessions){
        .store = store,
        .announcer = sync && store ? &announcer : NULL,
        .lifetime_s = settings->session_lifetime_ns / NS_PER_S,
        .stateless_tickets = settings->tickets != 0,
    };
    SSL_CTX_set_timeout(context, (long)state->sessions.lifetime_s);
    SSL_CTX_set_num_tickets(context, (settings->tickets || store) ? (size_t)settings->num_tickets : 0);
    tls_sessions_serve(&state->sessions, context);
    if (state->sessions.announcer)
        announcer.sync = sync;
    if (sync && store) {
        state->waits = (struct session_waits){
            .sync = sync, .announcer = &announcer, .stateless_tickets = state->sessions.stateless_tickets};
        session_waits_serve();
    }
    if (settings->tickets)
        return tls_tickets_serve(&state->tickets, context, settings->ticket_keys, keys,
                                 sync && sync->ticket_keys ? sync->foreign_keys : NULL);
    if (settings->ticket_keys)
        return "--ticket-keys: not together with --tickets off";
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    return NULL;
}

static const char *set_up_alpn(SSL_CTX *context, struct alpn *alpn, const char *list) {
    const char *reason = alpn_parse(alpn, list);

    if (!reason)
        alpn_serve(context, alpn);
    return reason;
}

/* The policy under which a session was begun is that under which it is resumed. */
static bool add_policy(struct session_identity *identity, const struct proxy_settings *settings) {
    const char *const lists[] = {settings->ciphers, settings->ciphersuites, settings->groups, settings->sigalgs};
    const struct tls_versions *versions = &settings->versions;
    const int numbers[] = {versions->min, versions->max, (int)versions->protos, versions->only_tls1,
                           versions->any_version};
    bool done = session_identity_add(identity, numbers, sizeof numbers);

    for (size_t i = 0; done && i < sizeof lists / sizeof *lists; i++)
        if (lists[i]) {
            const uint8_t which = (uint8_t)i;
            done =
                session_identity_add(identity, &which, 1) && session_identity_add(identity, lists[i], strlen(lists[i]));
        }
    return done;
}

/* Which sessions may be resumed here: among others, none that were begun without the certificate that is asked for. */
static const char *identify_sessions(SSL_CTX *context, struct tls_state *state, const struct proxy_settings *settings,
                                     const struct client_verification *verification) {
    struct session_identity identity = session_identity();

    if (settings->own_sessions &&
        (!add_policy(&identity, settings) || !certificate_set_identify(state->certificates, &identity)))
        return "out of memory";
    if (!certificate_set_divide_sessions(state->certificates, &identity) ||
        !client_verification_identify(verification, &identity))
        return "out of memory";
    SSL_CTX_set_session_id_context(context, identity.bytes, sizeof identity.bytes);
    return NULL;
}

static const char *set_up_verification(SSL_CTX *context, struct tls_state *state,
                                       const struct proxy_settings *settings) {
    struct client_verification verification;
    const char *reason = client_verification_read(&verification, settings->client_ca, settings->client_verify);

    if (!reason)
        reason = client_verification_use(&verification, context)
                     ? identify_sessions(context, state, settings, &verification)
                     : "out of memory";
    client_verification_free(&verification);
    return reason;
}

/* Before the session is looked up: SSL_CTX_set_client_hello_cb(3). It may be called again for the same ClientHello. */
static int client_hello(SSL *ssl, int *alert, void *user) {
    struct tls_state *state = user;

    if (!certificate_set_hello(state->certificates, ssl)) {
        *alert = SSL_AD_ILLEGAL_PARAMETER;
        return SSL_CLIENT_HELLO_ERROR;
    }
    return state->waits.sync ? session_waits_hello(&state->waits, ssl) : SSL_CLIENT_HELLO_SUCCESS;
}

static const char *set_up_server(SSL_CTX *context, const struct proxy_settings *settings, struct session_store *store,
                                 struct ticket_keys *keys, struct session_sync *sync) {
    struct tls_state *state = add_state(context);
    const char *reason = state ? tls_policy_apply(context, settings) : "out of memory";

    if (!reason && (settings->backend_ca || settings->backend_name))
        reason = tls_reason("--%s: only with --client", settings->backend_ca ? "ca" : "verify-name");
    if (!reason && settings->alpn)
        reason = set_up_alpn(context, &state->alpn, settings->alpn);
    if (!reason)
        reason = certificate_set_serve(&state->certificates, context, settings);
    if (!reason)
        reason = set_up_verification(context, state, settings);
    if (!reason)
        reason = set_up_resumption(context, state, settings, store, keys, sync);
    if (!reason && (state->waits.sync || certificate_set_divides_sessions(state->certificates)))
        SSL_CTX_set_client_hello_cb(context, client_hello, state);
    return reason;
}

const char *tls_context_new(SSL_CTX **made, const struct proxy_settings *settings, struct session_store *store,
                            struct ticket_keys *keys, struct session_sync *sync) {
    const char *reason;
    SSL_CTX *context;

    if (settings->client_role)
        return tls_context_new_client(made, settings);
    reason = tls_engine_use(settings->engine);
    if (reason)
        return reason;
    context = SSL_CTX_new(TLS_server_method());
    reason = context ? set_up_server(context, settings, store, keys, sync) : "out of memory";
    if (reason)
        SSL_CTX_free(context);
    else
        *made = context;
    return reason;
}

void tls_context_begin(SSL_CTX *context, struct worker_counters *counters, int slot, struct ev_loop *loop) {
    /* The context of a client has none. */
    struct tls_state *state = state_index >= 0 ? tls_state_of(context) : NULL;

    if (!state)
        return;
    state->sessions.counters = counters;
    if (announcer.sync && announcer.loop != loop && !announcer_begin(&announcer, loop))
        fail(EXIT_FAILED, "--shared-cache: the TLS library failed");
    if (state->waits.sync)
        session_waits_begin(&state->waits, loop, counters, slot);
}

void tls_context_prepare_server(SSL *ssl, ev_io *watcher) {
    SSL_set_app_data(ssl, watcher);
}

void tls_context_step_done(void) {
    if (announcer.sync)
        announcer_look(&announcer);
}
