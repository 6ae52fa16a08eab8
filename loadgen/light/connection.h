/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LIGHT_CONNECTION_H
#define TLSDYNO_LIGHT_CONNECTION_H
/* A connection of the light engine: its socket, its records, its end. Contracts as in engine.h. */
#include "light.h"

bool connection_open(struct light_connection *connection, struct light_engine *engine, int fd, const char *server_name,
                     const struct session *session, void *owner);
enum stream_result connection_handshake(struct light_connection *connection);
enum stream_result connection_read(struct light_connection *connection, uint8_t *bytes, size_t size, size_t *got);
enum stream_result connection_write(struct light_connection *connection, const uint8_t *bytes, size_t length,
                                    size_t *put);
enum stream_result connection_end(struct light_connection *connection);
void connection_close(struct light_connection *connection);
int connection_release(struct light_connection *connection);

/* A record of ours, after those that are still to be sent. False: no memory. */
bool connection_queue(struct light_connection *connection, enum content_type type, const uint8_t *bytes, size_t length);

/* Queues a warning. NO_ALERT, or that it cannot be, or that the peer has provoked too many. */
enum alert connection_warn(struct light_connection *connection, enum alert alert);

#endif
