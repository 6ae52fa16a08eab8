/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SESSION_STORE_H
#define PROXY_SESSION_STORE_H
/*
 * TLS sessions that all workers share, found by session ID: a fixed number of slots in shared memory.
 *
 *   shard 0: lock | buckets -> chains of slots | least recently used <-> ... <-> most recently used
 *   shard 1: ...
 *
 * An ID belongs to the shard that its hash says, so workers rarely wait for each other. Every operation is O(1). When a
 * shard is full, the session that was used longest ago makes room. A worker that dies inside a shard costs the sessions
 * of that shard, never the lock.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SESSION_ID_MAX 32 /* RFC 5246, 7.4.1.2 */
/* An encoded session has some 200 bytes, and with it the certificate of the client where there is one. */
#define SESSION_BYTES                  512
#define SESSION_BYTES_WITH_CERTIFICATE 4096
#define SESSION_BYTES_MAX              SESSION_BYTES_WITH_CERTIFICATE

struct session_store;

/*
 * A store for at least so many sessions (> 0) of at most so many bytes each, in shared memory: made before the workers
 * are forked.
 */
struct session_store *session_store_new(uint64_t sessions, size_t session_bytes);

/*
 * In each process that is to use it, once. The memory of a store of usual size is there from now on; a large one takes
 * memory as it fills.
 */
void session_store_begin(const struct session_store *store);

enum session_put_result {
    SESSION_KEPT,
    SESSION_KEPT_FOR_EXPIRED, /* one that had expired made room */
    SESSION_KEPT_FOR_ANOTHER, /* one that could still have been resumed made room */
    /* Not kept: */
    SESSION_TOO_LARGE,
    SESSION_THERE_ALREADY, /* session_store_add and _withdraw only, and the others below session_store_add only */
    SESSION_WITHDRAWN,
    SESSION_NO_ROOM,
};

/*
 * Keeps a copy until expires_s; all times are CLOCK_REALTIME seconds. An older session of the same ID is replaced.
 */
enum session_put_result session_store_put(struct session_store *store, const uint8_t *id, size_t id_length,
                                          const uint8_t *bytes, size_t length, uint64_t now_s, uint64_t expires_s);

/*
 * The same for what another host says: a session that is there, or was withdrawn, stays as it is, and with spare, none
 * that is there makes room.
 */
enum session_put_result session_store_add(struct session_store *store, const uint8_t *id, size_t id_length,
                                          const uint8_t *bytes, size_t length, uint64_t now_s, uint64_t expires_s,
                                          bool spare);

/*
 * Copies the session into bytes (SESSION_BYTES_MAX) and returns its length and when it expires; 0 if it is not there,
 * or no longer because it had *expired at now_s. With take, it is gone afterwards.
 */
size_t session_store_get(struct session_store *store, const uint8_t *id, size_t id_length, uint8_t *bytes,
                         uint64_t now_s, bool take, bool *expired, uint64_t *expires_s);

enum session_presence {
    SESSION_NOT_THERE,
    SESSION_GOOD,
    SESSION_DEAD, /* withdrawn, or expired */
};

/* What is known of it; a session that is asked for in this way is used no later than before. */
enum session_presence session_store_look(struct session_store *store, const uint8_t *id, size_t id_length,
                                         uint64_t now_s);

/* True if it was there. */
bool session_store_remove(struct session_store *store, const uint8_t *id, size_t id_length);

/*
 * The session is dead, and is remembered as such until expires_s, so that session_store_add does not bring it back.
 * SESSION_THERE_ALREADY if it was there; else as session_store_put, as what is remembered takes a session's room.
 */
enum session_put_result session_store_withdraw(struct session_store *store, const uint8_t *id, size_t id_length,
                                               uint64_t now_s, uint64_t expires_s);

/* A session as it lies in the store: a copy. */
struct stored_session {
    uint64_t expires_s;
    size_t id_length, length;
    uint8_t id[SESSION_ID_MAX], bytes[SESSION_BYTES_MAX];
};

/*
 * The next session at or after the place *at (0: the first) that is good at now_s, of the next places places; *at is
 * the place after it then, or where to go on, or 0 when there are no more. What comes and goes meanwhile may be left
 * out. False: there was none.
 */
bool session_store_walk(struct session_store *store, uint64_t *at, uint32_t places, uint64_t now_s,
                        struct stored_session *session);

/* Sessions held now, expired ones that nobody asked for and withdrawn ones that are remembered included. */
uint64_t session_store_count(struct session_store *store);

#endif
