"""stud's datagrams: made here byte by byte as its authors describe them, and as the proxy makes them."""
from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import subprocess
import time
from pathlib import Path

import pytest

from hosts import address_of, applied, by_id, farm, rejected, shared, visit
from programs import Running
from proxies import backend, client_context, counters, echo, eventually, proxy
from test_proxy_sharing_attacks import was_rejected

STUD = ("--shared-cache-format", "stud", "--tickets", "off")


def key_of(certificate: str, kind: str) -> bytes:
    """SHA-1 of the private key's DER."""
    der = subprocess.run(["openssl", kind, "-in", certificate, "-outform", "DER",
                          *(["-traditional"] if kind == "rsa" else [])], check=True, capture_output=True).stdout
    return hashlib.sha1(der).digest()


def packet(key: bytes, session_id: bytes, session: bytes, born: float) -> bytes:
    unsigned = session_id.ljust(32, b"\0") + session + struct.pack(">I", int(born))
    return unsigned + hmac.new(key, unsigned, "sha1").digest()


def der(tag: int, content: bytes) -> bytes:
    length = len(content)
    return bytes([tag]) + (bytes([length]) if length < 128 else bytes([0x82, length >> 8, length & 255])) + content


def number(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


SERVERS_OWN = b"tlsdyno".ljust(32, b"\0")  # the session ID context of the proxy


def make_session(session_id: bytes, born: float, context: bytes = SERVERS_OWN) -> bytes:
    """OpenSSL's SSL_SESSION of TLS 1.2, ECDHE-RSA-AES128-GCM-SHA256, in DER; that of a client has no context."""
    return der(0x30, number(1) + number(0x0303) + der(4, b"\xc0\x2f") + der(4, session_id)
               + der(4, b"a master secret of forty-eight bytes............")
               + der(0xa1, number(int(born))) + der(0xa2, number(300))
               + (der(0xa4, der(4, context)) if context else b"")
               + der(0xad, number(1)))  # with an extended master secret


def send(server: Running, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, address_of(server.announced["shared cache"]))


def resumes(server: Running, session_id: bytes, folder: Path) -> bool:
    session = make_session(session_id, time.time(), b"")
    file = folder / "session.pem"
    file.write_text("-----BEGIN SSL SESSION PARAMETERS-----\n" + base64.encodebytes(session).decode()
                    + "-----END SSL SESSION PARAMETERS-----\n")
    said = subprocess.run(["openssl", "s_client", "-connect", server.address, "-tls1_2", "-no_ticket", "-sess_in",
                           str(file)], input="", capture_output=True, text=True, check=True, timeout=60).stdout
    assert ("\nReused, TLSv1.2" in said) != ("\nNew, TLSv1.2" in said), said
    return "\nReused, TLSv1.2" in said


@pytest.fixture
def rsa(certificates: Path) -> str:
    return str(certificates / "rsa-2048-localhost.pem")


def test_a_packet_made_from_the_description_is_taken_and_its_session_resumes(rsa: str, tmp_path: Path) -> None:
    session_id, now = os.urandom(32), time.time()
    session = make_session(session_id, now)
    with backend(echo) as to, proxy(to, rsa, "-U", "127.0.0.1:0", *STUD) as server:
        assert resumes(server, session_id, tmp_path) is False
        send(server, packet(key_of(rsa, "rsa"), session_id, session, now))
        applied(server, 1)
        assert resumes(server, session_id, tmp_path) is True
        assert counters(server)["handshakes_resumed"] == 1


@pytest.mark.parametrize(("key", "kind"), [("rsa-2048", "rsa"), ("ecdsa-P-256", "ec")])
def test_what_the_proxy_sends_is_as_described(key: str, kind: str, certificates: Path) -> None:
    certificate = str(certificates / f"{key}-localhost.pem")
    with farm(certificate, *STUD, meet=False) as hosts:
        one, other = hosts.hosts
        context = by_id()
        _, session = visit(one, context)
        applied(other, 1)
        assert visit(other, context, session)[0] is True
        (datagram,) = hosts.wires[0, 1].seen
        body, born = datagram[32:-24], struct.unpack(">I", datagram[-24:-20])[0]
        assert datagram == packet(key_of(certificate, kind), session.id, body, born)
        assert abs(born - time.time()) < 60
        # A stateful ticket of TLS 1.3 too.
        context = client_context(ssl.TLSVersion.TLSv1_3)
        _, ticket = visit(one, context)
        applied(other, 2)
        assert visit(other, context, ticket)[0] is True


def test_the_secret_may_be_a_file(rsa: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32))
    session_id, now = os.urandom(32), time.time()
    with backend(echo) as to, proxy(to, rsa, "-U", "127.0.0.1:0", "--shared-cache-key", str(secret), *STUD) as server:
        session = make_session(session_id, now)
        send(server, packet(hashlib.sha1(secret.read_bytes()).digest(), session_id, session, now))
        applied(server, 1)
        assert resumes(server, session_id, tmp_path) is True


def test_what_is_wrong_is_not_taken(rsa: str, tmp_path: Path) -> None:
    """Replays neither replace a session nor make it live longer; a key of zeros, as forks of stud had, is no key."""
    key, now = key_of(rsa, "rsa"), time.time()
    session_id = os.urandom(32)
    session = make_session(session_id, now)
    good = packet(key, session_id, session, now)
    with backend(echo) as to, \
            proxy(to, rsa, "-U", "127.0.0.1:0", *STUD, "--session-lifetime", "2m") as server:
        for datagram, reason in [
                (good[:56], "truncated"), (b"", "truncated"),
                (packet(key, session_id, bytes(513), now), "oversized"), (good + bytes(500), "oversized"),
                (good[:-1] + bytes([good[-1] ^ 1]), "forged"), (good[:40] + b"x" + good[41:], "forged"),
                (packet(bytes(20), session_id, session, now), "forged"), (os.urandom(200), "forged"),
                (packet(key, session_id, session, now - 120), "expired"),
                (packet(key, session_id, session, now + 600), "misdated"),
                (packet(key, session_id, session[:-1], now), "malformed"),
                (packet(key, session_id, session + b"x", now), "malformed"),
                (packet(key, os.urandom(32), session, now), "malformed"),
                (packet(key, session_id, os.urandom(100), now), "malformed")]:
            before = rejected(server)
            send(server, datagram)
            was_rejected(server, reason, before)
        assert shared(server)["sessions_applied"] == 0
        send(server, good, good, packet(key, session_id, session, now + 60))
        eventually(lambda: shared(server)["sessions_known"] == 2, "the first is kept")
        assert resumes(server, session_id, tmp_path) is True
