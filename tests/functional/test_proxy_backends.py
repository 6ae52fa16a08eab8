"""Where the proxy listens and where it connects to: every kind of address, and names with several of them."""
from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import Running, run, running
from proxies import backend, client_context, closed, connected, counters, echo, eventually, proxy, read_exactly


def say(front: str | tuple[str, int], what: bytes = b"hello") -> bytes:
    """One connection: what came back."""
    with contextlib.ExitStack() as stack:
        if isinstance(front, str):
            plain = stack.enter_context(socket.socket(socket.AF_UNIX))
            plain.connect(front)
        else:
            plain = stack.enter_context(socket.create_connection(front, timeout=60))
        tls = stack.enter_context(client_context().wrap_socket(plain))
        tls.sendall(what)
        return read_exactly(tls, len(what))


@pytest.mark.parametrize(("front", "reached_at"), [
    ("127.0.0.1:0", ["127.0.0.1"]), ("127.0.0.1,0", ["127.0.0.1"]), ("[127.0.0.1]:0", ["127.0.0.1"]),
    ("localhost:0", ["localhost"]), ("[::1]:0", ["::1"]), ("[::1],0", ["::1"]),
    ("*:0", ["127.0.0.1", "127.0.0.5", "::1"]), ("*,0", ["127.0.0.1", "::1"]), ("[::]:0", ["::1", "127.0.0.1"]),
    ("0.0.0.0:0", ["127.0.0.1"]),
])
def test_every_spelling_of_a_frontend_listens(front: str, reached_at: list[str], ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "-n", "2", front=front) as server:
        port = int(server.address.rpartition(":")[2])
        for host in reached_at:
            assert say((host, port)) == b"hello"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
@pytest.mark.parametrize("comma", [False, True])
def test_every_kind_of_backend_is_reached(family: int, comma: bool, ecdsa: str, tmp_path: Path) -> None:
    with backend(echo, family, tmp_path) as to:
        if comma and family != socket.AF_UNIX:
            host, _, port = to.rpartition(":")
            to = f"{host},{port}"
        with proxy(to, ecdsa) as server:
            assert say(server.host_port) == b"hello"


def test_unix_sockets_on_both_sides_serve_all_workers(ecdsa: str, tmp_path: Path) -> None:
    front = str(tmp_path / "front.sock")
    with backend(echo, socket.AF_UNIX, tmp_path) as to, proxy(to, ecdsa, "-n", "3", front=front):
        for _ in range(20):
            assert say(front) == b"hello"


def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(ecdsa: str, tmp_path: Path) -> None:
    front = tmp_path / "front.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(front))
    with backend(echo) as to:
        with proxy(to, ecdsa, front=str(front)):
            assert say(str(front)) == b"hello"
            second = run("proxy", "-f", str(front), "-b", to, ecdsa)
            assert second.returncode == 2
            assert second.stderr == f"proxy: --frontend: {front}: cannot listen: Address already in use\n"
            assert say(str(front)) == b"hello"
        front.unlink()
        front.write_text("not a socket")
        assert run("proxy", "-f", str(front), "-b", to, ecdsa).returncode == 2
        assert front.read_text() == "not a socket"


# Names with several addresses: each test has its own /etc/hosts, in a mount namespace of the proxy's own.


def own_hosts(hosts: Path) -> list[str]:
    """What a proxy is started within so that `hosts` is its /etc/hosts."""
    within = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c",
              'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]
    tried = subprocess.run([*within, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no mount namespace here: {tried.stderr.strip()}")
    return within


class Several:
    """Backends on 127.0.0.N, all on one port, that count who came."""

    def __init__(self) -> None:
        self.served: collections.Counter[str] = collections.Counter()
        self.listeners: dict[str, socket.socket] = {}
        # Free on all of them, and kept from everybody else: who wants it on one of them shares it (SO_REUSEADDR).
        self.reserved = socket.socket()
        self.reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.reserved.bind(("0.0.0.0", 0))
        self.port = self.reserved.getsockname()[1]

    def start(self, host: str) -> None:
        listener = self.listeners[host] = socket.create_server((host, self.port))

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                self.served[host] += 1
                echo(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def stop(self, host: str) -> None:
        listener = self.listeners.pop(host)
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextlib.contextmanager
def several(*hosts: str) -> Iterator[Several]:
    backends = Several()
    try:
        for host in hosts:
            backends.start(host)
        yield backends
    finally:
        for host in list(backends.listeners):
            backends.stop(host)
        backends.reserved.close()


@contextlib.contextmanager
def proxy_to_name(hosts: Path, port: int, certificate: str, *options: str) -> Iterator[Running]:
    with running("proxy", "-f", "127.0.0.1:0", "-b", f"several.test:{port}", "--stats", "127.0.0.1:0", *options,
                 certificate, within=own_hosts(hosts)) as server:
        yield server


def hosts_file(folder: Path, *addresses: str) -> Path:
    file = folder / "hosts"
    file.write_text("".join(f"{address} several.test\n" for address in addresses))
    return file


def test_the_addresses_of_a_name_are_used_in_turn(ecdsa: str, tmp_path: Path) -> None:
    hosts = hosts_file(tmp_path, "127.0.0.1", "127.0.0.2", "127.0.0.3")
    with several("127.0.0.1", "127.0.0.2", "127.0.0.3") as backends, \
            proxy_to_name(hosts, backends.port, ecdsa) as server:
        for _ in range(12):
            assert say(server.host_port) == b"hello"
        assert backends.served == {"127.0.0.1": 4, "127.0.0.2": 4, "127.0.0.3": 4}


@pytest.mark.parametrize("options", [[], ["--write-proxy"]])
def test_an_address_that_refuses_costs_no_connection(options: list[str], ecdsa: str, tmp_path: Path) -> None:
    hosts = hosts_file(tmp_path, "127.0.0.1", "127.0.0.2", "127.0.0.3")
    with several("127.0.0.2") as backends, proxy_to_name(hosts, backends.port, ecdsa, *options) as server:
        for _ in range(6):
            with connected(server) as tls:
                tls.sendall(b"hello")
                answer = read_exactly(tls, 5 + len(options))
                assert answer == (b"PROXY " if options else b"hello")
        assert backends.served == {"127.0.0.2": 6}
        assert counters(server)["closed"]["connect_failed"] == 0

        # One that comes back is used again, after a while.
        backends.start("127.0.0.1")

        def back() -> bool:
            say(server.host_port)
            return backends.served["127.0.0.1"] > 0

        if not options:
            eventually(back, "it is tried again")
        backends.stop("127.0.0.2")
        if "127.0.0.1" in backends.listeners:
            backends.stop("127.0.0.1")
        with contextlib.suppress(OSError), connected(server) as tls:
            assert tls.recv(1) == b""
        closed(server, "connect_failed")


def test_in_client_role_an_address_that_refuses_costs_no_connection(tmp_path: Path, ecdsa: str) -> None:
    """Each try has a TLS of its own, and the header is sent once."""
    hosts = hosts_file(tmp_path, "127.0.0.1", "127.0.0.2")
    with backend(echo) as to, proxy(to, ecdsa, "--proxy-proxy", front="127.0.0.2:0") as inner:
        with running("proxy", "-f", "127.0.0.1:0", "-b", f"several.test:{inner.host_port[1]}", "--client",
                     "--write-proxy", within=own_hosts(hosts)) as outer:
            for _ in range(4):
                with socket.create_connection(outer.host_port, timeout=60) as plain:
                    plain.sendall(b"hello")
                    answer = read_exactly(plain, len(b"PROXY TCP4 "))
                    assert answer == b"PROXY TCP4 "


def test_the_name_is_resolved_again(ecdsa: str, tmp_path: Path) -> None:
    hosts = hosts_file(tmp_path, "127.0.0.1")
    with several("127.0.0.1", "127.0.0.2") as backends, \
            proxy_to_name(hosts, backends.port, ecdsa, "-n", "2", "--backend-refresh", "200ms") as server:
        assert say(server.host_port) == b"hello"
        assert backends.served == {"127.0.0.1": 1}
        hosts.write_text("127.0.0.2 several.test\n")

        def moved() -> bool:
            say(server.host_port)
            return backends.served["127.0.0.2"] > 0

        eventually(moved, "the new address is used")
        eventually(lambda: not stragglers(server), "what resolves is short-lived")
        before = backends.served["127.0.0.1"]
        for _ in range(6):
            say(server.host_port)
        assert backends.served["127.0.0.1"] == before

        # A name that is gone for a while does not take its addresses with it.
        hosts.write_text("")
        eventually(lambda: any("going on with the old" in line for line in server.errors), "the operator is told")
        assert say(server.host_port) == b"hello"


def stragglers(server: Running) -> bool:
    return len(server.workers()) > 2


def test_without_refresh_the_addresses_stay(ecdsa: str, tmp_path: Path) -> None:
    hosts = hosts_file(tmp_path, "127.0.0.1")
    with several("127.0.0.1", "127.0.0.2") as backends, proxy_to_name(hosts, backends.port, ecdsa) as server:
        hosts.write_text("127.0.0.2 several.test\n")
        for _ in range(5):
            say(server.host_port)
        assert backends.served == {"127.0.0.1": 5}


@contextlib.contextmanager
def deaf_listener(port: int) -> Iterator[None]:
    """127.0.0.1, with a full queue: whoever comes hears nothing."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deaf.bind(("127.0.0.1", port))
        deaf.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        yield


def test_an_address_that_does_not_answer_costs_no_connection(ecdsa: str, tmp_path: Path) -> None:
    hosts = hosts_file(tmp_path, "127.0.0.1", "127.0.0.2")
    with several("127.0.0.2") as backends, deaf_listener(backends.port), \
            proxy_to_name(hosts, backends.port, ecdsa, "--connect-timeout", "500ms") as server:
        for _ in range(4):
            assert say(server.host_port) == b"hello"
        assert backends.served == {"127.0.0.2": 4}


def test_a_full_buffer_waits_for_the_next_address(ecdsa: str, tmp_path: Path) -> None:
    """What the client sent while the first address did not answer is more than the buffer holds."""
    hosts = hosts_file(tmp_path, "127.0.0.1", "127.0.0.2")
    what = bytes(at % 251 for at in range(100_000))
    with several("127.0.0.2") as backends, deaf_listener(backends.port), \
            proxy_to_name(hosts, backends.port, ecdsa, "--connect-timeout", "500ms") as server, \
            socket.create_connection(server.host_port, timeout=60) as plain:
        received, waiting = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(received, waiting)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        plain.sendall(waiting.read())
        while True:
            received.write(plain.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break
        tls.write(what)
        # All of it is there when the worker looks.
        worker = server.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        plain.sendall(waiting.read())
        os.kill(worker, signal.SIGCONT)
        echoed = b""
        while len(echoed) < len(what):
            data = plain.recv(65536)
            assert data, "the connection was cut off"
            received.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    echoed += tls.read(65536)
        assert echoed == what
