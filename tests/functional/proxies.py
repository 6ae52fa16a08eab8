"""What tests of the proxy share: one that runs, backends of their own behind it, and clients before it."""
from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from programs import Running, running

MIB = 1 << 20


@contextlib.contextmanager
def backend(serve: Callable[[socket.socket], None], family: int = socket.AF_INET,
            folder: Path = Path()) -> Iterator[str]:
    """A backend of the test's own: `serve` has each connection to itself, in a thread."""
    place = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}.get(family, str(folder / "backend.sock"))
    listener = socket.create_server(place, family=family, backlog=1000)  # type: ignore[arg-type]

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    port = listener.getsockname()[1] if family != socket.AF_UNIX else 0
    try:
        yield {socket.AF_INET: f"127.0.0.1:{port}", socket.AF_INET6: f"[::1]:{port}"}.get(family, str(place))
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextlib.contextmanager
def recording(size: int) -> Iterator[tuple[str, queue.Queue[bytes]]]:
    """A backend that keeps the first `size` bytes of each connection and then echoes."""
    heard: queue.Queue[bytes] = queue.Queue()

    def serve(connection: socket.socket) -> None:
        heard.put(read_exactly(connection, size))
        echo(connection)

    with backend(serve) as to:
        yield to, heard


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """An address that refuses: its port is taken, so that nobody else comes to listen there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


@contextlib.contextmanager
def proxy(to: str, certificate: str, *options: str, front: str = "127.0.0.1:0") -> Iterator[Running]:
    with running("proxy", "-f", front, "-b", to, "--stats", "127.0.0.1:0", *options,
                 *([certificate] if certificate else [])) as server:
        yield server


def client_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
    return context


@contextlib.contextmanager
def connected(server: Running, context: ssl.SSLContext | None = None,
              session: ssl.SSLSession | None = None) -> Iterator[ssl.SSLSocket]:
    with socket.create_connection(server.host_port, timeout=60) as plain:
        with (context or client_context()).wrap_socket(plain, session=session, suppress_ragged_eofs=False) as tls:
            yield tls


class TlsPeer:
    """
    A TLS end that can do what Python's ssl.SSLSocket cannot: end its sending with close_notify and FIN, and go on
    reading.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, as_server: bool = False,
                 last_flight_with: bytes = b"") -> None:
        """`last_flight_with` leaves together with what ends the handshake."""
        self.plain = plain
        self.received, self.waiting = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.received, self.waiting, server_side=as_server)

        def shake_hands() -> None:
            self.tls.do_handshake()
            if last_flight_with:
                self.tls.write(last_flight_with)

        self._until_done(shake_hands)

    def _flush(self) -> None:
        if self.waiting.pending:
            self.plain.sendall(self.waiting.read())

    def _until_done(self, step: Callable[[], object]) -> object:
        while True:
            try:
                result = step()
                self._flush()
                return result
            except ssl.SSLWantReadError:
                self._flush()
                data = self.plain.recv(65536)
                if data:
                    self.received.write(data)
                else:
                    self.received.write_eof()

    def sendall(self, data: bytes) -> None:
        self._until_done(lambda: self.tls.write(data))

    def recv(self, size: int) -> bytes:
        """b"" after close_notify; ssl.SSLEOFError after a FIN without one."""
        try:
            data = self._until_done(lambda: self.tls.read(size))
        except ssl.SSLZeroReturnError:
            return b""
        assert isinstance(data, bytes)
        return data

    def end_sending(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self._flush()
        self.plain.shutdown(socket.SHUT_WR)


class PlainPeer:
    """The same without TLS."""

    def __init__(self, plain: socket.socket) -> None:
        self.plain = plain

    def sendall(self, data: bytes) -> None:
        self.plain.sendall(data)

    def recv(self, size: int) -> bytes:
        return self.plain.recv(size)

    def end_sending(self) -> None:
        self.plain.shutdown(socket.SHUT_WR)


Peer = TlsPeer | PlainPeer
ROLES = ["server", "client"]  # of the proxy: where TLS is


def server_context(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@contextlib.contextmanager
def proxy_in(role: str, serve: Callable[[Peer], None], certificate: str, *options: str) -> Iterator[Running]:
    """A proxy in that role, and behind it a backend of the test's own that speaks what it must."""
    context = server_context(certificate)

    def serve_plain(plain: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError):
            serve(PlainPeer(plain) if role == "server" else TlsPeer(plain, context, as_server=True))

    with backend(serve_plain) as to:
        if role == "server":
            with proxy(to, certificate, *options) as server:
                yield server
        else:
            with proxy(to, "", "--client", *options) as server:
                yield server


@contextlib.contextmanager
def client_in(role: str, server: Running) -> Iterator[Peer]:
    with socket.create_connection(server.host_port, timeout=60) as plain:
        yield TlsPeer(plain, client_context()) if role == "server" else PlainPeer(plain)


@contextlib.contextmanager
def connected_peer(server: Running) -> Iterator[TlsPeer]:
    with socket.create_connection(server.host_port, timeout=60) as plain:
        yield TlsPeer(plain, client_context())


def counters(server: Running) -> dict:
    host, _, port = server.announced["stats"].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", "/stats.json")
    return json.loads(connection.getresponse().read())


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Waits, long enough for the slowest machine, for what must come true."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


def closed(server: Running, reason: str, count: int = 1) -> None:
    """Waits until so many connections have been closed for that reason."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: counters(server)["closed"][reason] == count, reason)
    assert counters(server)["closed"][reason] == count, counters(server)["closed"]


def read_all(tls: ssl.SSLSocket | Peer | socket.socket) -> bytes:
    data = b""
    while piece := tls.recv(65536):
        data += piece
    return data


def read_exactly(tls: ssl.SSLSocket | Peer | socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = tls.recv(size - len(data))
        assert piece, f"ended after {len(data)} of {size} bytes"
        data += piece
    return data


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(fields[0]) / 1e9


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
