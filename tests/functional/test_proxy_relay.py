"""What the proxy carries arrives, whole, in both directions, in both roles, whatever the pace."""
from __future__ import annotations

import contextlib
import hashlib
import queue
import random
import select
import socket
import ssl
import threading
from pathlib import Path

import pytest

from programs import running
from proxies import (MIB, ROLES, Peer, backend, client_context, client_in, closed, connected, connected_peer, counters,
                     eventually, proxy, proxy_in, read_all, read_exactly, resident_kib)


def exchange(tls: ssl.SSLSocket, head: bytes, body_bytes: int, seed: int) -> tuple[str, str, int]:
    """Sends head and random bytes while it reads the echo: (digest sent, digest received, bytes received)."""
    source, sent, received = random.Random(seed), hashlib.sha256(), hashlib.sha256()
    waiting, left, got, head_seen = head, body_bytes, 0, b""
    tls.setblocking(False)
    while got < body_bytes:
        readable, writable, _ = select.select([tls], [tls] if waiting or left else [], [], 60)
        assert readable or writable, f"stalled after {got} bytes"
        if writable:
            if not waiting:
                waiting = source.randbytes(min(left, 256 * 1024))
                left -= len(waiting)
                sent.update(waiting)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                waiting = waiting[tls.send(waiting):]
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while piece := tls.recv(65536):
                if b"\r\n\r\n" not in head_seen:
                    head_seen += piece
                    _, blank_line, piece = head_seen.partition(b"\r\n\r\n")
                    if not blank_line:
                        continue
                received.update(piece)
                got += len(piece)
    assert head_seen.startswith(b"HTTP/1.1 200")
    return sent.hexdigest(), received.hexdigest(), got


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_200_mib_both_ways_at_once_arrive_byte_for_byte(transport: str, ecdsa: str, tmp_path: Path) -> None:
    mode = ["http", "-l", "127.0.0.1:0"] if transport == "tcp" else ["sock", "-l", str(tmp_path / "origin.sock")]
    size = 200 * MIB
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
    with running("echo-backend", *mode) as origin, proxy(origin.address, ecdsa) as server, connected(server) as tls:
        sent, received, got = exchange(tls, head, size, seed=len(transport))
        assert (received, got) == (sent, size)
        assert counters(server)["bytes_from_client"] == size + len(head)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_random_chunks_both_ways_arrive_in_order(version: ssl.TLSVersion, ecdsa: str) -> None:
    source = random.Random(7)
    data = source.randbytes(3 * MIB)

    def chop(connection: socket.socket) -> None:
        while piece := connection.recv(source.choice([1, 100, 4000, 70000])):
            for start in range(0, len(piece), 999):
                connection.sendall(piece[start:start + 999])

    with backend(chop) as to, proxy(to, ecdsa) as server, connected(server, client_context(version)) as tls:
        tls.setblocking(False)
        at, back = 0, b""
        while len(back) < len(data):
            _, writable, _ = select.select([tls], [tls] if at < len(data) else [], [], 60)
            if writable:
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    at += tls.send(data[at:at + source.choice([1, 17, 1400, 16384, 50000])])
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                while piece := tls.recv(65536):
                    back += piece
        assert back == data


def send_until_blocked(tls: ssl.SSLSocket, data: bytes) -> int:
    """How much left before nobody took any more for a second: by then everything on the way is full."""
    at = 0
    while at < len(data) and select.select([], [tls], [], 1)[1]:
        with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
            at += tls.send(data[at:at + 100000])
    return at


@pytest.mark.parametrize("transport", [socket.AF_INET, socket.AF_UNIX])
def test_nothing_is_lost_where_both_sides_stall_and_go_on(transport: int, ecdsa: str, tmp_path: Path) -> None:
    """Each direction is filled until it blocks, so that every write on the way has had to wait, then emptied."""
    upward, downward = (random.Random(seed).randbytes(24 * MIB) for seed in (1, 2))
    go_on, heard, blocked = threading.Event(), bytearray(), threading.Event()

    def stall_then_listen_then_speak(connection: socket.socket) -> None:
        go_on.wait(120)
        while len(heard) < len(upward) and (piece := connection.recv(50000)):
            heard.extend(piece)
        connection.settimeout(1)
        at = 0
        while at < len(downward):
            try:
                at += connection.send(downward[at:at + 100000])
            except TimeoutError:
                blocked.set()
        blocked.set()

    with backend(stall_then_listen_then_speak, transport, tmp_path) as to, proxy(to, ecdsa) as server, \
            connected(server) as tls:
        tls.setblocking(False)
        at = send_until_blocked(tls, upward)
        assert at < len(upward), "the backend took it all: nothing had to wait"
        go_on.set()
        while at < len(upward):
            assert select.select([], [tls], [], 60)[1]
            with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                at += tls.send(upward[at:at + 100000])
        assert blocked.wait(120)
        tls.settimeout(60)
        back = bytearray()
        while len(back) < len(downward):
            piece = tls.recv(65536)
            assert piece, f"ended after {len(back)} bytes"
            back.extend(piece)
        assert bytes(back) == downward and bytes(heard) == upward


VERSIONS = ["TLSv1.2", "TLSv1.3"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("role", ROLES)
def test_a_client_that_ends_its_sending_still_gets_the_answer(role: str, version: str, ecdsa: str) -> None:
    def answer_after_the_end(connection: Peer) -> None:
        connection.sendall(b"answer to " + read_all(connection))
        connection.end_sending()

    with proxy_in(role, answer_after_the_end, ecdsa, "--tls-max", version) as server:
        with client_in(role, server) as client:
            client.sendall(b"question")
            client.end_sending()
            assert read_all(client) == b"answer to question"
        closed(server, "done")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("role", ROLES)
def test_a_backend_that_ends_its_sending_still_hears_the_client(role: str, version: str, ecdsa: str) -> None:
    heard: queue.Queue[bytes] = queue.Queue()

    def say_and_listen(connection: Peer) -> None:
        connection.sendall(b"all I have to say")
        connection.end_sending()
        heard.put(read_all(connection))

    with proxy_in(role, say_and_listen, ecdsa, "--tls-max", version) as server, client_in(role, server) as client:
        assert read_all(client) == b"all I have to say"
        client.sendall(b"and I answer")
        client.end_sending()
        assert heard.get(timeout=60) == b"and I answer"
        closed(server, "done")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_has_its_answer_ends_both_sides_with_a_close_notify_before_tls_1_3(version: str,
                                                                                         ecdsa: str) -> None:
    """RFC 5246, 7.2.1 against RFC 8446, 6.1. Its own close_notify is answered in either case."""
    let_go, heard = threading.Event(), threading.Event()

    def answer_and_stay(connection: socket.socket) -> None:
        connection.sendall(b"answer to " + read_exactly(connection, 8))
        assert read_all(connection) == b""
        heard.set()
        let_go.wait(60)
        connection.sendall(b"; more")

    with backend(answer_and_stay) as to, proxy(to, ecdsa, "--tls-max", version) as server:
        with connected_peer(server) as client:
            client.sendall(b"question")
            assert read_exactly(client, 18) == b"answer to question"
            client.end_sending()
            assert heard.wait(60)
            if version == "TLSv1.2":
                assert read_all(client) == b""
                closed(server, "done")
                let_go.set()
            else:
                let_go.set()
                assert read_all(client) == b"; more"
                closed(server, "done")


def test_a_client_that_hangs_up_without_a_close_notify_ends_both_sides_at_once(ecdsa: str) -> None:
    heard: queue.Queue[bytes] = queue.Queue()
    hold = threading.Event()

    def listen(connection: socket.socket) -> None:
        connection.sendall(b"go on")
        heard.put(read_all(connection))
        hold.wait(60)  # this side stays open: the proxy must not wait for it

    with backend(listen) as to, proxy(to, ecdsa) as server:
        with connected_peer(server) as client:
            # Whoever closes with something unread (a ticket has come as well) sends RST, not FIN.
            assert read_exactly(client, 5) == b"go on"
            client.sendall(b"last words")
        assert heard.get(timeout=60) == b"last words"
        closed(server, "hung_up")
        assert counters(server)["connections_open"] == 0
        hold.set()


def test_what_a_tls_backend_said_before_it_hung_up_is_delivered(ecdsa: str) -> None:
    words = random.Random(3).randbytes(MIB)

    def say_and_go(connection: Peer) -> None:
        connection.sendall(words)  # then a FIN without close_notify

    with proxy_in("client", say_and_go, ecdsa) as server, client_in("client", server) as client:
        assert read_all(client) == words
        closed(server, "hung_up")


@pytest.mark.parametrize("role", ROLES)
def test_a_backend_that_speaks_first_is_heard(role: str, ecdsa: str) -> None:
    def greet(connection: Peer) -> None:
        connection.sendall(b"220 ready")
        connection.sendall(connection.recv(100))

    with proxy_in(role, greet, ecdsa) as server, client_in(role, server) as client:
        assert read_exactly(client, 9) == b"220 ready"
        client.sendall(b"EHLO")
        assert read_exactly(client, 4) == b"EHLO"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("role", ROLES)
def test_who_has_nothing_to_say_still_hears_the_other_side(role: str, version: str, ecdsa: str) -> None:
    """The TLS side ends its sending before either has said anything."""
    def end_and_listen(connection: Peer) -> None:
        connection.end_sending()
        heard.put(read_all(connection))

    def listen_and_speak(connection: Peer) -> None:
        heard.put(read_all(connection))
        connection.sendall(b"goodbye")
        connection.end_sending()

    heard: queue.Queue[bytes] = queue.Queue()
    serve = listen_and_speak if role == "server" else end_and_listen
    with proxy_in(role, serve, ecdsa, "--tls-max", version) as server, client_in(role, server) as client:
        (end_and_listen if role == "server" else listen_and_speak)(client)
        assert sorted([heard.get(timeout=60), heard.get(timeout=60)]) == [b"", b"goodbye"]
        closed(server, "done")


@pytest.mark.parametrize("role", ROLES)
def test_chunks_of_any_size_both_ways_at_once_arrive_byte_for_byte(role: str, ecdsa: str) -> None:
    upward, downward = (random.Random(seed).randbytes(4 * MIB) for seed in (11, 12))
    heard: queue.Queue[bytes] = queue.Queue()

    def speak(to: Peer, data: bytes, seed: int) -> None:
        source, at = random.Random(seed), 0
        while at < len(data):
            size = source.choice([1, 2, 100, 1400, 16383, 16384, 16385, 33000, 100000])
            to.sendall(data[at:at + size])
            at += size

    def talk(connection: Peer) -> None:
        # One TLS object is not for two threads: this side speaks and listens by turns.
        for at in range(0, len(downward), 65536):
            speak(connection, downward[at:at + 65536], at)
            piece = read_exactly(connection, min(65536, len(upward) - at))
            heard.put(piece)

    with proxy_in(role, talk, ecdsa) as server, client_in(role, server) as client:
        back = b""
        for at in range(0, len(upward), 65536):
            speak(client, upward[at:at + 65536], at + 1)
            back += read_exactly(client, 65536)
        assert back == downward
        assert b"".join(heard.get(timeout=60) for _ in range(0, len(upward), 65536)) == upward


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("stalled", ["client", "backend"])
def test_whoever_does_not_read_bounds_memory(stalled: str, role: str, ecdsa: str) -> None:
    pushed = 0
    flooded, go_home = threading.Event(), threading.Event()

    def flood(peer: Peer) -> None:
        nonlocal pushed
        peer.plain.settimeout(2)
        with contextlib.suppress(TimeoutError):
            while pushed < 512 * MIB:
                peer.sendall(bytes(65536))
                pushed += 65536
        flooded.set()

    def serve(connection: Peer) -> None:
        connection.recv(2)
        if stalled == "client":
            flood(connection)
        go_home.wait(120)

    with proxy_in(role, serve, ecdsa) as server, client_in(role, server) as client:
        client.sendall(b"go")
        eventually(lambda: counters(server)["bytes_to_backend"] >= 2, "the two are connected")
        before = resident_kib(server.workers()[0])
        if stalled == "backend":
            flood(client)
        assert flooded.wait(120)
        assert pushed < 256 * MIB, "nothing held the sender back"
        assert resident_kib(server.workers()[0]) - before < 4096
        go_home.set()
