"""What the proxy does when clients, backend or the system misbehave. Each fault is provoked for real."""
from __future__ import annotations

import contextlib
import os
import queue
import resource
import select
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from programs import BUILD, Running, children, program, running
from proxies import (ROLES, Peer, backend, client_context, client_in, closed, connected, counters, cpu_s, descriptors,
                     echo, eventually, nobody, proxy, proxy_in, read_exactly, resident_kib)


def test_a_backend_that_is_down_costs_the_client_its_connection_and_is_counted(ecdsa: str) -> None:
    with nobody() as to, proxy(to, ecdsa) as server:
        for _ in range(20):
            with contextlib.suppress(OSError), connected(server) as tls:
                tls.sendall(b"anybody there?")
                assert tls.recv(10) == b""
        closed(server, "connect_failed", 20)
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


def test_a_client_that_sends_a_byte_now_and_then_is_timed_out_and_holds_nobody_up(ecdsa: str) -> None:
    gone = threading.Event()

    def dribble(server: Running) -> None:
        with contextlib.suppress(OSError), socket.create_connection(server.host_port, timeout=60) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in hello():
                plain.sendall(bytes([byte]))
                if select.select([plain], [], [], 0.05)[0] and not plain.recv(1):
                    break
        gone.set()

    with backend(echo) as to, proxy(to, ecdsa, "--handshake-timeout", "1s") as server:
        slow = threading.Thread(target=dribble, args=(server,))
        slow.start()
        while not gone.is_set():
            with connected(server) as tls:
                tls.sendall(b"x")
                assert tls.recv(1) == b"x"
        slow.join(60)
        closed(server, "handshake_timeout")


def hello() -> bytes:
    """A ClientHello."""
    waiting = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client_context().wrap_bio(ssl.MemoryBIO(), waiting).do_handshake()
    return waiting.read()


@pytest.mark.parametrize("role", ROLES)
def test_a_connection_on_which_nothing_moves_is_timed_out(role: str, ecdsa: str) -> None:
    def mute(connection: Peer) -> None:
        connection.recv(1)
        connection.recv(1)

    with proxy_in(role, mute, ecdsa, "--idle-timeout", "300ms") as server, client_in(role, server) as client:
        client.sendall(b"x")
        closed(server, "idle_timeout")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_half_closed_connection_on_which_nothing_moves_is_timed_out(first: str, role: str, ecdsa: str) -> None:
    stay = threading.Event()

    def serve(connection: Peer) -> None:
        connection.sendall(connection.recv(1))
        if first == "backend":
            connection.end_sending()
        stay.wait(60)

    with proxy_in(role, serve, ecdsa, "--half-closed-timeout", "300ms") as server, client_in(role, server) as client:
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
        if first == "client":
            client.end_sending()
        closed(server, "half_closed_timeout")
        stay.set()


def test_a_backend_that_does_not_shake_hands_is_timed_out() -> None:
    def mute(connection: socket.socket) -> None:
        while connection.recv(1000):
            pass

    with backend(mute) as to, proxy(to, "", "--client", "--handshake-timeout", "300ms") as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            assert plain.recv(1) == b""
        closed(server, "handshake_timeout")


def test_a_backend_that_speaks_no_tls_is_a_failed_handshake() -> None:
    def speak(connection: socket.socket) -> None:
        connection.sendall(b"220 no TLS here\r\n")
        connection.recv(1000)

    with backend(speak) as to, proxy(to, "", "--client") as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            with contextlib.suppress(ConnectionResetError):
                assert plain.recv(1) == b""
        closed(server, "handshake_failed")


@pytest.mark.parametrize("role", ROLES)
def test_a_backend_that_resets_ends_the_client_and_is_counted(role: str, ecdsa: str) -> None:
    def reset(connection: Peer) -> None:
        connection.recv(1)
        connection.plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.plain.close()

    with proxy_in(role, reset, ecdsa) as server:
        for _ in range(5):
            with client_in(role, server) as client, contextlib.suppress(OSError):
                client.sendall(b"x")
                assert client.recv(1) == b""
        closed(server, "backend_error", 5)
        assert counters(server)["connections_open"] == 0


def test_a_client_that_resets_is_counted_and_frees_the_backend(ecdsa: str) -> None:
    heard: queue.Queue[bytes] = queue.Queue()

    def listen(connection: socket.socket) -> None:
        connection.recv(1)
        with contextlib.suppress(ConnectionResetError):
            heard.put(connection.recv(1))

    with backend(listen) as to, proxy(to, ecdsa) as server:
        with connected(server) as tls:
            tls.sendall(b"x")
            eventually(lambda: counters(server)["bytes_to_backend"] == 1, "it arrives")
            tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        closed(server, "client_error")
        assert heard.get(timeout=60) == b""


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


def test_workers_may_have_all_descriptors_that_the_system_allows(ecdsa: str) -> None:
    with backend(echo) as to, running("proxy", "-f", "127.0.0.1:0", "-b", to, ecdsa,
                                      within=["prlimit", "--nofile=64:100"]) as server:
        assert resource.prlimit(server.workers()[0], resource.RLIMIT_NOFILE) == (100, 100)


def test_without_descriptors_accepting_pauses_without_spinning_and_recovers(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as server:
        worker = server.workers()[0]
        subprocess.run(["prlimit", "--pid", str(worker), "--nofile=40:40"], check=True)
        with contextlib.ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(socket.create_connection(server.host_port, timeout=60))
            eventually(lambda: counters(server)["accept_pauses"] > 0, "accepting pauses")
            before, since = cpu_s(worker), time.monotonic()
            time.sleep(1)
            assert cpu_s(worker) - before < 0.3 * (time.monotonic() - since), "it spins"
        # Those who waited have gone, too, but are accepted first: beside them there may be no descriptor for a backend.
        eventually(lambda: sum(counters(server)["closed"].values()) == 60, "it has seen that all have gone")
        with connected(server) as tls:
            tls.sendall(b"back again")
            assert tls.recv(10) == b"back again"


def test_who_waits_for_a_descriptor_when_a_drain_begins_is_still_served(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as server:
        worker = server.workers()[0]
        subprocess.run(["prlimit", "--pid", str(worker), "--nofile=40:40"], check=True)
        with contextlib.ExitStack() as stack:
            with contextlib.ExitStack() as first:
                for _ in range(40):
                    first.enter_context(socket.create_connection(server.host_port, timeout=60))
                eventually(lambda: counters(server)["accept_pauses"] > 0, "accepting pauses")
                waiting = [stack.enter_context(socket.create_connection(server.host_port, timeout=60))
                           for _ in range(5)]
                server.process.send_signal(signal.SIGTERM)
                eventually(lambda: any("draining" in line for line in server.errors), "it drains")
                paused = counters(server)["accept_pauses"]
                eventually(lambda: counters(server)["accept_pauses"] > paused + 1, "it goes on trying")
            for plain in waiting:
                with client_context().wrap_socket(plain) as tls:
                    tls.sendall(b"let me in")
                    assert tls.recv(9) == b"let me in"
        assert server.process.wait(60) == 0


def test_no_descriptor_for_the_backend_ends_that_connection_alone(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as server, contextlib.ExitStack() as stack:
        worker = server.workers()[0]
        with connected(server) as first:
            first.sendall(b"x")
            assert first.recv(1) == b"x"
            # One more descriptor, that of the client: none is left for its connection to the backend.
            limit = max(int(entry.name) for entry in Path(f"/proc/{worker}/fd").iterdir()) + 2
            subprocess.run(["prlimit", "--pid", str(worker), f"--nofile={limit}:{limit}"], check=True)
            for _ in range(limit - descriptors(worker) - 1):  # holes below the limit
                stack.enter_context(socket.create_connection(server.host_port, timeout=60))
            with contextlib.suppress(OSError), connected(server) as tls:
                assert tls.recv(1) == b""
            closed(server, "no_resources")
            first.sendall(b"y")
            assert first.recv(1) == b"y"


ABORTED = int(os.environ.get("TLSDYNO_ABORTED_HANDSHAKES", "10000"))  # 100000 for the long form


def test_aborted_handshakes_leave_nothing_behind(ecdsa: str) -> None:
    greeting = hello()

    def abort(server: Running, number: int) -> None:
        with socket.create_connection(server.host_port, timeout=60) as plain, contextlib.suppress(OSError):
            if number % 5 == 1:
                plain.sendall(greeting[:number % len(greeting)])
            elif number % 5 == 2:
                plain.sendall(os.urandom(200))
            elif number % 5 == 3:
                plain.sendall(greeting)
            elif number % 5 == 4:
                plain.sendall(greeting)
                plain.recv(100)
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with backend(echo) as to, proxy(to, ecdsa) as server:
        worker = server.workers()[0]
        for number in range(500):
            abort(server, number)
        eventually(lambda: counters(server)["connections_open"] == 0, "all are closed")
        resident, open_files = resident_kib(worker), descriptors(worker)
        for number in range(ABORTED):
            abort(server, number)
        eventually(lambda: counters(server)["connections_open"] == 0, "all are closed")
        assert counters(server)["connections_accepted"] == 500 + ABORTED
        assert counters(server)["bytes_to_backend"] == 0
        assert descriptors(worker) == open_files
        if BUILD.name != "san":  # AddressSanitizer keeps what is freed, and tells of leaks itself
            assert resident_kib(worker) - resident < 512


def keepalive_s(server: Running, client: ssl.SSLSocket) -> float | None:
    """When the proxy's socket of that client sends its next keep-alive probe; None: never."""
    ours = f"0100007F:{client.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines():
        fields = line.split()
        if fields[1] == f"0100007F:{server.host_port[1]:04X}" and fields[2] == ours:
            kind, _, when = fields[5].partition(":")
            return int(when, 16) / os.sysconf("SC_CLK_TCK") if kind == "02" else None
    raise AssertionError("no such connection")


@pytest.mark.parametrize(("options", "low", "high"), [([], 3000, 3600), (["-k", "1000"], 500, 1000)])
def test_silent_clients_are_probed(options: list[str], low: int, high: int, ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, *options) as server, connected(server) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        eventually(lambda: low < (keepalive_s(server, tls) or 0) <= high, "a keep-alive timer runs")


def test_without_keepalive_nobody_is_probed(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "-k", "0") as server, connected(server) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        eventually(lambda: keepalive_s(server, tls) is None, "no timer runs")


def test_the_statistics_do_not_spin_without_descriptors_and_recover(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as server:
        shows, = set(children(server.process.pid)) - set(server.workers())
        assert counters(server)["connections_open"] == 0
        limit = max(int(entry.name) for entry in Path(f"/proc/{shows}/fd").iterdir()) + 1
        subprocess.run(["prlimit", "--pid", str(shows), f"--nofile={limit}:4096"], check=True)
        host, _, port = server.announced["stats"].rpartition(":")
        with contextlib.ExitStack() as stack:
            for _ in range(limit):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            time.sleep(0.2)
            before, since = cpu_s(shows), time.monotonic()
            time.sleep(1)
            assert cpu_s(shows) - before < 0.3 * (time.monotonic() - since), "it spins"
            subprocess.run(["prlimit", "--pid", str(shows), "--nofile=4096:4096"], check=True)
        assert counters(server)["connections_open"] == 0


@contextlib.contextmanager
def unread(kind: str) -> Iterator[tuple[int, Callable[[], None], Callable[[], str]]]:
    """A standard error that nobody reads: (it, what fills it, what reads what is there)."""
    if kind == "pipe":
        reads, writes = os.pipe()
        # A description of its own: the one that the proxy gets must wait, as a pipe does by itself.
        fills = os.open(f"/proc/self/fd/{writes}", os.O_WRONLY | os.O_NONBLOCK)
    else:
        one, other = socket.socketpair()
        reads, writes = one.detach(), other.detach()
        fills = os.dup(writes)

    def fill() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                if kind == "pipe":
                    os.write(fills, b"." * 100)
                else:
                    with socket.socket(fileno=os.dup(fills)) as end:
                        end.send(b"." * 100, socket.MSG_DONTWAIT)

    def read() -> str:
        text = b""
        while select.select([reads], [], [], 0)[0]:
            text += os.read(reads, 1 << 20)
        return text.decode()

    try:
        yield writes, fill, read
    finally:
        for descriptor in (reads, writes, fills):
            os.close(descriptor)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_nobody_waits_for_a_standard_error_that_is_full(kind: str, ecdsa: str) -> None:
    with backend(echo) as to, unread(kind) as (errors, fill, read), \
            subprocess.Popen([program("proxy"), "-f", "127.0.0.1:0", "-b", to, ecdsa], stdout=subprocess.PIPE,
                             stderr=errors, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            host, _, port = process.stdout.readline().strip().removeprefix("listening on ").rpartition(":")

            def provoke() -> None:
                """A line: a client that speaks no TLS."""
                with socket.create_connection((host, int(port)), timeout=60) as plain:
                    plain.sendall(b"not TLS\r\n\r\n")
                    with contextlib.suppress(ConnectionError):
                        assert plain.recv(100) is not None

            provoke()
            eventually(lambda: "handshake failed" in read(), "messages arrive")
            fill()
            time.sleep(1.1)  # a line a second at most
            provoke()
            with socket.create_connection((host, int(port)), timeout=60) as plain:
                with client_context().wrap_socket(plain) as tls:
                    tls.sendall(b"still here")
                    assert tls.recv(10) == b"still here"
            read()

            def told() -> bool:
                provoke()
                return "messages were lost: nobody took them" in read()

            eventually(told, "how many were lost is told")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def scribble(pid: int) -> int:
    """Writes noise over all that a process shares with others, as one that was taken over could; so many bytes."""
    written = 0
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            extent, access = line.split()[:2]
            if access == "rw-s":
                begin, end = (int(number, 16) for number in extent.split("-"))
                memory.seek(begin)
                memory.write(os.urandom(end - begin))
                written += end - begin
    return written


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGHUP])
def test_a_worker_that_writes_over_all_it_shares_does_not_take_the_master_with_it(ended_by: signal.Signals,
                                                                                  ecdsa: str) -> None:
    """Killed, it is replaced; and a reload replaces all. What other workers make of that memory is another matter."""
    # A worker of before may hang in a lock that is noise now: then it has to be killed before it is out of the way.
    with backend(echo) as to, running("proxy", "-f", "127.0.0.1:0", "-b", to, "-n", "2", "--maxconn", "10", "--stats",
                                      "127.0.0.1:0", "--drain-timeout", "1s", ecdsa) as server:
        workers = server.workers()
        try:
            assert scribble(workers[0]) > 100_000
        except PermissionError:
            pytest.skip("this system lets nobody write into another process")
        if ended_by == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):  # it may have died of it already
                os.kill(workers[0], signal.SIGKILL)
            eventually(lambda: any("killed by signal" in line for line in server.errors), "the master has seen it")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: any("reloaded" in line for line in server.errors), "the master reloads")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
