"""What the proxy does when clients, backend or the system misbehave. Each fault is provoked for real."""
from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import time
from pathlib import Path

from proxies import backend, connected, counters, echo, eventually, proxy


def test_a_backend_that_is_down_costs_the_client_its_connection_and_is_counted(ecdsa: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    with proxy(nobody, ecdsa) as server:
        for _ in range(20):
            with contextlib.suppress(OSError), connected(server) as tls:
                tls.sendall(b"anybody there?")
                assert tls.recv(10) == b""
        eventually(lambda: counters(server)["closed"]["connect_failed"] == 20, "all 20 counted")
        assert counters(server)["connections_open"] == 0

        def complaints() -> int:
            return sum("Connection refused" in line for line in server.errors)

        eventually(lambda: complaints() >= 1, "the operator is told")
        assert complaints() < 20, "one line a second is enough"


def test_garbage_and_hang_ups_are_failed_handshakes(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as server:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(64), os.urandom(300), b""):
            with socket.create_connection(server.host_port, timeout=60) as plain:
                plain.sendall(garbage)
                plain.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    while plain.recv(1000):
                        pass
        eventually(lambda: counters(server)["closed"]["handshake_failed"] == 4, "four failures")
        with connected(server) as tls:
            tls.sendall(b"still here")
            assert tls.recv(10) == b"still here"


def test_timeouts_end_what_does_not_move(ecdsa: str) -> None:
    def mute(connection: socket.socket) -> None:
        connection.recv(1)
        time.sleep(60)

    options = ("--handshake-timeout", "300ms", "--idle-timeout", "300ms")
    with backend(mute) as to, proxy(to, ecdsa, *options) as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            plain.sendall(b"\x16")
            assert plain.recv(1) == b""
        with connected(server) as tls, contextlib.suppress(ssl.SSLError):
            tls.sendall(b"x")
            assert tls.recv(1) == b""
        closed = counters(server)["closed"]
        assert (closed["handshake_timeout"], closed["idle_timeout"]) == (1, 1)


def test_a_backend_that_never_accepts_times_out(ecdsa: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as full, contextlib.ExitStack() as stack:
        full.bind(str(tmp_path / "full.sock"))
        full.listen(0)
        filler = stack.enter_context(socket.socket(socket.AF_UNIX))
        filler.connect(str(tmp_path / "full.sock"))  # the queue has room for one
        with proxy(str(tmp_path / "full.sock"), ecdsa, "--connect-timeout", "500ms") as server:
            with contextlib.suppress(OSError), connected(server) as tls:
                tls.sendall(b"x")
                assert tls.recv(1) == b""
            eventually(lambda: counters(server)["closed"]["connect_timeout"] == 1, "a connect timeout")


def test_without_descriptors_accepting_pauses_and_recovers(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as server:
        worker = server.workers()[0]
        subprocess.run(["prlimit", "--pid", str(worker), "--nofile=40:40"], check=True)
        with contextlib.ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(socket.create_connection(server.host_port, timeout=60))
            eventually(lambda: counters(server)["accept_pauses"] > 0, "accepting pauses")
        with connected(server) as tls:
            tls.sendall(b"back again")
            assert tls.recv(10) == b"back again"
