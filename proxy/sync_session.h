/* SPDX-License-Identifier: MIT */
#ifndef PROXY_SYNC_SESSION_H
#define PROXY_SYNC_SESSION_H
/*
 * A session as it stands in a message. Two sessions of a host mostly differ in their IDs and secrets alone, so each is
 * told apart from the one before it in the same datagram:
 *
 *   length, 2 bytes | words as in the one before, at the same place, 1 | other words, 1 | these | words as in ...
 *
 * until there are so many bytes. A word has eight, the last one as many as are left. Before the first session of a
 * datagram there is none: any other datagram may be lost.
 */
#include "bytes.h"
#include "session_store.h"

struct sync_session {
    size_t length; /* 0: none */
    uint8_t bytes[SESSION_BYTES_MAX];
};

/* length: 1..SESSION_BYTES_MAX. before is not changed; NULL: there is none. Where there is no room, writer->full. */
void sync_session_write(struct writer *writer, const struct sync_session *before, const uint8_t *bytes, size_t length);

/* The session before becomes the next one. Where what is read is none, reader->failed, and there is none before. */
void sync_session_read(struct reader *reader, struct sync_session *before);

#endif
