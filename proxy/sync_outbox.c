/* SPDX-License-Identifier: MIT */
#include "sync_outbox.h"

#include "clock.h"
#include "sync_socket.h"

static struct writer new_batch(uint8_t *bytes) {
    return writer_of(bytes, SYNC_PACKET_BYTES - SYNC_AROUND_BYTES);
}

struct writer sync_outbox_writer(uint8_t *bytes, const uint8_t *addressee) {
    struct writer writer = new_batch(bytes);

    writer_bytes(&writer, addressee, SYNC_SENDER_BYTES);
    return writer;
}

void sync_outbox_widen(struct writer *writer) {
    writer->size = SYNC_PACKET_BYTES_MAX - SYNC_AROUND_BYTES;
}

void sync_outbox_narrow(struct writer *writer) {
    const size_t usual = SYNC_PACKET_BYTES - SYNC_AROUND_BYTES;

    writer->size = writer->length > usual ? writer->length : usual;
}

bool sync_outbox_init(struct sync_outbox *outbox, const struct session_sync *sync) {
    outbox->sync = sync;
    outbox->seal = EVP_CIPHER_CTX_new();
    outbox->batch = new_batch(outbox->bytes);
    outbox->before.length = 0;
    return outbox->seal && sync_cipher_set(outbox->seal, sync->keys, sync->id, true);
}

static size_t seal(struct sync_outbox *outbox, enum sync_stream stream, uint64_t date_us, const struct writer *messages,
                   uint8_t *datagram) {
    const struct session_sync *sync = outbox->sync;
    /* Drawn once, by whichever process: a nonce never comes twice. */
    struct sync_head head = {.stream = stream, .number = __atomic_fetch_add(&sync->next[stream], 1, __ATOMIC_SEQ_CST)};

    memcpy(head.sender, sync->id, sizeof head.sender);
    return sync_packet_seal(outbox->seal, &head, date_us ? date_us : realtime_ns() / 1000, messages->start,
                            messages->length, datagram);
}

void sync_outbox_count(const struct session_sync *sync, size_t length, int sent, int wanted) {
    struct sync_counters *counters = sync->counters;

    sync_count(&counters->datagrams_sent, (uint64_t)sent);
    sync_count(&counters->bytes_sent, (uint64_t)sent * length);
    sync_count(&counters->datagrams_unsent, (uint64_t)(wanted - sent));
}

void sync_outbox_beat(struct sync_outbox *outbox) {
    const struct session_sync *sync = outbox->sync;
    uint8_t datagram[SYNC_PACKET_BYTES_MAX];
    size_t length = seal(outbox, SYNC_TO_ALL, outbox->batch_date_us, &outbox->batch, datagram);

    outbox->batch = new_batch(outbox->bytes);
    outbox->before.length = 0;
    outbox->batch_date_us = 0;
    sync_outbox_count(sync, length, length ? sync_socket_send_all(sync->fd, &sync->sharing, datagram, length) : 0,
                      sync_socket_targets(&sync->sharing));
}

void sync_outbox_flush(struct sync_outbox *outbox) {
    if (outbox->batch.length)
        sync_outbox_beat(outbox);
}

void sync_outbox_add(struct sync_outbox *outbox, const struct sync_message *message, uint64_t born_us) {
    if (!sync_message_write(&outbox->batch, &outbox->before, message)) {
        sync_outbox_flush(outbox);
        sync_outbox_widen(&outbox->batch);
        if (!sync_message_write(&outbox->batch, &outbox->before, message))
            return; /* longer than any message that we make */
    }
    if (born_us && (!outbox->batch_date_us || born_us < outbox->batch_date_us))
        outbox->batch_date_us = born_us;
    if (outbox->batch.length > SYNC_PACKET_BYTES - SYNC_AROUND_BYTES)
        sync_outbox_flush(outbox);
}

void sync_outbox_reply(struct sync_outbox *outbox, const struct address *to, const struct writer *messages) {
    const struct session_sync *sync = outbox->sync;
    uint8_t datagram[SYNC_PACKET_BYTES_MAX];
    size_t length = seal(outbox, SYNC_TO_ONE, 0, messages, datagram);

    sync_outbox_count(sync, length, length && sync_socket_send(sync->fd, &sync->sharing, to, datagram, length), 1);
}
