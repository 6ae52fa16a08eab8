"""A server that counts what it gets, and loadgen run against it."""
from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from programs import run

LIMIT_S = 60
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def read_request(connection: socket.socket, rest: bytes) -> tuple[bytes, bytes, bytes] | None:
    """(head, body, what follows); None at the end of the connection."""
    while b"\r\n\r\n" not in rest:
        more = connection.recv(65536)
        if not more:
            return None
        rest += more
    head, _, rest = rest.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    length = int(found[1]) if found else 0
    while len(rest) < length:
        more = connection.recv(65536)
        if not more:
            return None
        rest += more
    return head, rest[:length], rest[length:]


def response(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Server:
    """One thread a connection. `contexts()` gives the context of each TLS connection, None for none at all; `answer`
    gets the request's head and body, and returns the response, or None to close, or does it all on the socket."""

    def __init__(self, context: Callable[[], ssl.SSLContext | None],
                 answer: Callable[[bytes, bytes], bytes | None] = lambda head, body: response(b"x" * 100)) -> None:
        self.context = context
        self.answer = answer
        self.on_accept: Callable[[socket.socket], bool] | None = None  # true: it dealt with the connection
        self.on_handshake: Callable[[ssl.SSLSocket], bool] | None = None
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.threads: list[threading.Thread] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.acceptor = threading.Thread(target=self.accept)
        self.acceptor.start()

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def accept(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            if self.stopping:
                connection.close()
                return
            connection.settimeout(LIMIT_S)
            thread = threading.Thread(target=self.serve, args=(connection,), daemon=True)
            self.threads.append(thread)
            thread.start()

    stopping = False

    def serve(self, connection: socket.socket) -> None:
        self.count("connections")
        with contextlib.suppress(OSError), connection:
            if self.on_accept and self.on_accept(connection):
                return
            context = self.context()
            if context is None:
                self.talk(connection)
                return
            with context.wrap_socket(connection, server_side=True) as tls:
                self.count("resumed" if tls.session_reused else "full")
                if not (self.on_handshake and self.on_handshake(tls)):
                    self.talk(tls)
                    with contextlib.suppress(OSError):
                        tls.unwrap().close()

    def talk(self, connection: socket.socket) -> None:
        rest = b""
        while True:
            request = read_request(connection, rest)
            if request is None:
                return
            self.count("requests")
            head, body, rest = request
            answer = self.answer(head, body)
            if answer is None:
                return
            connection.sendall(answer)
            if b"onnection: close" in answer or answer.startswith(b"HTTP/1.0"):
                return

    def stop(self) -> None:
        self.stopping = True
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 5).close()
        self.acceptor.join(LIMIT_S)
        self.listener.close()
        for thread in self.threads:
            thread.join(LIMIT_S)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/"


def server_context(pem: Path, version: str | None = None, tickets: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    if version:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None | Callable[[], ssl.SSLContext], **options) -> Iterator[Server]:
    server = Server(context if callable(context) else lambda: context, **options)
    try:
        yield server
    finally:
        server.stop()


def load(*arguments: object, status: int = 0) -> dict:
    """Runs loadgen and returns its JSON."""
    done = run("loadgen", "--json", "-", *map(str, arguments), timeout=LIMIT_S)
    assert done.returncode == status, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def errors(result: dict) -> dict[str, int]:
    return {name: count for name, count in result["totals"]["errors"].items() if count}


def agrees(result: dict, server: Server) -> None:
    """The totals are the server's own count, to the last connection."""
    totals = result["totals"]
    assert totals["connections_opened"] == server.counts["connections"]
    assert totals["handshakes_full"] == server.counts["full"]
    assert totals["handshakes_resumed"] == server.counts["resumed"]
    assert totals.get("transactions", 0) == server.counts["requests"]
    assert sum(row["count"] for row in result["negotiated"]) == server.counts["full"] + server.counts["resumed"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
