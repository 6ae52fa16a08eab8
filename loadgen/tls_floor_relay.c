/* SPDX-License-Identifier: MIT */
/*
 * Three processes: a client that speaks TLS, the relay, and the origin, joined by real sockets. They take turns,
 * through gates, with a round of transactions, one on each connection:
 *
 *     client  -- requests -->  relay  -- requests -->  origin  -- responses -->  relay  -- responses -->  client
 *
 * The relay's CPU clock is read around its two turns. When its turn comes, everything has arrived, so it asks the
 * kernel once for all connections, and then receives and sends once each way: no relay on this kernel does with less,
 * however busy it is. A message that does not fit into the sockets begins the next turn early, and then they run side
 * by side. Everybody serves the connections in the same order, so nobody waits for one that another has not come to.
 */
#define _GNU_SOURCE
#include "tls_floor_relay.h"

#include "address.h"
#include "clock.h"
#include "log.h"
#include "tls_credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONNECTIONS  50           /* as many as most cells of the scenarios have */
#define RECORD       (16 * 1024)  /* the largest plaintext of a record, RFC 8446 5.1 */
#define PIECE        (256 * 1024) /* moved at a time: more gains nothing, 64 KiB cost a fifth more for 1 MiB */
#define FLIGHT_BYTES (PIECE + 16 * 1024)

enum gate { TO_RELAY_WITH_REQUESTS, TO_ORIGIN, TO_RELAY_WITH_RESPONSES, TO_CLIENT, GATES };
enum role { CLIENT, RELAY, ORIGIN, ROLES };

/* Who opens each gate, and who waits at it. */
static const enum role opener[GATES] = {CLIENT, RELAY, ORIGIN, RELAY};
static const enum role waiter[GATES] = {RELAY, ORIGIN, RELAY, CLIENT};

static int gates[GATES][2];
/* Both ends of both sides of the relay; -1 where a process has closed what is another's. */
static int client_fd[CONNECTIONS], front_fd[CONNECTIONS], back_fd[CONNECTIONS], origin_fd[CONNECTIONS];
static pid_t peer[ROLES];
static enum role me = RELAY;
static char bytes[PIECE];

/* Records on their way to the client: OpenSSL writes here, and all of them leave in one send. */
static struct {
    size_t length;
    char bytes[FLIGHT_BYTES];
} flight;

/* ---- Whatever goes wrong ---- */

/* A peer that failed has said why. One that sees its relay gone has nothing left to do. */
_Noreturn static void lose_peer(void) {
    int status;

    if (me != RELAY)
        _exit(EXIT_MEASURED);
    if (wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILED)
        exit(EXIT_FAILED);
    fail(EXIT_FAILED, "relay: one of its peers ended");
}

_Noreturn static void fail_call(const char *what) {
    if (errno == EPIPE || errno == ECONNRESET)
        lose_peer();
    fail(EXIT_FAILED, "relay: %s: %s", what, strerror(errno));
}

_Noreturn static void fail_tls(const char *what) {
    unsigned long code = ERR_peek_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    fail(EXIT_FAILED, "relay: %s: %s", what, reason ? reason : "failed");
}

/* ---- Turns ---- */

static void open_gate(enum gate gate) {
    if (write(gates[gate][1], "", 1) != 1)
        fail_call("gate");
}

/* Opens it unless it was opened in this turn. */
static void open_once(enum gate gate, bool *opened) {
    if (!*opened)
        open_gate(gate);
    *opened = true;
}

static void wait_at(enum gate gate) {
    char byte;

    if (read(gates[gate][0], &byte, 1) != 1)
        lose_peer();
}

static void await(int fd, short events) {
    struct pollfd wanted = {.fd = fd, .events = events};

    if (poll(&wanted, 1, -1) < 0)
        fail_call("poll");
}

/* Sends all of it. Where the socket is full, the next turn begins: only its owner can make room. */
static void send_all(int fd, const char *from, size_t length, enum gate next, bool *opened) {
    while (length > 0) {
        ssize_t sent = send(fd, from, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            open_once(next, opened);
            await(fd, POLLOUT);
        } else if (sent < 0) {
            fail_call("send");
        } else {
            from += sent;
            length -= (size_t)sent;
        }
    }
}

/* As much as has come, 1 to size bytes. */
static size_t receive(int fd, char *into, size_t size) {
    for (;;) {
        ssize_t got = recv(fd, into, size, 0);
        if (got > 0)
            return (size_t)got;
        if (got == 0)
            lose_peer();
        if (errno != EAGAIN)
            fail_call("recv");
        await(fd, POLLIN);
    }
}

static size_t smaller(uint64_t left, size_t most) {
    return left < most ? (size_t)left : most;
}

/* ---- TLS ---- */

static int flight_write(BIO *bio, const char *from, int length) {
    (void)bio;
    if ((size_t)length > sizeof flight.bytes - flight.length)
        return -1;
    memcpy(flight.bytes + flight.length, from, (size_t)length);
    flight.length += (size_t)length;
    return length;
}

static long flight_control(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO *new_flight_bio(void) {
    static BIO_METHOD *method;
    BIO *bio;

    if (!method) {
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "floor flight");
        if (!method)
            fail_tls("BIO_meth_new");
        BIO_meth_set_write(method, flight_write);
        BIO_meth_set_ctrl(method, flight_control);
    }
    bio = BIO_new(method);
    if (!bio)
        fail_tls("BIO_new");
    BIO_set_init(bio, 1);
    return bio;
}

static SSL *new_side(SSL_CTX *context, int fd) {
    SSL *ssl = SSL_new(context);

    if (!ssl || SSL_set_fd(ssl, fd) != 1)
        fail_tls("SSL_new");
    SSL_set_options(ssl, SSL_OP_IGNORE_UNEXPECTED_EOF); /* a peer that ended has said why, or is done */
    return ssl;
}

/* After a call that did not succeed: what the socket must become ready for, or the end of the program. */
static short wanted_after(SSL *ssl, int returned, const char *what) {
    switch (SSL_get_error(ssl, returned)) {
    case SSL_ERROR_WANT_READ:
        return POLLIN;
    case SSL_ERROR_WANT_WRITE:
        return POLLOUT;
    case SSL_ERROR_SYSCALL:
    case SSL_ERROR_ZERO_RETURN:
        lose_peer();
    default:
        fail_tls(what);
    }
}

static size_t read_some(SSL *ssl, int fd, char *into, size_t size) {
    for (;;) {
        size_t got;
        ERR_clear_error();
        int done = SSL_read_ex(ssl, into, size, &got);
        if (done == 1)
            return got;
        await(fd, wanted_after(ssl, done, "read"));
    }
}

/* ---- Sockets ---- */

static void pair_unix(int ends[2]) {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        fail_call("socketpair");
}

static void pair_tcp(int listener, const struct address *address, int ends[2]) {
    ends[0] = address_connect(address);
    if (ends[0] < 0)
        fail_call("connect");
    await(listener, POLLIN);
    ends[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (ends[1] < 0)
        fail_call("accept");
    address_set_nodelay(ends[0]);
    address_set_nodelay(ends[1]);
}

static void make_sockets(bool unix_origin) {
    struct address address;
    int listener, ends[2];

    address_parse(&address, "127.0.0.1:0");
    if (!address_listen(&address, CONNECTIONS, &listener, 1))
        fail_call("listen");
    for (int i = 0; i < CONNECTIONS; i++) {
        pair_tcp(listener, &address, ends);
        client_fd[i] = ends[0];
        front_fd[i] = ends[1];
        if (unix_origin)
            pair_unix(ends);
        else
            pair_tcp(listener, &address, ends);
        back_fd[i] = ends[0];
        origin_fd[i] = ends[1];
    }
    close(listener);
    for (int i = 0; i < GATES; i++)
        if (pipe2(gates[i], O_CLOEXEC) != 0)
            fail_call("pipe");
}

/* Closes what belongs to others, so that the end of each process shows at the other ends. */
static void become(enum role role) {
    me = role;
    for (int i = 0; i < CONNECTIONS; i++) {
        if (role != CLIENT)
            close(client_fd[i]);
        if (role != ORIGIN)
            close(origin_fd[i]);
        if (role != RELAY) {
            close(front_fd[i]);
            close(back_fd[i]);
        }
    }
    for (int i = 0; i < GATES; i++) {
        if (waiter[i] != role)
            close(gates[i][0]);
        if (opener[i] != role)
            close(gates[i][1]);
    }
}

static void pin(const struct cpu_list *cpus, int index) {
    if (cpus->count && !cpu_list_pin(cpus, index))
        fail(EXIT_FAILED, "--cpus: %d: %s", cpus->cpu[index], strerror(errno));
}

/* ---- The peers ---- */

/* Nobody reads what it sends before the gate is open, so a socket that is full opens it. */
static void send_request(SSL *ssl, int fd, uint64_t total, bool *opened) {
    while (total > 0) {
        size_t written;
        ERR_clear_error();
        int done = SSL_write_ex(ssl, bytes, smaller(total, RECORD), &written);
        if (done == 1) {
            total -= written;
        } else {
            open_once(TO_RELAY_WITH_REQUESTS, opened);
            await(fd, wanted_after(ssl, done, "client: write"));
        }
    }
}

_Noreturn static void run_client(const struct relay_plan *plan) {
    static SSL *ssl[CONNECTIONS];

    for (int i = 0; i < CONNECTIONS; i++) {
        int done;
        ssl[i] = new_side(plan->client, client_fd[i]);
        while ((done = SSL_connect(ssl[i])) != 1)
            await(client_fd[i], wanted_after(ssl[i], done, "client: handshake"));
    }
    wait_at(TO_CLIENT);
    for (;;) {
        bool opened = false;
        for (int i = 0; i < CONNECTIONS; i++)
            send_request(ssl[i], client_fd[i], plan->request_bytes, &opened);
        open_once(TO_RELAY_WITH_REQUESTS, &opened);
        wait_at(TO_CLIENT);
        for (int i = 0; i < CONNECTIONS; i++)
            for (uint64_t left = plan->response_bytes; left > 0;)
                left -= read_some(ssl[i], client_fd[i], bytes, smaller(left, sizeof bytes));
    }
}

_Noreturn static void run_origin(const struct relay_plan *plan) {
    for (;;) {
        bool opened = false;
        wait_at(TO_ORIGIN);
        for (int i = 0; i < CONNECTIONS; i++)
            for (uint64_t left = plan->request_bytes; left > 0;)
                left -= receive(origin_fd[i], bytes, smaller(left, sizeof bytes));
        for (int i = 0; i < CONNECTIONS; i++)
            for (uint64_t left = plan->response_bytes; left > 0;) {
                size_t length = smaller(left, sizeof bytes);
                send_all(origin_fd[i], bytes, length, TO_RELAY_WITH_RESPONSES, &opened);
                left -= length;
            }
        open_once(TO_RELAY_WITH_RESPONSES, &opened);
    }
}

static void start_peer(enum role role, const struct relay_plan *plan) {
    peer[role] = fork();
    if (peer[role] < 0)
        fail_call("fork");
    if (peer[role] > 0)
        return;
    become(role);
    pin(plan->cpus, plan->cpus->count - 1);
    if (role == CLIENT)
        run_client(plan);
    run_origin(plan);
}

/* ---- The relay ---- */

struct relay {
    const struct relay_plan *plan;
    SSL *ssl[CONNECTIONS];
    int front, back; /* epoll: all clients, all origins; edge-triggered, so that nothing is ever set anew */
    uint64_t cpu_ns;
};

static void send_flight(int fd, bool *opened) {
    send_all(fd, flight.bytes, flight.length, TO_CLIENT, opened);
    flight.length = 0;
}

static int watch_all(const int *fds) {
    int set = epoll_create1(EPOLL_CLOEXEC);

    for (int i = 0; set >= 0 && i < CONNECTIONS; i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLET};
        if (epoll_ctl(set, EPOLL_CTL_ADD, fds[i], &event) != 0)
            fail_call("epoll_ctl");
    }
    if (set < 0)
        fail_call("epoll_create1");
    return set;
}

static void shake_hands(struct relay *relay) {
    for (int i = 0; i < CONNECTIONS; i++) {
        bool opened = true; /* the client reads by itself */
        int done;
        SSL *ssl = relay->ssl[i] = new_side(relay->plan->server, front_fd[i]);
        SSL_set0_wbio(ssl, new_flight_bio());
        do {
            ERR_clear_error();
            done = SSL_accept(ssl);
            send_flight(front_fd[i], &opened);
            if (done != 1)
                await(front_fd[i], wanted_after(ssl, done, "server: handshake"));
        } while (done != 1);
        relay->plan->check(ssl);
    }
}

static void relay_request(struct relay *relay, int i, bool *opened) {
    for (uint64_t left = relay->plan->request_bytes; left > 0;) {
        size_t got = read_some(relay->ssl[i], front_fd[i], bytes, smaller(left, sizeof bytes));
        send_all(back_fd[i], bytes, got, TO_ORIGIN, opened);
        left -= got;
    }
}

static void relay_response(struct relay *relay, int i, bool *opened) {
    for (uint64_t left = relay->plan->response_bytes; left > 0;) {
        size_t got = receive(back_fd[i], bytes, sizeof bytes), put = 0, written;
        while (put < got) {
            ERR_clear_error();
            if (SSL_write_ex(relay->ssl[i], bytes + put, smaller(got - put, RECORD), &written) != 1)
                fail_tls("server: write");
            put += written;
        }
        send_flight(front_fd[i], opened);
        left -= got;
    }
}

/*
 * A turn: what the kernel says is readable tells how many connections to serve, the order tells which. Data come in
 * that order too, and the kernel tells of each connection after its data came, so nothing is waited for in vain.
 */
static void take_turn(struct relay *relay, enum gate mine, enum gate next, int set,
                      void (*serve)(struct relay *relay, int i, bool *opened)) {
    struct epoll_event events[CONNECTIONS];
    bool opened = false;
    uint64_t before_ns;

    wait_at(mine);
    before_ns = process_cpu_ns();
    for (int served = 0; served < CONNECTIONS;) {
        int ready = epoll_wait(set, events, CONNECTIONS, -1);
        if (ready < 0)
            fail_call("epoll_wait");
        for (int i = 0; i < ready && served < CONNECTIONS; i++)
            serve(relay, served++, &opened);
    }
    relay->cpu_ns += process_cpu_ns() - before_ns;
    open_once(next, &opened);
}

static void run_round(struct relay *relay) {
    take_turn(relay, TO_RELAY_WITH_REQUESTS, TO_ORIGIN, relay->front, relay_request);
    take_turn(relay, TO_RELAY_WITH_RESPONSES, TO_CLIENT, relay->back, relay_response);
}

static uint64_t cpu_of_all(void) {
    uint64_t sum_ns = process_cpu_ns();

    for (int role = 0; role < ROLES; role++) {
        clockid_t clock;
        if (role != RELAY && clock_getcpuclockid(peer[role], &clock) == 0)
            sum_ns += clock_read_ns(clock);
    }
    return sum_ns;
}

/* Closed gates end the peers. */
static void end_peers(void) {
    for (int i = 0; i < GATES; i++)
        close(gates[i][opener[i] == RELAY ? 1 : 0]);
    for (int i = 0; i < CONNECTIONS; i++) {
        close(front_fd[i]);
        close(back_fd[i]);
    }
    for (int role = 0; role < ROLES; role++)
        if (role != RELAY)
            waitpid(peer[role], NULL, 0);
}

void tls_floor_relay(const struct relay_plan *plan, struct relay_cost *cost) {
    struct relay relay = {.plan = plan};
    uint64_t end_ns, begin_cpu_ns;

    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes to sockets without a flag against it */
    make_sockets(plan->unix_origin);
    start_peer(CLIENT, plan);
    start_peer(ORIGIN, plan);
    become(RELAY);
    pin(plan->cpus, 0);
    shake_hands(&relay);
    relay.front = watch_all(front_fd);
    relay.back = watch_all(back_fd);
    open_gate(TO_CLIENT); /* not before: a request read ahead with the last of a handshake would be no event */
    snprintf(cost->cipher, sizeof cost->cipher, "%s", SSL_get_cipher_name(relay.ssl[0]));
    snprintf(cost->group, sizeof cost->group, "%s", tls_group_name((int)SSL_get_negotiated_group(relay.ssl[0])));

    run_round(&relay); /* warms up */
    relay.cpu_ns = 0;
    begin_cpu_ns = cpu_of_all();
    end_ns = monotonic_ns() + plan->duration_ns;
    do {
        run_round(&relay);
        cost->ops += CONNECTIONS;
    } while (monotonic_ns() < end_ns);
    cost->all_cpu_ns = cpu_of_all() - begin_cpu_ns;
    cost->relay_cpu_ns = relay.cpu_ns;

    end_peers();
    close(relay.front);
    close(relay.back);
    for (int i = 0; i < CONNECTIONS; i++)
        SSL_free(relay.ssl[i]);
}
