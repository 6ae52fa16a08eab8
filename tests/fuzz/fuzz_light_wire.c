/* SPDX-License-Identifier: MIT */
/*
 * The light engine's receive path, as it is: the input is what comes over the wire after the ClientHello. Its first two
 * bytes choose the engine, the size of the pieces in which it comes, and whether there is room to send. Most of what
 * lies behind Finished is out of reach of mutations here; fuzz_light_sealed is for that.
 */
#include "light_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    static const size_t pieces[] = {0, 1, 3, 100};
    struct wire wire;

    if (length < 2)
        return 0;
    wire_begin(&wire, input[0]);
    wire.piece = pieces[input[1] % 4];
    if (input[1] & 4)
        wire.room = (size_t)(input[1] >> 3) * 16;
    wire_give(&wire, input + 2, length - 2);
    wire_step(&wire);
    wire.room = SIZE_MAX;
    wire_step(&wire);
    wire_write(&wire, 100);
    wire_finish(&wire);
    wire.fin = true;
    wire_step(&wire);
    wire_end(&wire);
    return 0;
}
