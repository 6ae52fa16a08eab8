"""What a backend is told, in a PROXY header of version 2, of the certificate that a client has shown."""
from __future__ import annotations

import queue
import ssl
import struct
from pathlib import Path

import pytest

from authority import Authority, openssl
from programs import Running
from proxies import connected, proxy
from test_proxy_headers import reading_version_2, tlvs
from test_proxy_tls import client_with

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
SSL, VERSION, CN, CLIENT_CERT = 0x20, 0x21, 0x22, 0x28
CLIENT_SSL, CERT_CONN, CERT_SESS = 0x01, 0x02, 0x04

Headers = queue.Queue[tuple[bytes, bytes, dict[int, bytes]]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tlvs") / "authority")


def visit(server: Running, context: ssl.SSLContext, headers: Headers,
          session: ssl.SSLSession | None = None) -> tuple[int, int, dict[int, bytes], ssl.SSLSession | None]:
    """A connection, and what the backend was told of it: (the bits, the result of the verification, the rest)."""
    with connected(server, context, session) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        assert bool(tls.session_reused) == bool(session)
        told = headers.get(timeout=60)[2][SSL]
        bits, verified = struct.unpack("!BI", told[:5])
        return bits, verified, tlvs(told[5:]), tls.session


@pytest.mark.parametrize("tickets", ["on", "off"])
@pytest.mark.parametrize("version", [V12, V13])
def test_the_certificate_of_a_client_is_told_now_and_when_it_resumes(version: ssl.TLSVersion, tickets: str, ecdsa: str,
                                                                     authority: Authority) -> None:
    certificate = authority.issue("a client", key="rsa:2048")
    der = ssl.PEM_cert_to_DER_cert(certificate.with_suffix(".crt").read_text())
    context = client_with(version, certificate)
    with reading_version_2() as (to, headers), \
            proxy(to, ecdsa, "--write-proxy=v2", "--client-ca", str(authority.certificate), "--tickets",
                  tickets) as server:
        bits, verified, facts, session = visit(server, context, headers)
        assert (bits, verified) == (CLIENT_SSL | CERT_CONN | CERT_SESS, 0)
        assert (facts[CN], facts[CLIENT_CERT]) == (b"a client", der)
        # It has shown none on this connection, but when its session began.
        for _ in range(2):
            bits, verified, facts, session = visit(server, context, headers, session)
            assert (bits, verified) == (CLIENT_SSL | CERT_SESS, 0)
            assert (facts[CN], facts[CLIENT_CERT]) == (b"a client", der)


@pytest.mark.parametrize("version", [V12, V13])
def test_a_client_without_a_certificate_is_told_from_one_that_was_verified(version: ssl.TLSVersion, ecdsa: str,
                                                                           authority: Authority) -> None:
    with reading_version_2() as (to, headers), \
            proxy(to, ecdsa, "--write-proxy=v2", "--client-ca", str(authority.certificate), "--client-verify",
                  "optional") as server:
        session = None
        for _ in range(2):
            bits, verified, facts, session = visit(server, client_with(version, None), headers)
            assert bits == CLIENT_SSL and verified != 0
            assert CN not in facts and CLIENT_CERT not in facts


def test_a_name_that_is_not_ascii_is_told_in_utf_8(ecdsa: str, authority: Authority, tmp_path: Path) -> None:
    key, request, certificate = (tmp_path / name for name in ("key", "csr", "crt"))
    openssl("req", "-new", "-nodes", "-utf8", "-subj", "/CN=Zoë", "-newkey", "rsa:2048", "-keyout", key, "-out",
            request)
    authority.signed("-in", request, "-out", certificate, "-days", 3, "-utf8")
    both = tmp_path / "pem"
    both.write_text(key.read_text() + certificate.read_text())
    with reading_version_2() as (to, headers), \
            proxy(to, ecdsa, "--write-proxy=v2", "--client-ca", str(authority.certificate)) as server:
        assert visit(server, client_with(V13, both), headers)[2][CN] == "Zoë".encode()
