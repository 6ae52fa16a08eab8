/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_CLIENT_H
#define TLSDYNO_CLIENT_H
/*
 * One connection slot: it makes one connection after the other for as long as pacing lets it.
 *
 * client.c has its states, its watcher, its deadlines and the one end of every connection; client_open.c how a
 * connection comes about, client_transaction.c what is done with it, client_close.c how it is ended.
 */
#include "http_framing.h"
#include "session_policy.h"
#include "worker.h"

enum client_state {
    CLIENT_UNBORN,      /* the ramp has not come to it yet */
    CLIENT_IDLE,        /* no connection: the next one begins at once */
    CLIENT_WAITING,     /* no connection: the next one begins when an arrival is due (open loop) */
    CLIENT_BACKING_OFF, /* no connection: waits a little after an error */
    CLIENT_CONNECTING,
    CLIENT_HANDSHAKING,
    CLIENT_READY,     /* connected: the next transaction begins when an arrival is due (open loop) */
    CLIENT_SENDING,   /* part of a request is still to be sent; its response may have begun */
    CLIENT_RECEIVING, /* the request is sent */
    CLIENT_ENDING,    /* our close_notify is on its way */
    CLIENT_LINGERING, /* our side is closed: what the target still sends is read until it closes too */
    CLIENT_DONE,
};

struct client {
    struct worker *worker;
    TAILQ_ENTRY(client) others; /* of the list that it is in */
    struct client_list *list;   /* of the worker; NULL: none */
    enum client_state state;
    int index;    /* of all slots */
    int fd;       /* -1: none; owned by the engine while engine_open */
    int watched;  /* what the poller watches fd for */
    int spare_fd; /* -1: none; of its last connection, ended with RST, for its next */
    int spare_watched;
    bool engine_open; /* connection is in use */
    bool established; /* the handshake is done */
    void *connection; /* the engine's */
    int read_wants;   /* what the last read waits for */
    struct session_slot sessions;
    uint64_t attempts; /* connections begun: chooses the target, unless the slot stays with one */
    int target;        /* of this connection */
    uint64_t deadline_ns;
    unsigned failures; /* in a row: the back-off doubles */

    uint64_t connect_ns;   /* connect() was called */
    uint64_t connected_ns; /* the handshake began */
    uint64_t requests;     /* complete on this connection */

    /* The transaction at work. */
    bool has_arrival;      /* open loop: it has to account for the arrival */
    bool arrival_measured; /* it was due in the measured phase */
    uint64_t due_ns;       /* latencies are counted from here; closed loop: its first byte was handed to the engine */
    uint64_t taken_ns;     /* the work on it began */
    uint64_t sent_bytes;   /* of the request */
    uint64_t body_bytes;   /* of the response's body so far */
    bool answered;         /* the response has begun */
    struct http_framing framing;
};

/* Zeroed memory; index is the slot's among those of all workers. */
void client_init(struct client *client, struct worker *worker, int index);

/* The slot's life begins. */
void client_begin(struct client *client);

/* Something happened that the slot waited for. */
void client_ready(struct client *client);

/* An arrival is due, or none will be any more: for a slot in CLIENT_WAITING or CLIENT_READY. */
void client_wake(struct client *client);

/* Ends what has taken too long, begins again after a back-off. give_up: there is no more time for what is in flight. */
void client_check_deadline(struct client *client, uint64_t now_ns, bool give_up);

/* Frees all that the slot holds, at whatever moment. */
void client_end(struct client *client);

/* The engine's new session, for the slot (void *) that owns the connection. */
void client_session_arrived(void *client, void *session);

#endif
