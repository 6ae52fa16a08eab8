"""Both engines against servers that break the protocol, stop in the middle of it, or never stop: each connection is one
counted error of the right class, and loadgen neither crashes, nor hangs, nor burns CPU while it waits."""
from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from counting_server import LIMIT_S, VERSIONS, errors, load, reset, response, server_context
from programs import BUILD, make_certificate, program, run
from valgrind import judge, within

ENGINES = ["light", "openssl"]
HANDSHAKE, ALERT, CHANGE, DATA = 22, 21, 20, 23
ENDLESS_BYTES = 64 << 20  # far more than anybody should take


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))[2]


# ---- A server that does as its script says ----

class Server:
    """`script(connection, number)` does what it wants, one thread a connection; then the connection is closed."""

    def __init__(self, script: Callable[[socket.socket, int], None]) -> None:
        self.script = script
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            for number in itertools.count():
                connection, _ = self.listener.accept()
                connection.settimeout(LIMIT_S)
                threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), connection:
            self.script(connection, number)


@contextlib.contextmanager
def serving(script: Callable[[socket.socket, int], None]) -> Iterator[Server]:
    server = Server(script)
    try:
        yield server
    finally:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()


def fin(connection: socket.socket) -> None:
    """FIN, and no RST for what was not read."""
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65536):
        pass


def record(kind: int, body: bytes, version: int = 0x0303) -> bytes:
    return struct.pack(">BHH", kind, version, len(body)) + body


def records(flight: bytes) -> list[bytes]:
    found = []
    while flight:
        length = 5 + int.from_bytes(flight[3:5], "big")
        found.append(flight[:length])
        flight = flight[length:]
    return found


class Peer:
    """TLS of a good server, which leaves to us what becomes of its bytes."""

    def __init__(self, context: ssl.SSLContext, connection: socket.socket) -> None:
        self.connection = connection
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.shaken = False

    def flight(self) -> bytes:
        """What the server says next; b"" when there is no more until the application speaks."""
        while not self.shaken:
            try:
                self.tls.do_handshake()
                self.shaken = True
            except ssl.SSLWantReadError:
                if said := self.outgoing.read():
                    return said
                more = self.connection.recv(65536)
                if not more:
                    raise ConnectionError("the client has left") from None
                self.incoming.write(more)
        return self.outgoing.read()

    def request(self) -> bytes:
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self.incoming.write(self.connection.recv(65536))


def all_fail(result: dict, count: int, *classes: str) -> None:
    found = errors(result)
    assert sum(found.values()) == count, found
    assert set(found) <= set(classes), found
    assert result["totals"]["connections_opened"] == count
    assert result.get("transactions", 0) == 0


def attack(engine: str, script: Callable[[socket.socket, int], None], *options: str, version: str | None = None,
           count: int = 4) -> dict:
    """Each connection once, all at the same time."""
    with serving(script) as server:
        begin = time.monotonic()
        result = load("--engine", engine, "--burst", count, "--timeout", "5s", *options,
                      *(["--tls-version", version] if version else []), server.url, status=1)
        assert time.monotonic() - begin < LIMIT_S
    return result


# ---- Records that are wrong ----

def server_hello(suite: bytes = b"\xc0\x2b", *, random: bytes = bytes(32), session: bytes = b"",
                 extensions: bytes = b"") -> bytes:
    body = b"\x03\x03" + random + bytes([len(session)]) + session + suite + b"\0"
    if extensions:
        body += len(extensions).to_bytes(2, "big") + extensions
    return b"\x02" + len(body).to_bytes(3, "big") + body


def extension(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", kind, len(body)) + body


GARBAGE = random.Random(1).randbytes(3000)
WRONG_RECORDS = {
    "zeros": (bytes(5000), ["tls_protocol"]),
    "noise": (b"\xff" + GARBAGE, ["tls_protocol"]),
    "plain text": (b"220 mail.example ESMTP\r\n" * 10, ["tls_protocol"]),
    "old SSL": (b"\x80\x2e\x01\x03\x01" + GARBAGE, ["tls_protocol"]),
    "a version of nobody": (b"\x16\x09\x09\x00\x10" + bytes(16), ["tls_protocol"]),
    "too long": (b"\x16\x03\x03\xff\xff" + bytes(65535), ["tls_protocol"]),
    "just too long": (b"\x16\x03\x03\x48\x01" + bytes(0x4801), ["tls_protocol"]),
    "no more than a header": (b"\x16\x03\x03\x00\x10", ["unexpected_eof"]),
    "part of a header": (b"\x16\x03", ["unexpected_eof"]),
    "part of a record": (b"\x16\x03\x03\x01\x00" + bytes(100), ["unexpected_eof"]),
    "part of a message": (record(HANDSHAKE, server_hello()[:20]), ["unexpected_eof"]),
    "a message that is far too long": (record(HANDSHAKE, b"\x02\xff\xff\xff" + bytes(100)), ["tls_protocol"]),
    "empty": (record(HANDSHAKE, b""), ["tls_protocol"]),
    "data first": (record(DATA, b"HTTP/1.1 200 OK\r\n\r\n"), ["tls_protocol"]),
    "ChangeCipherSpec first": (record(CHANGE, b"\1") * 2, ["tls_protocol"]),
    "Finished first": (record(HANDSHAKE, b"\x14\0\0\x0c" + bytes(12)), ["tls_protocol"]),
    "ServerHello twice": (record(HANDSHAKE, server_hello()) * 2, ["tls_protocol"]),
    "a suite that was not offered": (record(HANDSHAKE, server_hello(b"\x00\x04")), ["tls_protocol"]),
    "a protocol that nobody offered": (record(HANDSHAKE, server_hello(extensions=extension(16, b"\0\3\2h2"))),
                                       ["tls_protocol"]),
    "a downgrade": (record(HANDSHAKE, server_hello(random=bytes(24) + b"DOWNGRD\1")), ["tls_protocol"]),
    "an alert of no known kind": (record(ALERT, b"\x02\xee"), ["tls_alert", "tls_protocol"]),
    "half an alert": (record(ALERT, b"\x02"), ["tls_protocol"]),
}


# libssl is more patient than we are, and then sees what comes next.
PATIENT = {
    "empty": ["unexpected_eof"],
    "HelloRequest": ["reset", "tls_timeout"],  # there is no end to its patience: --timeout is what ends it
}


@pytest.mark.parametrize("what", WRONG_RECORDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_wrong_record(engine: str, what: str) -> None:
    flight, classes = WRONG_RECORDS[what]
    if engine == "openssl":
        classes = PATIENT.get(what, classes)

    def script(connection: socket.socket, _: int) -> None:
        connection.recv(65536)
        connection.sendall(flight)
        fin(connection)
    all_fail(attack(engine, script, "--requests-per-connection", "0"), 4, *classes)


# RFC 8446, 4.1.3; SEC 2, 2.4.2: P-256's generator, a public key like any other.
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
GENERATOR = bytes.fromhex("046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
                          "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")


@pytest.mark.parametrize("engine", ENGINES)
def test_after_a_hello_retry_request_the_suite_is_another(engine: str) -> None:
    """RFC 8446, 4.1.4. Its hash is the same, so it would do."""
    version, p256 = extension(43, b"\3\4"), b"\0\x17"

    def script(connection: socket.socket, _: int) -> None:
        hello = connection.recv(65536)
        session = hello[44:44 + hello[43]]
        connection.sendall(record(HANDSHAKE, server_hello(
            b"\x13\x01", random=RETRY, session=session, extensions=version + extension(51, p256))))
        while b"\x16\x03" not in connection.recv(65536):
            pass
        connection.sendall(record(HANDSHAKE, server_hello(
            b"\x13\x03", session=session,
            extensions=version + extension(51, p256 + b"\0\x41" + GENERATOR))))
        fin(connection)
    all_fail(attack(engine, script, "--requests-per-connection", "0", version="TLSv1.3"), 4, "tls_protocol")


def swapped(flight: list[bytes], number: int) -> list[bytes]:
    place = number % (len(flight) - 1)
    return [*flight[:place], flight[place + 1], flight[place], *flight[place + 2:]]


def doubled(flight: list[bytes], number: int) -> list[bytes]:
    place = number % len(flight)
    return [*flight[:place + 1], *flight[place:]]


def missing(flight: list[bytes], number: int) -> list[bytes]:
    place = number % len(flight)
    return [*flight[:place], *flight[place + 1:]]


@pytest.mark.parametrize("change", [swapped, doubled, missing])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_records_out_of_order(pem: Path, engine: str, version: str, change: Callable) -> None:
    """Connection i at the i-th record of the first flight. ChangeCipherSpec of TLS 1.3 is for middleboxes only: it
    changes nothing where it is and how often it comes, so it does not count as one."""
    context = server_context(pem, version)
    seen: list[int] = []

    def script(connection: socket.socket, number: int) -> None:
        flight = records(Peer(context, connection).flight())
        flight = [piece for piece in flight if piece[0] != CHANGE]
        seen.append(len(flight))
        connection.sendall(b"".join(change(flight, number)))
        fin(connection)
    result = attack(engine, script, "--requests-per-connection", "0", version=version, count=5)
    # With the last one missing or twice, nothing is wrong until the server ends or goes on.
    all_fail(result, 5, "tls_protocol", "unexpected_eof", "tls_alert")
    assert errors(result)["tls_protocol"] >= 3, (errors(result), seen)


# ---- The end at every byte ----

def ends_after(context: ssl.SSLContext, close: Callable[[socket.socket], None], step: int,
               lengths: list[int]) -> Callable[[socket.socket, int], None]:
    """Connection i gets no more than the first i * step bytes of what a good server says until it waits for a
    request."""
    def script(connection: socket.socket, number: int) -> None:
        peer = Peer(context, connection)
        budget = number * step
        while flight := peer.flight():
            connection.sendall(flight[:budget])
            budget -= min(budget, len(flight))
            if budget == 0:
                break
        if budget > 0:
            lengths.append(number)
        close(connection)
    return script


def length_of_all_flights(context: ssl.SSLContext, version: str) -> int:
    total: list[int] = []

    def script(connection: socket.socket, _: int) -> None:
        peer = Peer(context, connection)
        said = 0
        while flight := peer.flight():
            said += len(flight)
            connection.sendall(flight)
        total.append(said)
    attack("light", script, version=version, count=1)
    return total[0]


@pytest.mark.parametrize("close, step, expected", [(fin, 1, "unexpected_eof"), (reset, 16, "reset")],
                         ids=["FIN", "RST"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_end_at_every_byte(pem: Path, engine: str, version: str, close: Callable[[socket.socket], None], step: int,
                               expected: str) -> None:
    context = server_context(pem, version)
    count = length_of_all_flights(context, version) // step
    assert count * step > 700
    whole: list[int] = []
    result = attack(engine, ends_after(context, close, step, whole), "--timeout", "20s", version=version, count=count)
    # The signatures' lengths vary, so the last few may have got everything but an answer to their request: that is
    # the same error.
    assert len(whole) < 12
    assert errors(result) == {expected: count}
    assert result["totals"]["connections_opened"] == count


# ---- Without an end ----

def pours(piece: bytes, first: bytes = b"") -> Callable[[socket.socket, int], None]:
    """After the ClientHello the same again and again, until the client has had enough."""
    def script(connection: socket.socket, _: int) -> None:
        connection.recv(65536)
        connection.sendall(first)
        many = piece * (1 + (1 << 16) // len(piece))
        for _ in range(ENDLESS_BYTES // len(many)):
            connection.sendall(many)
        reset(connection)  # seen as such: it took all of it
    return script


ENDLESS = {
    "empty handshake records": pours(record(HANDSHAKE, b"")),
    "empty data records": pours(record(DATA, b"")),
    "warnings": pours(record(ALERT, b"\x01\x5a")),
    "ChangeCipherSpec": pours(record(CHANGE, b"\1")),
    "HelloRequest": pours(record(HANDSHAKE, bytes(4) * 1000)),
    "HelloRequest after ServerHello": pours(record(HANDSHAKE, bytes(4) * 1000), record(HANDSHAKE, server_hello())),
    "a message without end": pours(record(HANDSHAKE, bytes(16000)), record(HANDSHAKE, b"\x02\x03\xff\xff")),
    "a certificate without end": pours(record(HANDSHAKE, b"\0\0\1x" * 4000), record(HANDSHAKE, server_hello()) +
                                       record(HANDSHAKE, b"\x0b\xff\xff\xff\xff\xff\xfc")),
}


@pytest.mark.parametrize("what", ENDLESS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_handshake_without_end(engine: str, version: str, what: str) -> None:
    result = attack(engine, ENDLESS[what], "--requests-per-connection", "0", version=version, count=2)
    all_fail(result, 2, *(PATIENT.get(what, ["tls_protocol"]) if engine == "openssl" else ["tls_protocol"]))


@pytest.mark.parametrize("engine", ENGINES)
def test_tickets_without_end_do_not_count_as_an_answer(pem: Path, engine: str) -> None:
    context = server_context(pem, "TLSv1.3")
    context.num_tickets = 200

    def script(connection: socket.socket, _: int) -> None:
        peer = Peer(context, connection)
        while flight := peer.flight():
            connection.sendall(flight)
        while connection.recv(65536):
            pass
    result = attack(engine, script, "--reuse", "always", "--timeout", "500ms", count=2)
    all_fail(result, 2, "io_timeout")
    assert result["totals"]["handshakes_full"] == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_byte_now_and_then_is_no_handshake_in_time(engine: str) -> None:
    """--timeout is for the whole of a handshake, not for each byte of it."""
    def script(connection: socket.socket, _: int) -> None:
        connection.recv(65536)
        for byte in record(HANDSHAKE, server_hello() + b"\x0b\0\x20\0"):
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
    result = attack(engine, script, "--requests-per-connection", "0", "--timeout", "1s", version="TLSv1.2", count=2)
    all_fail(result, 2, "tls_timeout")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_good_server_in_single_bytes_is_a_good_server(pem: Path, engine: str, version: str) -> None:
    context = server_context(pem, version)

    def script(connection: socket.socket, _: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(context, connection)
        while flight := peer.flight():
            for byte in flight:
                connection.sendall(bytes([byte]))
        peer.request()
        peer.tls.write(response(b"y" * 100))
        for byte in peer.outgoing.read():
            connection.sendall(bytes([byte]))
        fin(connection)
    with serving(script) as server:
        result = load("--engine", engine, "-c", "1", "-n", "2", "--tls-version", version, server.url)
    assert result["transactions"] == 2 and not errors(result)


CHUNKS = b"1\r\nx\r\n" * 100000  # slower to be read than to be sent


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_answer_without_end_is_not_all_that_is_looked_at(pem: Path, scheme: str) -> None:
    """The end of the run, the other connections and a signal have their turn, too."""
    context = server_context(pem)
    stop = time.monotonic() + 20

    def script(connection: socket.socket, _: int) -> None:
        stream = context.wrap_socket(connection, server_side=True) if scheme == "https" else connection
        stream.recv(65536)
        stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while time.monotonic() < stop:
            stream.sendall(CHUNKS)
    with serving(script) as server:
        result = load("-c", "3", "-d", "500ms", server.url.replace("https", scheme), status=1)
    assert "error" not in result, result["error"]
    assert result["totals"]["connections_opened"] == 3
    assert errors(result) == {"io_timeout": 3}
    assert result["duration_s"] < 3


# ---- Memory ----

MEMCHECK_CONNECTIONS = int(os.environ.get("TLSDYNO_MEMCHECK_CONNECTIONS", "160"))
MEMCHECK_LIMIT_S = 30 + MEMCHECK_CONNECTIONS  # far more than it takes; loadgen is thirty times slower


def answers(context: ssl.SSLContext, connection: socket.socket, number: int) -> None:
    """A good server, whose certificate and response come in pieces of many sizes."""
    peer = Peer(context, connection)
    piece = 1 + 97 * (number % 30)
    while flight := peer.flight():
        for place in range(0, len(flight), piece):
            connection.sendall(flight[place:place + piece])
    peer.request()
    peer.tls.write(response(b"z" * (number % 40000)))
    connection.sendall(peer.outgoing.read())
    fin(connection)


def every_kind(pem: Path, version: str) -> Callable[[socket.socket, int], None]:
    """Of four connections one is served well, one gets a wrong record, one a flight whose records are in no order, and
    one an end in the middle of what it gets."""
    context = server_context(pem, version)
    wrong = list(WRONG_RECORDS.values())

    def script(connection: socket.socket, number: int) -> None:
        turn, kind = divmod(number, 4)
        if kind == 0:
            answers(context, connection, 131 * turn)
        elif kind == 1:
            connection.recv(65536)
            connection.sendall(wrong[turn % len(wrong)][0])
            fin(connection)
        elif kind == 2:
            flight = [piece for piece in records(Peer(context, connection).flight()) if piece[0] != CHANGE]
            connection.sendall(b"".join((swapped, doubled, missing)[turn % 3](flight, turn // 3)))
            fin(connection)
        else:
            ends_after(context, (fin, reset)[turn % 2], 1, [])(connection, 37 * turn % 700)
    return script


@pytest.mark.skipif(BUILD.name == "san", reason="valgrind cannot run what has a sanitizer in it")
@pytest.mark.timeout(MEMCHECK_LIMIT_S + 60)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_memcheck_finds_nothing(tmp_path: Path, pem: Path, engine: str, version: str) -> None:
    """loadgen under valgrind: nothing is lost, nothing is read or written where there is nothing, and nothing depends
    on what was never set."""
    logs = tmp_path / "logs"
    logs.mkdir()
    with serving(every_kind(pem, version)) as server:
        done = run("loadgen", "--engine", engine, "-c", "16", "-n", str(MEMCHECK_CONNECTIONS), "--timeout",
                   "60s", "--tls-version", version, "--reuse", "every:2", "--json", "-", server.url,
                   timeout=MEMCHECK_LIMIT_S, within=within(logs))
    assert done.returncode == 1, done.stderr
    judge(logs, 2)  # the master and its worker
    result = json.loads(done.stdout)
    found = errors(result)
    assert result["transactions"] + sum(found.values()) == MEMCHECK_CONNECTIONS
    assert result["transactions"] >= MEMCHECK_CONNECTIONS // 4 - 16 and found["tls_protocol"] > 0
    assert found["unexpected_eof"] > 0 and found["reset"] > 0
    assert result["totals"]["handshakes_full"] > 0 and result["totals"]["handshakes_resumed"] > 0


# ---- Waiting ----

def mute(connection: socket.socket, _: int) -> None:
    while connection.recv(65536):
        pass


def cpu_seconds_of(*arguments: str) -> tuple[float, int]:
    """Of a run of loadgen with all of its workers, and its exit status."""
    process = subprocess.Popen([program("loadgen"), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, process.returncode


@pytest.mark.parametrize("greeting", [b"", b"\x16\x03\x03\x01\x00" + bytes(100)], ids=["nothing", "part of a record"])
@pytest.mark.parametrize("engine", ENGINES)
def test_waiting_costs_nothing(engine: str, greeting: bytes) -> None:
    """Fifty connections wait for 2 s: one that spins would use them all."""
    def script(connection: socket.socket, number: int) -> None:
        connection.sendall(greeting)
        mute(connection, number)
    with serving(script) as server:
        used, status = cpu_seconds_of("--engine", engine, "--burst", "50", "--timeout", "2s", server.url)
    assert status == 1
    assert used < 0.3


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_waiting_for_an_answer_costs_nothing(pem: Path, engine: str, version: str) -> None:
    context = server_context(pem, version)

    def script(connection: socket.socket, number: int) -> None:
        peer = Peer(context, connection)
        while flight := peer.flight():
            connection.sendall(flight)
        mute(connection, number)
    with serving(script) as server:
        used, status = cpu_seconds_of("--engine", engine, "--burst", "20", "--timeout", "2s", "--tls-version", version,
                                      server.url)
    assert status == 1
    assert used < 0.3
