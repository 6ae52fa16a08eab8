/* SPDX-License-Identifier: MIT */
#include "ring.h"

#include "known_requests.h"
#include "log.h"

#include <errno.h>
#include <liburing.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

/*
 * Each seat has one request to receive, which goes on and on (multishot) and takes a buffer for all that comes. An
 * answer is a send that never waits: it is over when it is submitted, and has no completion unless it failed to send
 * all. That completion comes before those of whatever is received afterwards. So, when all completions were seen
 * before a submission and all since, the answers in it are known to be sent, or are known not to be: the next round
 * begins. Within one round, a seat that gets something after its answer was made leaves, since nobody knows how the
 * answer fared, and is not heard of before the next round.
 */

#define SEATS       1024
#define SUBMISSIONS 512

/* What is longer comes in several, and is no known request. */
#define BUFFERS      256
#define BUFFER_GROUP 0

/* So many with bytes that are not read yet by those who left, and nobody takes a seat. */
#define BUFFERS_HELD_MAX (BUFFERS / 2)

/* More than there can be: each buffer has one; each seat an end, a cancellation and a failure to send; and WATCH. */
#define COMPLETIONS 4096
_Static_assert(COMPLETIONS > BUFFERS + 3 * SEATS, "a completion without a place would come too late");

/* What a completion is about: the lowest bits of its user data, of which the others are the seat's address. */
enum about { RECEIVE, ANSWER, CANCEL, WATCH };
#define ABOUT_MASK 7u
_Static_assert(_Alignof(struct seat) > ABOUT_MASK, "the address leaves no room");

struct ring_buffer {
    char bytes[KNOWN_REQUEST_BYTES_MAX];
    size_t begin, end; /* if it is held */
    struct ring_buffer *next;
};

static struct {
    bool there;
    bool waited_in;      /* libev's waiting does come by here */
    bool watching;       /* the ring will tell when libev's own descriptors have something */
    bool watched;        /* it has told so */
    bool somebody_waits; /* for the next round */
    uint64_t round;
    struct io_uring uring;
    struct io_uring_buf_ring *free_buffers;
    struct seat *leaving;
    struct activities *activities;
    void (*left)(struct seat *seat);
    int buffers_held;
    int seats_taken;
    struct ring_buffer buffers[BUFFERS];
    ev_check check;
} ring;

/* That the system is busy or interrupts is no failure. Any other would be ours: the worker ends, and is replaced. */
static void must_work(int result) {
    if (result < 0 && result != -ETIME && result != -EINTR && result != -EAGAIN && result != -EBUSY)
        fail(EXIT_FAILED, "io_uring: %s", strerror(-result));
}

static struct io_uring_sqe *next_submission(void) {
    struct io_uring_sqe *submission;

    while (!(submission = io_uring_get_sqe(&ring.uring)))
        must_work(io_uring_submit(&ring.uring));
    return submission;
}

static void set_about(struct io_uring_sqe *submission, const struct seat *seat, enum about about) {
    io_uring_sqe_set_data64(submission, (uintptr_t)seat | about);
}

static void free_buffer(struct ring_buffer *buffer) {
    io_uring_buf_ring_add(ring.free_buffers, buffer->bytes, sizeof buffer->bytes,
                          (unsigned short)(buffer - ring.buffers), io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(ring.free_buffers, 1);
}

static void hold_buffer(struct seat *seat, struct ring_buffer *buffer, size_t length) {
    buffer->begin = 0;
    buffer->end = length;
    buffer->next = NULL;
    *(seat->first ? &seat->last->next : &seat->first) = buffer;
    seat->last = buffer;
    ring.buffers_held++;
}

static void free_first(struct seat *seat) {
    struct ring_buffer *buffer = seat->first;

    seat->first = buffer->next;
    free_buffer(buffer);
    ring.buffers_held--;
}

size_t ring_read(struct seat *seat, char *bytes, size_t size) {
    size_t got = 0;

    while (seat->first && got < size) {
        struct ring_buffer *buffer = seat->first;
        size_t length = buffer->end - buffer->begin < size - got ? buffer->end - buffer->begin : size - got;

        memcpy(bytes + got, buffer->bytes + buffer->begin, length);
        got += length;
        buffer->begin += length;
        if (buffer->begin == buffer->end)
            free_first(seat);
    }
    return got;
}

void ring_forget_received(struct seat *seat) {
    while (seat->first)
        free_first(seat);
}

static void receive(struct seat *seat) {
    struct io_uring_sqe *submission = next_submission();

    io_uring_prep_recv_multishot(submission, seat->fd, NULL, 0, 0);
    submission->flags |= IOSQE_BUFFER_SELECT;
    submission->buf_group = BUFFER_GROUP;
    set_about(submission, seat, RECEIVE);
    seat->receiving = true;
    seat->pending++;
}

static void cancel(struct seat *seat) {
    struct io_uring_sqe *submission = next_submission();

    io_uring_prep_cancel64(submission, (uintptr_t)seat | RECEIVE, 0);
    set_about(submission, seat, CANCEL);
    seat->pending++;
}

static void answer(struct seat *seat, const struct known_request *known) {
    struct io_uring_sqe *submission = next_submission();

    /* To wait for all, and not to wait at all: what cannot be sent at once is a failure that tells how much was. */
    io_uring_prep_send(submission, seat->fd, known->answer, known->answer_bytes,
                       MSG_NOSIGNAL | MSG_WAITALL | MSG_DONTWAIT);
    submission->flags |= IOSQE_CQE_SKIP_SUCCESS;
    set_about(submission, seat, ANSWER);
    seat->answer = known->answer;
    seat->answer_bytes = known->answer_bytes;
    seat->round = ring.round;
    seat->requests++;
    activity_mark(ring.activities, seat->activity);
}

void ring_leave(struct seat *seat) {
    if (seat->leaving)
        return;
    seat->leaving = true;
    seat->next_leaving = ring.leaving;
    ring.leaving = seat;
    if (seat->receiving)
        cancel(seat);
}

/* True if it was answered. */
static bool answer_received(struct seat *seat, struct ring_buffer *buffer, size_t length) {
    const struct known_request *known = known_requests_find(buffer->bytes, length);

    if (!known || !known->answer || known->length != length)
        return false;
    answer(seat, known);
    free_buffer(buffer);
    return true;
}

/* Bytes were received, or the receiving has ended: for want of buffers, with the connection, or as it was cancelled. */
static void on_received(struct seat *seat, int result, unsigned flags) {
    bool can_answer = !seat->leaving && seat->round < ring.round;

    if (!(flags & IORING_CQE_F_MORE)) {
        seat->receiving = false;
        seat->pending--;
    }
    if (flags & IORING_CQE_F_BUFFER) {
        struct ring_buffer *buffer = &ring.buffers[flags >> IORING_CQE_BUFFER_SHIFT];
        size_t length = result > 0 ? (size_t)result : 0;

        if (can_answer && seat->receiving && answer_received(seat, buffer, length))
            return;
        hold_buffer(seat, buffer, length);
    }
    ring_leave(seat);
}

static void on_not_sent(struct seat *seat, int result) {
    size_t sent = result > 0 ? (size_t)result : 0;

    seat->unsent = seat->answer + sent;
    seat->unsent_bytes = seat->answer_bytes - sent;
    ring_leave(seat);
}

static void on_cancelled(struct seat *seat, int result) {
    seat->pending--;
    if (result < 0 && seat->receiving) /* it was just about to go on, and could not be found */
        cancel(seat);
}

static void on_completion(const struct io_uring_cqe *completion) {
    uint64_t data = io_uring_cqe_get_data64(completion);
    struct seat *seat = (struct seat *)(uintptr_t)(data & ~(uint64_t)ABOUT_MASK);

    switch ((enum about)(data & ABOUT_MASK)) {
    case RECEIVE:
        on_received(seat, completion->res, completion->flags);
        break;
    case ANSWER:
        on_not_sent(seat, completion->res);
        break;
    case CANCEL:
        on_cancelled(seat, completion->res);
        break;
    case WATCH:
        ring.watched = true;
        break;
    }
}

static void stand_up(struct seat *seat) {
    ring.seats_taken--;
    seat->taken = false;
    ring.left(seat);
}

/* Those go of whom nothing more will be heard. */
static void let_leave(void) {
    struct seat *seat, *next = ring.leaving;

    ring.leaving = NULL;
    ring.somebody_waits = false;
    while ((seat = next)) {
        next = seat->next_leaving;
        if (seat->pending == 0 && seat->round < ring.round) {
            stand_up(seat);
            continue;
        }
        ring.somebody_waits |= seat->pending == 0;
        seat->next_leaving = ring.leaving;
        ring.leaving = seat;
    }
}

/* Here rather than where it was waited: libev knows what time it is, and its watchers can be changed. */
static void on_waited(struct ev_loop *loop, ev_check *check, int events) {
    (void)loop, (void)check, (void)events;
    const struct io_uring_cqe *completion;
    unsigned head, count = 0;

    io_uring_for_each_cqe(&ring.uring, head, completion) {
        on_completion(completion);
        count++;
    }
    io_uring_cq_advance(&ring.uring, count);
    if (ring.leaving)
        let_leave();
}

static void watch(int epoll_fd) {
    struct io_uring_sqe *submission = next_submission();

    /* Once: what is told again only when it happens again would leave what libev has not taken yet. */
    io_uring_prep_poll_add(submission, epoll_fd, EPOLLIN);
    set_about(submission, NULL, WATCH);
    ring.watching = true;
}

/* Submits, and waits until there is a completion. */
static void submit_and_wait(int timeout_ms) {
    struct __kernel_timespec timeout = {.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000LL};
    struct io_uring_cqe *first;

    if (io_uring_cq_ready(&ring.uring) > 0) /* they come before the next round */
        return;
    if (timeout_ms == 0 || ring.watched || ring.somebody_waits)
        must_work(io_uring_submit_and_get_events(&ring.uring));
    else
        must_work(io_uring_submit_and_wait_timeout(&ring.uring, &first, 1, timeout_ms < 0 ? NULL : &timeout, NULL));
    if (io_uring_sq_ready(&ring.uring) == 0) /* a system without memory takes some later */
        ring.round++;
}

int ring_wait(int epoll_fd, struct epoll_event *events, int events_max, int timeout_ms) {
    ring.waited_in = true;
    if (!ring.seats_taken)
        return epoll_pwait(epoll_fd, events, events_max, timeout_ms, NULL);
    if (!ring.watching)
        watch(epoll_fd);
    submit_and_wait(timeout_ms);
    if (!ring.watched)
        return 0;
    ring.watching = ring.watched = false;
    return epoll_pwait(epoll_fd, events, events_max, 0, NULL);
}

bool ring_sit_down(struct seat *seat, struct activity *activity, int fd) {
    if (!ring.there || !ring.waited_in || ring.seats_taken == SEATS || ring.buffers_held > BUFFERS_HELD_MAX)
        return false;
    ring.seats_taken++;
    *seat = (struct seat){.taken = true, .activity = activity, .fd = fd};
    receive(seat);
    return true;
}

bool ring_is_there(void) {
    return ring.there;
}

/* False if the system refuses. */
static bool add_buffers(void *memory) {
    struct io_uring_buf_reg group = {.ring_addr = (uintptr_t)memory, .ring_entries = BUFFERS, .bgid = BUFFER_GROUP};

    ring.free_buffers = memory;
    return memory != MAP_FAILED && io_uring_register_buf_ring(&ring.uring, &group, 0) == 0 &&
           io_uring_submit_and_get_events(&ring.uring) >= 0; /* some filters allow all but that */
}

void ring_open(struct activities *activities, void (*left)(struct seat *seat)) {
    struct io_uring_params params = {
        .flags =
            IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        .cq_entries = COMPLETIONS,
    };

    size_t size = BUFFERS * sizeof(struct io_uring_buf);
    void *memory; /* whole pages */

    if (io_uring_queue_init_params(SUBMISSIONS, &ring.uring, &params) != 0)
        return;
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!add_buffers(memory)) {
        io_uring_queue_exit(&ring.uring);
        if (memory != MAP_FAILED)
            munmap(memory, size);
        return;
    }
    io_uring_buf_ring_init(ring.free_buffers);
    io_uring_register_ring_fd(&ring.uring); /* cheaper; it does without too */
    for (int buffer = 0; buffer < BUFFERS; buffer++)
        free_buffer(&ring.buffers[buffer]);
    ring.activities = activities;
    ring.left = left;
    ring.there = true;
    ev_check_init(&ring.check, on_waited);
    ev_check_start(activities->loop, &ring.check);
    ev_unref(activities->loop);
}
