"""The backend learns who the client is, in every form of the contract; and a client's own header is passed on."""
from __future__ import annotations

import contextlib
import os
import queue
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import Running, run
from proxies import (ROLES, Peer, TlsPeer, backend, client_context, closed, connected, counters, echo, proxy,
                     read_exactly, recording, server_context)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def talk(server: Running, front: str) -> tuple[bytes, int]:
    """One connection that says "hello": (the client's address, its port)."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((front, int(port)), timeout=60) as plain:
        with client_context().wrap_socket(plain) as tls:
            tls.sendall(b"hello")
            assert read_exactly(tls, 5) == b"hello"
            name = tls.getsockname()
            family = socket.AF_INET6 if ":" in name[0] else socket.AF_INET
            return socket.inet_pton(family, name[0]), name[1]


@pytest.mark.parametrize("front", ["127.0.0.1", "::1"])
def test_write_ip_sends_the_family_and_the_address(front: str, ecdsa: str) -> None:
    family = socket.AF_INET6 if ":" in front else socket.AF_INET
    address = socket.inet_pton(family, front)
    with recording(1 + len(address)) as (to, heard), proxy(to, ecdsa, "--write-ip", front="*:0") as server:
        talk(server, front)
        assert heard.get(timeout=60) == bytes([family]) + address


@pytest.mark.parametrize(("front", "expected"), [("127.0.0.2", b"\x7f\0\0\x01"), ("::1", bytes(4))])
def test_write_ipv4_sends_four_octets(front: str, expected: bytes, ecdsa: str) -> None:
    with recording(4) as (to, heard), proxy(to, ecdsa, "--write-ipv4", front="*:0") as server:
        talk(server, front)
        assert heard.get(timeout=60) == expected


@pytest.mark.parametrize("option", ["--write-proxy", "--write-proxy=v1", "--write-proxy-v1"])
@pytest.mark.parametrize(("front", "name"), [("127.0.0.2", "TCP4"), ("::1", "TCP6")])
def test_write_proxy_is_a_line_with_the_address_that_the_client_really_went_to(option: str, front: str, name: str,
                                                                               ecdsa: str) -> None:
    lines: queue.Queue[bytes] = queue.Queue()

    def serve(connection: socket.socket) -> None:
        line = b""
        while not line.endswith(b"\r\n"):
            line += connection.recv(1)
        lines.put(line)
        echo(connection)

    with backend(serve) as to, proxy(to, ecdsa, option, front="*:0") as server:
        _, port = talk(server, front)
        source = "127.0.0.1" if name == "TCP4" else "::1"
        listening = server.address.rpartition(":")[2]
        assert lines.get(timeout=60).decode() == f"PROXY {name} {source} {front} {port} {listening}\r\n"


def tlvs(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        kind, length = struct.unpack("!BH", data[:3])
        found[kind] = data[3:3 + length]
        data = data[3 + length:]
    return found


def read_version_2(connection: socket.socket) -> tuple[bytes, bytes, dict[int, bytes]]:
    """(command and family, addresses, TLVs)"""
    start = read_exactly(connection, 16)
    assert start[:12] == SIGNATURE
    rest = read_exactly(connection, struct.unpack("!H", start[14:])[0]) if start[14:] != b"\0\0" else b""
    size = {0x11: 12, 0x21: 36}.get(start[13], 0)
    return start[12:14], rest[:size], tlvs(rest[size:])


@contextlib.contextmanager
def reading_version_2() -> Iterator[tuple[str, queue.Queue[tuple[bytes, bytes, dict[int, bytes]]]]]:
    headers: queue.Queue[tuple[bytes, bytes, dict[int, bytes]]] = queue.Queue()

    def serve(connection: socket.socket) -> None:
        headers.put(read_version_2(connection))
        echo(connection)

    with backend(serve) as to:
        yield to, headers


@pytest.mark.parametrize(("kind", "key_name"), [("ecdsa-P-256", b"EC256"), ("rsa-2048", b"RSA2048")])
def test_version_2_tells_of_tls(kind: str, key_name: bytes, certificates: Path) -> None:
    with reading_version_2() as (to, headers), \
            proxy(to, str(certificates / f"{kind}-localhost.pem"), "--write-proxy=v2") as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            with client_context(ssl.TLSVersion.TLSv1_3).wrap_socket(plain, server_hostname="www.example.org") as tls:
                tls.sendall(b"hello")
                assert read_exactly(tls, 5) == b"hello"
                port = tls.getsockname()[1]
                cipher = tls.cipher()
        command, addresses, found = headers.get(timeout=60)
        assert command == b"\x21\x11"
        assert addresses == socket.inet_aton("127.0.0.1") * 2 + struct.pack("!HH", port, server.host_port[1])
        assert found[0x02] == b"www.example.org"
        assert found[0x20][0] == 0x01, "TLS, without a certificate"
        assert found[0x20][1:5] != bytes(4), "0 would say that a certificate was verified"
        assert cipher
        assert tlvs(found[0x20][5:]) == {0x21: b"TLSv1.3", 0x23: cipher[0].encode(), 0x24: b"SHA256", 0x25: key_name,
                                         0x26: tlvs(found[0x20][5:])[0x26]}
        assert tlvs(found[0x20][5:])[0x26].lower() in (b"x25519", b"prime256v1", b"secp256r1")


@pytest.mark.parametrize("option", ["--write-proxy=v2", "--write-proxy-v2"])
def test_version_2_need_not_tell_which_name_was_asked_for(option: str, ecdsa: str) -> None:
    with reading_version_2() as (to, headers), proxy(to, ecdsa, option, "--proxy-authority=off") as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            with client_context().wrap_socket(plain, server_hostname="www.example.org") as tls:
                tls.sendall(b"hello")
                assert read_exactly(tls, 5) == b"hello"
        found = headers.get(timeout=60)[2]
        assert 0x02 not in found and 0x20 in found


@pytest.mark.parametrize(("offer", "agreed"), [("-nextprotoneg", b"h2-14"), ("-alpn", b"h2-14")])
def test_version_2_tells_of_the_protocol_that_was_agreed_in_either_way(offer: str, agreed: bytes, ecdsa: str) -> None:
    """Next Protocol Negotiation is what there was before ALPN."""
    with reading_version_2() as (to, headers), \
            proxy(to, ecdsa, "--write-proxy-v2", "--alpn", "h2, h2-14 ,http/1.1") as server:
        done = subprocess.run(["openssl", "s_client", "-tls1_2", "-connect", server.address, offer, agreed.decode()],
                              input="hello", capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert headers.get(timeout=60)[2][0x01] == agreed


def test_version_2_of_a_resumed_session_names_no_certificate(ecdsa: str) -> None:
    context = client_context(ssl.TLSVersion.TLSv1_2)
    with reading_version_2() as (to, headers), proxy(to, ecdsa, "--write-proxy=v2") as server:
        with connected(server, context) as tls:
            tls.sendall(b"x")
            tls.recv(1)
            session = tls.session
        with connected(server, context, session) as tls:
            tls.sendall(b"x")
            tls.recv(1)
            assert tls.session_reused
        first, second = (tlvs(headers.get(timeout=60)[2][0x20][5:]) for _ in range(2))
        assert 0x25 in first and 0x25 not in second
        assert second[0x21] == b"TLSv1.2"


@pytest.mark.parametrize(("option", "expected"), [("--write-proxy=v1", b"PROXY UNKNOWN\r\n"),
                                                  ("--write-proxy=v2", SIGNATURE + b"\x20\0\0\0"),
                                                  ("--write-ip", b"\0"), ("--write-ipv4", bytes(4))])
def test_a_client_on_a_unix_socket_has_no_address(option: str, expected: bytes, ecdsa: str, tmp_path: Path) -> None:
    front = str(tmp_path / "front.sock")
    with recording(len(expected)) as (to, heard), proxy(to, ecdsa, option, front=front):
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(front)
            with client_context().wrap_socket(plain) as tls:
                tls.sendall(b"hello")
                assert read_exactly(tls, 5) == b"hello"
        assert heard.get(timeout=60) == expected


@pytest.mark.parametrize("option", ["--write-proxy=v1", "--write-proxy=v2", "--write-ip"])
def test_header_and_request_leave_in_one_piece(option: str, ecdsa: str) -> None:
    pieces: queue.Queue[bytes] = queue.Queue()

    def serve(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            pieces.put(data)

    with backend(serve) as to, proxy(to, ecdsa, option) as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            received, waiting = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context(ssl.TLSVersion.TLSv1_3).wrap_bio(received, waiting)
            # The client's Finished and its request leave in one segment, so they are there at once.
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    plain.sendall(waiting.read())
                    received.write(plain.recv(65536))
            tls.write(b"GET / HTTP/1.1\r\n\r\n")
            plain.sendall(waiting.read())
            piece = pieces.get(timeout=60)
            assert piece.endswith(b"GET / HTTP/1.1\r\n\r\n")
            assert len(piece) > len(b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("option", ["--write-proxy=v1", "--write-proxy=v2", "--write-ip"])
def test_the_header_is_sent_though_the_client_stays_silent(option: str, ecdsa: str) -> None:
    def greet(connection: socket.socket) -> None:
        assert connection.recv(1000)
        connection.sendall(b"220 ready")
        connection.recv(1)

    with backend(greet) as to, proxy(to, ecdsa, option) as server, connected(server) as tls:
        assert read_exactly(tls, 9) == b"220 ready"


def test_in_client_role_the_header_goes_before_tls(ecdsa: str) -> None:
    heard: queue.Queue[bytes] = queue.Queue()

    def serve(connection: socket.socket) -> None:
        line = b""
        while not line.endswith(b"\r\n"):
            line += connection.recv(1)
        heard.put(line)
        tls = TlsPeer(connection, server_context(ecdsa), as_server=True)
        tls.sendall(tls.recv(100))

    with backend(serve) as to, proxy(to, "", "--client", "--write-proxy") as server:
        with socket.create_connection(server.host_port, timeout=60) as client:
            client.sendall(b"hello")
            assert read_exactly(client, 5) == b"hello"
            expected = f"PROXY TCP4 127.0.0.1 127.0.0.1 {client.getsockname()[1]} {server.host_port[1]}\r\n"
        assert heard.get(timeout=60).decode() == expected


# --proxy-proxy

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 1234 443\r\n"
V2 = (SIGNATURE + b"\x21\x11" + struct.pack("!H", 12 + 8) + bytes([192, 0, 2, 1, 198, 51, 100, 7]) +
      struct.pack("!HH", 1234, 443) + b"\x02\0\5a.org")
V2_IPV6 = SIGNATURE + b"\x21\x21" + struct.pack("!H", 36) + bytes(range(36))
V2_LONG = SIGNATURE + b"\x21\x11" + struct.pack("!H", 12 + 3 + 9000) + bytes(12) + b"\xe0" + struct.pack(
    "!H", 9000) + os.urandom(9000)
GOOD = [V1, V2, V2_IPV6, V2_LONG, b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN what ever\r\n", SIGNATURE + b"\x20\0\0\0",
        b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ::1 65535 65535\r\n"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("header", GOOD, ids=lambda header: repr(header[:16]))
@pytest.mark.parametrize("pace", ["at once", "byte by byte"])
def test_a_header_that_the_client_brings_is_passed_on_unchanged(header: bytes, pace: str, role: str,
                                                                ecdsa: str) -> None:
    heard: queue.Queue[bytes] = queue.Queue()

    def serve(connection: socket.socket) -> None:
        heard.put(read_exactly(connection, len(header)))
        peer: Peer | socket.socket = connection
        if role == "client":
            peer = TlsPeer(connection, server_context(ecdsa), as_server=True)
        peer.sendall(peer.recv(100))

    options = ["--client"] if role == "client" else []
    with backend(serve) as to, proxy(to, ecdsa if role == "server" else "", "--proxy-proxy", *options) as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            if pace == "byte by byte":
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in header[:300]:
                    plain.sendall(bytes([byte]))
                plain.sendall(header[300:])
            else:
                plain.sendall(header)
            if role == "client":
                plain.sendall(b"hello")
                assert read_exactly(plain, 5) == b"hello"
            else:
                peer = TlsPeer(plain, client_context())
                peer.sendall(b"hello")
                assert read_exactly(peer, 5) == b"hello"
        assert heard.get(timeout=60) == header


def test_header_and_client_hello_in_one_segment_are_parted(ecdsa: str) -> None:
    with recording(len(V1)) as (to, heard), proxy(to, ecdsa, "--proxy-proxy") as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            received, waiting = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context().wrap_bio(received, waiting)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            plain.sendall(V1 + waiting.read())
            while True:
                received.write(plain.recv(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                    break
            plain.sendall(waiting.read())
            assert heard.get(timeout=60) == V1


BAD = [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
       b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n", b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
       b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
       b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
       b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", b"PROXY " + b"x" * 200, b"PROXY UNKNOWN\0\r\n", b"",
       SIGNATURE + b"\x31\x11\0\x0c" + bytes(12), SIGNATURE + b"\x21\x11\0\x0b" + bytes(11),
       SIGNATURE + b"\x22\x11\0\x0c" + bytes(12), SIGNATURE + b"\x21\x41\0\x0c" + bytes(12),
       SIGNATURE[:11] + b"X", SIGNATURE + b"\x21\x11\xff\xff" + bytes(12)]


def test_what_is_no_header_ends_the_connection_and_is_counted(ecdsa: str) -> None:
    def never(connection: socket.socket) -> None:
        raise AssertionError("the backend was told")

    with backend(never) as to, proxy(to, ecdsa, "--proxy-proxy") as server:
        for bad in BAD:
            with socket.create_connection(server.host_port, timeout=60) as plain:
                plain.sendall(bad)
                if not bad:
                    plain.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    assert plain.recv(100) == b"", bad
        closed(server, "bad_proxy_header", len(BAD))
        assert counters(server)["connections_open"] == 0
        assert counters(server)["bytes_to_backend"] == 0


def test_a_header_that_never_ends_runs_into_the_handshake_timeout(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "--proxy-proxy", "--handshake-timeout", "300ms") as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            plain.sendall(V1[:10])
            assert plain.recv(1) == b""
        closed(server, "handshake_timeout")


def test_the_reverse_role_writes_what_this_role_reads(ecdsa: str) -> None:
    """client -> proxy --client --write-proxy -> proxy --proxy-proxy -> backend: one who it is, through both."""
    with recording(5) as (to, heard), proxy(to, ecdsa, "--proxy-proxy") as inner, \
            proxy(inner.address, "", "--client", "--write-proxy=v2") as outer:
        with socket.create_connection(outer.host_port, timeout=60) as plain:
            plain.sendall(b"hello")
            header = SIGNATURE + b"\x21\x11\0\x0c" + socket.inet_aton("127.0.0.1") * 2 + struct.pack(
                "!HH", plain.getsockname()[1], outer.host_port[1])
            assert read_exactly(plain, len(header) - 5 + 5) == header[5:] + b"hello"
        assert heard.get(timeout=60) == header[:5]


@pytest.mark.parametrize(("options", "complaint"), [
    (["--write-ip", "--write-ipv4"], "--write-ipv4: cannot be had together with --write-ip"),
    (["--write-proxy", "--proxy-proxy"], "--proxy-proxy: cannot be had together with --write-proxy"),
    (["--write-ip", "--write-proxy=v2"], "--write-proxy: cannot be had together with --write-ip"),
    (["--write-proxy-v1", "--write-proxy-v2"], "--write-proxy-v2: cannot be had together with --write-proxy-v1"),
    (["--write-proxy=v3"], "--write-proxy: v3: must be one of v1 v2"),
])
def test_headers_that_exclude_each_other_are_refused(options: list[str], complaint: str, ecdsa: str) -> None:
    refused = run("proxy", "-b", "127.0.0.1:1", *options, ecdsa)
    assert (refused.returncode, refused.stderr) == (2, f"proxy: {complaint}\n")
