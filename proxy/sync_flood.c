/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "sync_flood.h"

#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

/* Between two looks. To receive two thousand a second costs two thousandths of a CPU. */
#define MANY 200
/* So many looks without as much, and it is over. */
#define CALM 10

/* What a filter sees begins with the header of UDP. */
#define UDP_HEADER_BYTES 8
#define LENGTH           BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0)
#define BYTE(at)         BPF_STMT(BPF_LD | BPF_B | BPF_ABS, UDP_HEADER_BYTES + (at))
#define WORD(at)         BPF_STMT(BPF_LD | BPF_W | BPF_ABS, UDP_HEADER_BYTES + (at))
/* How many instructions are passed over if so, and if not. */
#define IF_EQUAL(value, so, otherwise)   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, so, otherwise)
#define IF_LESS(value, so, otherwise)    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, value, otherwise, so)
#define IF_SHORTER(bytes, so, otherwise) IF_LESS(UDP_HEADER_BYTES + (bytes), so, otherwise)
#define IF_LONGER(bytes, so, otherwise)  BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, UDP_HEADER_BYTES + (bytes), so, otherwise)
#define PASS_OVER(count)                 BPF_STMT(BPF_JMP | BPF_JA, count)
#define TAKE                             BPF_STMT(BPF_RET | BPF_K, UINT32_MAX)
#define DROP                             BPF_STMT(BPF_RET | BPF_K, 0)

#define DER_SEQUENCE 0x30
/* Of OpenSSL's SSL_SESSION: INTEGER 1, and the tag and length of another. */
#define SESSION_BEGINNING 0x02010102

/* Of a length that ours have, and begun as they are. */
static struct sock_filter sealed[] = {
    LENGTH,
    IF_SHORTER(SYNC_AROUND_BYTES, 6, 0),
    IF_LONGER(SYNC_PACKET_BYTES_MAX, 5, 0),
    WORD(0),
    IF_EQUAL((uint32_t)SYNC_MAGIC << 8 | SYNC_VERSION, 0, 3),
    WORD(SYNC_STREAM_AT),
    IF_LESS(SYNC_STREAMS, 0, 1),
    TAKE,
    DROP,
};

/* The same for stud's, where after the ID a session begins, with its length in no byte, one or two more. */
static struct sock_filter stud[] = {
    LENGTH,
    IF_SHORTER(STUD_AROUND_BYTES + 1, 13, 0),
    IF_LONGER(STUD_PACKET_BYTES, 12, 0),
    BYTE(SESSION_ID_MAX),
    IF_EQUAL(DER_SEQUENCE, 0, 10),
    BYTE(SESSION_ID_MAX + 1),
    IF_EQUAL(0x81, 3, 0),
    IF_EQUAL(0x82, 4, 0),
    WORD(SESSION_ID_MAX + 2),
    PASS_OVER(3),
    WORD(SESSION_ID_MAX + 3),
    PASS_OVER(1),
    WORD(SESSION_ID_MAX + 4),
    IF_EQUAL(SESSION_BEGINNING, 0, 1),
    TAKE,
    DROP,
};

/* By the system, since the socket was opened. */
static uint32_t count_dropped(const struct sync_flood *flood) {
    uint32_t numbers[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof numbers;

    getsockopt(flood->sync->fd, SOL_SOCKET, SO_MEMINFO, numbers, &size);
    return numbers[SK_MEMINFO_DROPS];
}

/* For reasons that the filter sees, too, or may see. */
static uint64_t count_refused(const struct sync_flood *flood) {
    const uint64_t *rejected = flood->sync->counters->rejected;

    return rejected[SYNC_truncated] + rejected[SYNC_oversized] + rejected[SYNC_not_ours] +
           rejected[SYNC_wrong_version] + rejected[SYNC_forged];
}

static void set_filter(struct sync_flood *flood, bool filtered) {
    const struct sock_fprog for_sealed = {sizeof sealed / sizeof *sealed, sealed},
                            for_stud = {sizeof stud / sizeof *stud, stud};
    bool is_stud = flood->sync->sharing.format == SHARING_STUD;
    int nothing = 0, fd = flood->sync->fd;

    if (filtered)
        setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, is_stud ? &for_stud : &for_sealed, sizeof for_sealed);
    else
        setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &nothing, sizeof nothing);
    flood->filtered = filtered;
    flood->calm_looks = 0;
}

void sync_flood_begin(struct sync_flood *flood, const struct session_sync *sync) {
    *flood = (struct sync_flood){.sync = sync};
    /* One that had our place before and died may have left it. */
    set_filter(flood, false);
    flood->dropped = count_dropped(flood);
    flood->refused = count_refused(flood);
}

void sync_flood_look(struct sync_flood *flood) {
    struct sync_counters *counters = flood->sync->counters;
    uint32_t dropped = count_dropped(flood) - flood->dropped;
    uint64_t refused = count_refused(flood) - flood->refused;

    flood->dropped += dropped;
    flood->refused += refused;
    /* The system does not say why. While the filter holds the rest off there is room for what it lets through. */
    sync_count(flood->filtered ? &counters->rejected[SYNC_flood] : &counters->datagrams_dropped, dropped);
    if (!flood->filtered && refused >= MANY)
        set_filter(flood, true);
    else if (flood->filtered && dropped >= MANY)
        flood->calm_looks = 0;
    else if (flood->filtered && ++flood->calm_looks == CALM)
        set_filter(flood, false);
}
