/* SPDX-License-Identifier: MIT */
/*
 * The light engine against a server that has the keys: the input says what the server sends in the clear, and it is
 * sealed with the connection's own keys. So each message of the handshake, and those after it, are reached by
 * mutations, in any order, and a session that came can be resumed. See enum action.
 */
#include "light_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

#define ACTIONS_MAX 64

static void act(struct wire *wire, uint8_t action, uint8_t hint, const uint8_t *bytes, size_t length) {
    switch (action % ACTIONS) {
    case ACTION_RECORD:
        wire_give_record(wire, hint, bytes, length);
        break;
    case ACTION_SPLIT: {
        size_t most = (size_t)hint + 1;
        for (size_t at = 0; at < length && wire->last != STREAM_ERROR; at += most) {
            wire_give_record(wire, CONTENT_HANDSHAKE, bytes + at, length - at < most ? length - at : most);
            wire_step(wire);
        }
        break;
    }
    case ACTION_FINISHED:
        wire_give_finished(wire);
        break;
    case ACTION_RAW:
        wire_give(wire, bytes, length);
        break;
    case ACTION_FIN:
        wire->fin = true;
        break;
    case ACTION_WRITE:
        wire->room = hint == 255 ? SIZE_MAX : (size_t)hint * 32;
        wire_write(wire, length * 64 + 1 > 65536 ? 65536 : length * 64 + 1);
        break;
    case ACTION_CLOSE_NOTIFY:
        wire_finish(wire);
        break;
    case ACTION_REOPEN:
        wire_reopen(wire);
        return;
    }
    wire_step(wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    struct wire wire;

    if (length < 1)
        return 0;
    wire_begin(&wire, *input++);
    length--;
    for (int i = 0; i < ACTIONS_MAX && length >= 4; i++) {
        uint8_t action = input[0], hint = input[1];
        size_t size = (size_t)input[2] << 8 | input[3];
        input += 4;
        length -= 4;
        if (size > length)
            size = length;
        act(&wire, action, hint, input, size);
        input += size;
        length -= size;
    }
    wire_end(&wire);
    return 0;
}
