"""Where connections come from: source addresses, ports, PROXY headers."""
from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from counting_server import Server, free_port, load, read_request, response, server_context, serving
from programs import make_certificate, run

HTTP = "http://127.0.0.1:1/"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))[2]


def note_peers(server: Server) -> Counter[str]:
    peers: Counter[str] = Counter()

    def note(connection: socket.socket) -> bool:
        with server.lock:
            peers[connection.getpeername()[0]] += 1
        return False
    server.on_accept = note
    return peers


# ---- Source addresses ----


def test_source_addresses_are_used_in_turn():
    with serving(None) as server:
        peers = note_peers(server)
        result = load("--source", "127.1.2.0/29", "-c", 1, "-n", 12, f"http://127.0.0.1:{server.port}/")
    assert peers == {f"127.1.2.{last}": 2 for last in range(1, 7)}
    assert result["source"] == {"first": "127.1.2.1", "last": "127.1.2.6", "addresses": 6}


def test_one_address_is_a_source_too(pem):
    with serving(server_context(pem)) as server:
        peers = note_peers(server)
        load("--source", "127.9.9.9", "-c", 2, "-n", 4, server.url)
    assert peers == {"127.9.9.9": 4}


def test_workers_share_the_sources():
    with serving(None) as server:
        peers = note_peers(server)
        load("--source", "127.1.2.0/29", "-c", 2, "-w", 2, "-n", 12, f"http://127.0.0.1:{server.port}/")
    assert peers == {f"127.1.2.{last}": 2 for last in range(1, 7)}


def test_every_source_meets_every_target():
    """Two sources and two targets in step would leave half of the pairs, and of the ports, unused."""
    with serving(None) as one, serving(None) as other:
        peers = [note_peers(server) for server in (one, other)]
        load("--source", "127.1.2.0/31", "-c", 1, "-n", 8, *(f"http://127.0.0.1:{s.port}/" for s in (one, other)))
    assert peers == [{"127.1.2.0": 2, "127.1.2.1": 2}] * 2


# ---- Ports ----


def local_ports() -> int:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return high - low + 1


def test_more_connections_than_ports_are_refused_with_the_numbers():
    ports = local_ports()
    done = run("loadgen", "-c", str(2 * ports + 1), "-w", "250", "--source", "127.1.1.0/31", HTTP)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"loadgen: --connections: {2 * ports + 1}: {ports} local ports (net.ipv4.ip_local_port_range) x 2 source "
        f"address(es) x 1 target(s) allow {2 * ports} at a time")


def test_ports_that_are_likely_to_run_out_are_a_warning():
    url = f"http://127.0.0.1:{free_port()}/"
    done = run("loadgen", "--rate", "100000", "-d", "2s", url)
    assert done.returncode == 3  # it was tried all the same
    assert re.match(r"loadgen: warning: 100000 connections a second that keep their port", done.stderr)
    for options in (["--close", "rst"], ["--requests-per-connection", "inf"], ["--source", "127.0.0.0/8"]):
        assert "warning" not in run("loadgen", "--rate", "100000", "-d", "2s", *options, url).stderr


# ---- PROXY headers ----


def receive(connection: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length:
        more = connection.recv(length - len(got))
        assert more
        got += more
    return got


def read_proxy_header(connection: socket.socket, version: str) -> tuple:
    """What the header says: (family, source, destination)."""
    if version == "v1":
        line = b""
        while not line.endswith(b"\r\n"):
            line += receive(connection, 1)
        name, family, *words = line.decode().split()
        assert name == "PROXY" and len(line) <= 107
        if not words:
            return family, None, None
        source, destination, source_port, destination_port = words
        return family, (source, int(source_port)), (destination, int(destination_port))
    head = receive(connection, 16)
    assert head[:12] == b"\r\n\r\n\0\r\nQUIT\n"
    command, family, length = struct.unpack("!BBH", head[12:])
    rest = receive(connection, length)
    if command == 0x20:
        assert (family, length) == (0, 0)
        return "LOCAL", None, None
    assert (command, family, length) == (0x21, 0x11, 12)
    source, destination, *ports = struct.unpack("!4s4sHH", rest)
    return "TCP4", (socket.inet_ntoa(source), ports[0]), (socket.inet_ntoa(destination), ports[1])


@pytest.mark.parametrize("options", [[], ["--source", "127.3.3.3"]])
@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_proxy_header_comes_first_and_tells_both_addresses(pem, version, tls, options):
    told = []

    def read(connection: socket.socket) -> bool:
        told.append(read_proxy_header(connection, version) ==
                    ("TCP4", connection.getpeername(), connection.getsockname()))
        return False
    with serving(server_context(pem) if tls else None) as server:
        server.on_accept = read
        result = load("--proxy-protocol", version, *options, "-c", 2, "-n", 6,
                      f"http{'s' if tls else ''}://127.0.0.1:{server.port}/")
    assert told == [True] * 6
    assert result["transactions"] == server.counts["requests"] == 6
    assert result["proxy_protocol"] == version


@contextlib.contextmanager
def unix_server(path: Path, version: str) -> Iterator[list]:
    """Serves one connection."""
    told: list = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            told.append(read_proxy_header(connection, version)[0])
            assert read_request(connection, b"")
            connection.sendall(response(b"", "200 OK", "Connection: close"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        listener.settimeout(60)
        thread = threading.Thread(target=serve)
        thread.start()
        yield told
        thread.join()


@pytest.mark.parametrize("version, family", [("v1", "UNKNOWN"), ("v2", "LOCAL")])
def test_a_unix_socket_has_no_addresses_to_tell(tmp_path, version, family):
    with unix_server(tmp_path / "socket", version) as told:
        load("--proxy-protocol", version, "--unix", tmp_path / "socket", "-c", 1, "-n", 1, "http://any.invalid/")
    assert told == [family]


# ---- Refusals ----


@pytest.mark.parametrize("arguments, line", [
    (["--source", "nowhere"], "--source: nowhere: not an IP address"),
    (["--source", "127.0.0.1/33"], "--source: 127.0.0.1/33: the prefix is not a number from 0 to 32"),
    (["--source", "::1/129"], "--source: ::1/129: the prefix is not a number from 0 to 128"),
    (["--source", "127.0.0.0/"], "--source: 127.0.0.0/: the prefix is not a number"),
    (["--source", "::1"], f"--source: ::1 cannot be the source of a connection to {HTTP}: Address family"),
    (["--source", "192.0.2.0/24"], f"--source: 192.0.2.1 cannot be the source of a connection to {HTTP}: "),
    (["--source", "127.0.0.1", "--unix", "/nonexistent"], "--source: cannot be combined with --unix"),
    (["--proxy-protocol", "v3"], "--proxy-protocol: v3: must be one of v1 v2"),
])
def test_sources_that_cannot_be_are_refused(arguments, line):
    done = run("loadgen", *arguments, HTTP)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"loadgen: {line}")
