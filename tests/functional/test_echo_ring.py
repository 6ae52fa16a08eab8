"""Requests that repeat are answered through io_uring, and nobody notices but by what it costs. Every test looks at the
count in /whoami: what went through libev after all has shown nothing."""
import contextlib
import json
import os
import random
import resource
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import pytest
from echo_backends import LONG_S, Backend, ask, filling, is_closed, read_all, split_randomly, wait_until
from programs import is_alive, run

BEFORE_SEAT = 17  # the first request is not known yet; then sixteen are
SEATS = 1024
KNOWN_MAX = 512  # bytes of the longest request that can be known


@pytest.fixture(scope="module")
def has_io_uring():
    with Backend("http") as backend, backend.connect() as client:
        if "io_uring" not in whoami(client):
            pytest.skip("the system has no io_uring for us")


@pytest.fixture
def ring(has_io_uring, backend):
    return backend


def whoami(client):
    return json.loads(ask(client, "/whoami")[1])


def request(size, length=0):
    head = b"GET /?s=%d HTTP/1.1\r\nHost: x\r\n" % size
    return head + (b"X: %b\r\n" % (b"y" * (length - len(head) - 7)) if length else b"") + b"\r\n"


def answer(size):
    return (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size) + filling(size)


def exactly(client, length):
    received = bytearray()
    while len(received) < length:
        piece = client.recv(min(length - len(received), 1 << 18))
        assert piece, f"closed after {len(received)} of {length} bytes"
        received += piece
    return bytes(received)


def ask_known(client, times=1, size=100, length=0):
    for _ in range(times):
        client.sendall(request(size, length))
        assert exactly(client, len(answer(size))) == answer(size)


def take_seat(client, size=100, length=0):
    ask_known(client, BEFORE_SEAT + 2, size, length)


def end_stay(client, requests, least=1):
    """What a whoami shows that comes after so many requests."""
    facts = whoami(client)
    assert facts["requests"] == requests + 1
    assert least <= facts["io_uring"] < requests
    return facts["io_uring"]


def open_descriptors(backend):
    return len(os.listdir(f"/proc/{backend.workers()[0]}/fd"))


def test_thousands_of_requests_on_many_connections_are_answered_and_counted_as_without_it(ring):
    sizes = [0, 1, 100, 1024, 4000, 60_000]
    dice = random.Random(1)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(ring.connect()) for _ in range(40)]
        totals = [0] * len(clients)
        for _ in range(100):
            asked = [(number, dice.choice(sizes)) for number in range(len(clients)) if dice.random() < 0.9]
            for number, size in asked:
                clients[number].sendall(request(size))
                totals[number] += 1
            for number, size in asked:
                assert exactly(clients[number], len(answer(size))) == answer(size)
        for client, total in zip(clients, totals):
            end_stay(client, total, total // 2)


def test_every_request_is_counted_to_the_last_one(ring):
    with ring.connect() as client:
        total = 0
        for stay in 30, 18, 250, 17, 90:
            ask_known(client, stay)
            total += stay
            assert whoami(client)["requests"] == total + 1
            total += 1
        assert whoami(client)["io_uring"] == (30 - 17) + (18 - 16) + (250 - 16) + (17 - 16) + (90 - 16)


def test_a_unix_socket_takes_a_seat_too(has_io_uring, tmp_path):
    with Backend("sock", "-l", tmp_path / "echo.sock") as backend, backend.connect() as client:
        ask_known(client, 500, 3000)
        end_stay(client, 500, 480)


@pytest.mark.parametrize("pieces", [
    [request(100)[:5], request(100)[5:]],
    [request(100) * 2],
    [request(100) * 3 + request(100)[:20], request(100)[20:]],
    [request(100), b"GET /?s=7 HTTP/1.1\r\nX: never seen\r\n\r\n", request(100)],
    [request(100) + b"GET /?s=70000 HTTP/1.1\r\n\r\n" + request(100)],
    [request(100), b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000), request(100)],
    [request(100) * 400],
    [b"GET /?s=5&t=20 HTTP/1.1\r\n\r\n" + request(100)],
    [request(100)[:-2] + b"X: " + b"y" * 3000 + b"\r\n\r\n", request(100)],
    [b"\r\n\r\n" + request(100)],
], ids=["in two", "two", "three and a half", "with another between", "around a large one", "around a body", "hundreds",
        "after a delayed one", "long", "after empty lines"])
def test_what_is_not_just_one_known_request_ends_the_stay_and_nothing_is_lost(ring, pieces):
    def answers_to(client):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in [*pieces, b"GET /?s=3&C=1 HTTP/1.1\r\n\r\n"]:
            client.sendall(piece)
            time.sleep(0.01)
        return read_all(client)

    with Backend("http", "--io-uring", "off") as plain, plain.connect() as client:
        expected = answers_to(client)
    for stays in 0, 2:
        with ring.connect() as client:
            for stay in range(stays):
                take_seat(client)
                end_stay(client, stay * (BEFORE_SEAT + 3) + BEFORE_SEAT + 2)
            take_seat(client)
            assert answers_to(client) == expected


def test_stays_that_end_anywhere_keep_order_and_bytes(ring):
    dice = random.Random(7)
    others = [(b"GET /?s=5&t=1 HTTP/1.1\r\n\r\n", answer(5)),
              (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab",
               answer(2).replace(b"text/plain", b"application/octet-stream")[:-2] + b"ab"),
              *[(request(size), answer(size)) for size in (0, 100, 60_000)]]
    with ring.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        total = 0
        for turn in range(30):
            take_seat(client)
            story = [dice.choice(others) for _ in range(dice.randint(1, 60))]
            sender = threading.Thread(target=lambda: [client.sendall(piece) for piece in split_randomly(
                b"".join(asked for asked, _ in story), turn, 200)], daemon=True)
            sender.start()
            expected = b"".join(told for _, told in story)
            assert exactly(client, len(expected)) == expected
            sender.join(LONG_S)
            total += BEFORE_SEAT + 2 + len(story)
        end_stay(client, total, 30)


@pytest.mark.parametrize("apart, length", [(True, 0), (False, 0), (False, KNOWN_MAX)],
                         ids=["apart", "at once", "at once, each fills a buffer"])
def test_answers_are_whole_and_in_order_for_a_client_who_reads_late(ring, apart, length):
    """The server's socket is full in the midst of an answer: what was not sent is sent by libev. A request that fills a
    buffer of the ring comes by itself though others follow at once."""
    size, count = 60_000, 300
    with ring.connect(receive_buffer=1 << 14) as client:
        for turn in 1, 2, 3:
            take_seat(client, size, length)
            if apart:
                for _ in range(count):
                    client.sendall(request(size))
                    time.sleep(0.001)
            else:
                client.sendall(request(size, length) * count)
            for _ in range(count):
                assert exactly(client, len(answer(size))) == answer(size)
        end_stay(client, 3 * (BEFORE_SEAT + 2 + count), 6)


def test_a_client_that_ends_its_sending_gets_its_answer(ring):
    for count in 0, 1, 2:
        with ring.connect() as client:
            take_seat(client)
            client.sendall(request(100) * count)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == answer(100) * count


def test_clients_that_reset_or_vanish_leave_nothing_behind(ring):
    with ring.connect() as client:
        whoami(client)
        before = open_descriptors(ring) - 1
    for turn in range(60):
        client = ring.connect()
        take_seat(client, 60_000)
        client.sendall(request(60_000) * (turn % 4))
        if turn % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    wait_until(lambda: open_descriptors(ring) == before)
    with ring.connect() as client:
        take_seat(client)
        end_stay(client, BEFORE_SEAT + 2)


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(has_io_uring):
    with Backend("http", "--idle-timeout", "2s") as backend, backend.connect() as idle, backend.connect() as busy:
        take_seat(idle)
        ended = threading.Thread(target=lambda: is_closed(idle), daemon=True)
        ended.start()
        requests = 0
        while ended.is_alive():
            ask_known(busy)
            requests += 1
            time.sleep(0.01)
        for _ in range(100):  # nor is it a little later
            ask_known(busy)
            requests += 1
            time.sleep(0.01)
        end_stay(busy, requests, 10)


def test_a_signal_ends_the_server_while_seats_are_taken(has_io_uring):
    with Backend("http", "-n", 2) as backend, backend.connect() as client:
        take_seat(client)
        client.sendall(request(100))
        exactly(client, len(answer(100)))
        backend.process.terminate()
        assert backend.process.wait(LONG_S) == 0
        assert is_closed(client)


def test_workers_whose_seats_are_taken_do_not_outlive_a_killed_master(has_io_uring):
    with Backend("http") as backend, backend.connect() as client:
        take_seat(client)
        worker, = backend.workers()
        backend.process.kill()
        backend.process.wait(LONG_S)
        wait_until(lambda: not is_alive(worker))
        assert is_closed(client)


def test_libev_goes_on_while_a_seat_is_taken(ring):
    """Its timers and its connections wake the wait in the ring."""
    with ring.connect() as seated:
        take_seat(seated)
        with ring.connect() as client:
            assert ask(client, "/?t=50&s=3")[1] == filling(3)
            assert ask(client, "/?s=3m")[1] == filling(3 << 20)
        ask_known(seated, 5)
        end_stay(seated, BEFORE_SEAT + 7, 7)


def test_more_connections_than_seats_and_hundreds_of_requests_at_once(ring):
    count = SEATS + 80
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 100:
        pytest.skip(f"{hard} descriptors are too few")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 100), hard))
    worker = ring.workers()[0]
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        clients = [stack.enter_context(ring.connect()) for _ in range(count)]
        for client in clients:
            take_seat(client)
        for _ in range(3):
            os.kill(worker, signal.SIGSTOP)
            try:
                for client in clients:
                    client.sendall(request(100))
            finally:
                os.kill(worker, signal.SIGCONT)
            for client in clients:
                assert exactly(client, len(answer(100))) == answer(100)
        facts = [whoami(client) for client in clients]
    assert {fact["requests"] for fact in facts} == {BEFORE_SEAT + 6}
    assert sum(fact["io_uring"] == 0 for fact in facts) <= count - SEATS
    with ring.connect() as client:  # they are free again
        take_seat(client)
        end_stay(client, BEFORE_SEAT + 2)
    assert facts[0]["io_uring"] > 0 and min(fact["io_uring"] for fact in facts[count - SEATS:SEATS]) > 0


def test_who_does_not_read_cannot_keep_the_buffers_from_others(ring):
    """Clients that leave with many requests unread take more than all of them."""
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(ring.connect(receive_buffer=1 << 12)) for _ in range(30)]
        flood = request(60_000) * 300
        for client in silent:
            take_seat(client, 60_000)
        os.kill(ring.workers()[0], signal.SIGSTOP)
        try:
            for client in silent:
                client.sendall(flood)
        finally:
            os.kill(ring.workers()[0], signal.SIGCONT)
        with ring.connect() as client:
            ask_known(client, 200)
            assert whoami(client)["requests"] == 201
        for client in silent:
            for _ in range(300):
                assert exactly(client, len(answer(60_000))) == answer(60_000)
        with ring.connect() as client:
            ask_known(client, 200)
            end_stay(client, 200, 180)


FORBIDS_IO_URING = """
import ctypes, errno, os, struct, sys

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

number = int(sys.argv[1])  # the same everywhere
rules = struct.pack("HBBIHBBIHBBIHBBI", 0x20, 0, 0, 0, 0x15, 0, 1, number, 6, 0, 0, 0x50000 | errno.EPERM,
                    6, 0, 0, 0x7fff0000)
libc = ctypes.CDLL(None, use_errno=True)
program = Program(4, rules)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP, a filter
os.execv(sys.argv[2], sys.argv[2:])
"""
CALLS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}


@pytest.mark.parametrize("call", CALLS)
def test_where_io_uring_is_refused_all_goes_on_without_it(call):
    within = [sys.executable, "-c", FORBIDS_IO_URING, str(CALLS[call])]
    with Backend("http", within=within) as backend, backend.connect() as client:
        ask_known(client, 300)
        facts = whoami(client)
        assert facts["requests"] == 301 and "io_uring" not in facts
        assert backend.errors == []
        assert not [name for name in Path(f"/proc/{facts['worker_pid']}/fd").iterdir()
                    if "io_uring" in os.readlink(name)]


def test_it_can_be_switched_off():
    with Backend("http", "--io-uring", "off") as backend, backend.connect() as client:
        ask_known(client, 300)
        assert "io_uring" not in whoami(client)


def test_another_word_than_on_and_off_is_refused():
    result = run("echo-backend", "http", "--io-uring", "maybe")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "echo-backend: --io-uring: maybe: must be one of off on\n"
