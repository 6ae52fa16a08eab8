/* SPDX-License-Identifier: MIT */
/*
 * What comes from other hosts. The first byte says how the rest arrives: as it is; as messages that a peer has sealed,
 * to all or to us, so that what lies behind the seal is reached too; or in stud's format, signed or not.
 */
#include "clock.h"
#include "sync_inbox.h"
#include "units.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

enum arrival_kind { AS_IT_IS, SEALED_TO_ALL, SEALED_TO_ONE, STUD_AS_IT_IS, STUD_SIGNED, KINDS };

static struct session_sync sync, peer_sync;
static struct sync_outbox outbox, peer;
static struct sync_inbox inbox;

static void check(int holds) {
    if (!holds)
        abort();
}

static void take(const uint8_t *datagram, size_t length) {
    const struct address from = {.sockaddr.ipv4.sin_family = AF_INET, .length = sizeof(struct sockaddr_in)};
    uint64_t before = 0, after = 0, received = sync.counters->datagrams_received;

    for (int reason = 0; reason < SYNC_REJECTION_COUNT; reason++)
        before += sync.counters->rejected[reason];
    sync_inbox_take(&inbox, datagram, length, &from, realtime_ns() / 1000);
    for (int reason = 0; reason < SYNC_REJECTION_COUNT; reason++)
        after += sync.counters->rejected[reason];
    check(sync.counters->datagrams_received == received + 1 && after >= before);
}

/* As the peer would send it. */
static void take_sealed(enum sync_stream stream, const uint8_t *messages, size_t length) {
    uint8_t datagram[SYNC_PACKET_BYTES_MAX + SYNC_AROUND_BYTES], bytes[SYNC_PACKET_BYTES_MAX];
    struct sync_head head = {.stream = stream, .number = peer_sync.next[stream]++};
    struct writer writer = writer_of(bytes, sizeof bytes);

    if (stream == SYNC_TO_ONE)
        writer_bytes(&writer, sync.id, sizeof sync.id);
    writer_bytes(&writer, messages, length);
    if (writer.full)
        return;
    memcpy(head.sender, peer_sync.id, sizeof head.sender);
    take(datagram, sync_packet_seal(peer.seal, &head, realtime_ns() / 1000, bytes, writer.length, datagram));
}

/* We know the peer: it has proven that it is alive. */
static void meet(void) {
    uint8_t nonce[SYNC_NONCE_BYTES], bytes[100];
    const struct sync_message proof = {.kind = SYNC_PROOF, .nonce = nonce, .number = peer_sync.next[SYNC_TO_ALL]};
    struct writer writer = writer_of(bytes, sizeof bytes);

    sync_senders_nonce(&inbox.senders, peer_sync.id, monotonic_ns(), nonce);
    sync_message_write(&writer, NULL, &proof);
    take_sealed(SYNC_TO_ONE, bytes, writer.length);
    check(sync_senders_find(&inbox.senders, peer_sync.id) != NULL);
}

static void set_up(void) {
    static uint64_t next[] = {1, 1}, next_of_peer[] = {1, 1};

    sync = (struct session_sync){.store = session_store_new(100, SESSION_BYTES),
                                 .ticket_keys = ticket_keys_new(),
                                 .foreign_keys = foreign_keys_new(),
                                 .counters = sync_counters_new(),
                                 .lifetime_s = 3600,
                                 .id = "us",
                                 .next = next,
                                 .fd = -1};
    sync.keys = sync_keys_new(sync.secret);
    peer_sync = (struct session_sync){.keys = sync.keys, .id = "the peer", .next = next_of_peer, .fd = -1};
    check(sync.keys && sync_outbox_init(&outbox, &sync) && sync_outbox_init(&peer, &peer_sync) &&
          sync_inbox_init(&inbox, ev_loop_new(EVFLAG_AUTO), &sync, &outbox));
}

/* Everything but the signature is the fuzzer's. */
static void take_signed(const uint8_t *bytes, size_t length) {
    const struct stud_session whole = {.id = bytes,
                                       .id_length = SESSION_ID_MAX,
                                       .bytes = bytes + SESSION_ID_MAX,
                                       .length = length - SESSION_ID_MAX,
                                       .born_s = (uint32_t)(realtime_ns() / NS_PER_S)};
    uint8_t datagram[STUD_PACKET_BYTES];
    size_t made = length > SESSION_ID_MAX ? sync_stud_make(sync.stud_key, &whole, datagram) : 0;

    if (made)
        take(datagram, made);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    uint8_t *bytes;

    if (!sync.store)
        set_up();
    if (!length)
        return 0;
    /* A copy of its own size, so that a byte read behind it is seen. */
    bytes = malloc(length);
    memcpy(bytes, input + 1, --length);
    sync.sharing.format = input[0] % KINDS < STUD_AS_IT_IS ? SHARING_SEALED : SHARING_STUD;
    if (sync.sharing.format == SHARING_SEALED && !sync_senders_find(&inbox.senders, peer_sync.id))
        meet();
    switch (input[0] % KINDS) {
    case AS_IT_IS:
    case STUD_AS_IT_IS:
        take(bytes, length);
        break;
    case SEALED_TO_ALL:
        take_sealed(SYNC_TO_ALL, bytes, length);
        break;
    case SEALED_TO_ONE:
        take_sealed(SYNC_TO_ONE, bytes, length);
        break;
    case STUD_SIGNED:
        take_signed(bytes, length);
        break;
    }
    free(bytes);
    check(session_store_count(sync.store) <= 100);
    return 0;
}
