"""--maxconn: never one more at the backend, never a place left empty while somebody waits, and nobody lost."""
from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import threading
import time

import pytest

from programs import Running
from proxies import (TlsPeer, backend, client_context, closed, connected, connected_peer, counters, eventually, nobody,
                     proxy, read_all, read_exactly)


class Counting:
    """A backend that answers a request, ends the connection, and knows how many it had at once."""

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        self.lock = threading.Lock()
        self.now = self.most = self.served = 0

    def serve(self, connection: socket.socket) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        request = connection.recv(100)
        time.sleep(self.hold_s)
        with self.lock:  # before the answer: whoever has the answer, does not count any more
            self.now -= 1
            self.served += 1
        connection.sendall(request)


class Holding:
    """A backend that keeps each connection until it is told to let it go, and remembers what each said."""

    def __init__(self) -> None:
        self.heard: queue.Queue[bytes] = queue.Queue()
        self.go: dict[bytes, threading.Event] = {}

    def serve(self, connection: socket.socket) -> None:
        name = connection.recv(100)
        self.go[name] = threading.Event()
        self.heard.put(name)
        self.go[name].wait(120)
        connection.sendall(b"done " + name)

    def next(self) -> bytes:
        return self.heard.get(timeout=60)


class Client(threading.Thread):
    """Says its name, reads the answer to its end, and hangs up, by itself."""

    def __init__(self, server: Running, name: bytes) -> None:
        super().__init__(daemon=True)
        self.server, self.name_bytes, self.answer = server, name, b""
        self.start()

    def run(self) -> None:
        with connected_peer(self.server) as peer:
            peer.sendall(self.name_bytes)
            with contextlib.suppress(OSError):
                self.answer = read_all(peer)


def queued(server: Running) -> int:
    return counters(server)["queued"]


def owner_of(server: Running, before: list[int]) -> int:
    """The worker that has accepted a connection since; waits for it."""
    owners: list[int] = []

    def accepted() -> bool:
        after = [worker["connections_accepted"] for worker in counters(server)["workers"]]
        owners.extend(i for i, (was, has) in enumerate(zip(before, after)) if has > was)
        return bool(owners)

    eventually(accepted, "it is accepted")
    return owners[0]


def client_of(server: Running, name: bytes) -> tuple[int, Client]:
    """A new client, and which worker has it."""
    before = [worker["connections_accepted"] for worker in counters(server)["workers"]]
    client = Client(server, name)
    return owner_of(server, before), client


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("limit", [1, 4])
def test_the_limit_is_reached_and_never_exceeded(workers: int, limit: int, ecdsa: str) -> None:
    counting = Counting(0.01)
    answers: queue.Queue[bytes] = queue.Queue()

    def one(server: Running) -> None:
        for _ in range(10):
            with connected(server, client_context()) as tls:
                tls.sendall(b"question")
                answers.put(read_exactly(tls, 8))

    with backend(counting.serve) as to, proxy(to, ecdsa, "-n", str(workers), "--maxconn", str(limit)) as server:
        clients = [threading.Thread(target=one, args=(server,)) for _ in range(12)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(120)
        assert answers.qsize() == counting.served == 120
        assert counting.most == limit
        assert queued(server) > 0
        eventually(lambda: counters(server)["connections_open"] == 0, "all closed")


def test_those_who_wait_are_served_in_order(ecdsa: str) -> None:
    holding = Holding()
    with backend(holding.serve) as to, proxy(to, ecdsa, "--maxconn", "1") as server:
        clients = []
        for position in range(6):
            clients.append(Client(server, b"%d" % position))
            eventually(lambda: queued(server) == position, "it waits")
            if position == 0:
                assert holding.next() == b"0"
        for position in range(6):
            assert holding.heard.empty(), "two at once"
            holding.go[b"%d" % position].set()
            clients[position].join(60)
            assert clients[position].answer == b"done %d" % position
            if position < 5:
                assert holding.next() == b"%d" % (position + 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_waiting_client_that_leaves_takes_no_place(workers: int, ecdsa: str) -> None:
    holding = Holding()
    with backend(holding.serve) as to, proxy(to, ecdsa, "-n", str(workers), "--maxconn", "1") as server, \
            contextlib.ExitStack() as leaving:
        Client(server, b"first")
        assert holding.next() == b"first"
        for number in range(20):
            peer = leaving.enter_context(connected_peer(server))
            if number % 2:
                peer.sendall(b"leaving")
        last = Client(server, b"last")
        eventually(lambda: queued(server) == 21, "all wait")
        leaving.close()
        closed(server, "left_queue", 20)
        holding.go[b"first"].set()
        assert holding.next() == b"last"
        holding.go[b"last"].set()
        last.join(60)
        assert last.answer == b"done last"


def test_who_waits_too_long_is_sent_away(ecdsa: str) -> None:
    holding = Holding()
    with backend(holding.serve) as to, \
            proxy(to, ecdsa, "--maxconn", "1", "--queue-timeout", "300ms") as server:
        first = Client(server, b"first")
        assert holding.next() == b"first"
        second = Client(server, b"second")
        closed(server, "queue_timeout")
        second.join(60)
        assert second.answer == b""
        holding.go[b"first"].set()
        first.join(60)
        assert first.answer == b"done first"
        third = Client(server, b"third")
        assert holding.next() == b"third"
        holding.go[b"third"].set()
        third.join(60)
        assert third.answer == b"done third"


def test_a_place_that_comes_free_goes_to_whoever_waits_in_another_worker(ecdsa: str) -> None:
    """The first to come has a worker of its own; all who wait are in the other one."""
    holding = Holding()
    with backend(holding.serve) as to, \
            proxy(to, ecdsa, "-n", "2", "--maxconn", "1", "--queue-timeout", "0") as server, \
            contextlib.ExitStack() as same_worker:
        worker, first = client_of(server, b"first")
        assert holding.next() == b"first"
        other, names = worker, set()
        while other == worker or len(names) < 5:
            before = [worker["connections_accepted"] for worker in counters(server)["workers"]]
            peer = same_worker.enter_context(contextlib.closing(socket.create_connection(server.host_port)))
            other = owner_of(server, before)
            if other == worker:
                continue  # no handshake: it never asks for a place
            names.add(b"%d" % len(names))
            threading.Thread(target=finish, args=(peer, b"%d" % (len(names) - 1)), daemon=True).start()
            eventually(lambda: queued(server) == len(names), "it waits")
        holding.go[b"first"].set()
        first.join(60)
        served = set()
        for _ in range(5):
            served.add(name := holding.next())
            holding.go[name].set()
        assert served == names


def finish(plain: socket.socket, name: bytes) -> None:
    with contextlib.suppress(OSError):
        peer = TlsPeer(plain, client_context())
        peer.sendall(name)
        read_all(peer)
        plain.close()


def test_a_worker_that_dies_gives_its_places_back(ecdsa: str) -> None:
    holding = Holding()
    with backend(holding.serve) as to, \
            proxy(to, ecdsa, "-n", "2", "--maxconn", "3", "--queue-timeout", "0") as server:
        placed: dict[bytes, int] = {}
        waiting: dict[bytes, int] = {}
        for number in range(3):
            owner, _ = client_of(server, b"%d" % number)
            placed[holding.next()] = owner
        while len(waiting) < 6 or len(set(waiting.values())) < 2:
            name = b"waits %d" % len(waiting)
            waiting[name], _ = client_of(server, name)
            eventually(lambda: queued(server) == len(waiting), "it waits")
        dead = placed[b"0"]  # it has one place at least
        victim = server.workers()[dead]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: counters(server)["closed"]["worker_died"] > 0, "its connections are counted as closed")
        # Its places go to those who wait in the other worker, before any of that one's own comes free.
        freed = sum(owner == dead for owner in placed.values())
        survivors = {name for name, owner in waiting.items() if owner != dead}
        served = {holding.next() for _ in range(min(freed, len(survivors)))}
        assert served <= survivors
        for name in [*placed, *served]:
            holding.go[name].set()
        while served < survivors:
            name = holding.next()
            served.add(name)
            holding.go[name].set()
        eventually(lambda: counters(server)["connections_open"] == 0, "all are gone")
        eventually(lambda: len(server.workers()) == 2, "it is replaced")
        again = [Client(server, b"new %d" % number) for number in range(3)]
        assert {holding.next() for _ in again} == {b"new 0", b"new 1", b"new 2"}, "all three places are free"
        for client in again:
            holding.go[client.name_bytes].set()


def test_a_refused_connect_gives_its_place_back(ecdsa: str) -> None:
    with nobody() as to, proxy(to, ecdsa, "--maxconn", "1") as server:
        for _ in range(10):
            with contextlib.suppress(OSError), connected(server) as tls:
                tls.recv(1)
        closed(server, "connect_failed", 10)
        assert queued(server) == 0
