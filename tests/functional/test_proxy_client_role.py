"""--client: the proxy is the one who believes a certificate, or does not, and notices a backend that is cut off."""
from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from authority import Authority
from programs import Running, run
from proxies import (Peer, backend, client_in, closed, counters, eventually, proxy, proxy_in, read_all, server_context,
                     TlsPeer)

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("client") / "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("client") / "stranger", "A stranger")


@contextlib.contextmanager
def believing(certificate: Path, version: ssl.TLSVersion, *options: object) -> Iterator[tuple[Running, list[bytes]]]:
    """A proxy to an echoing TLS backend with that certificate; and all that the backend ever heard."""
    context = server_context(str(certificate))
    context.minimum_version = context.maximum_version = version
    heard: list[bytes] = []

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError, OSError):
            peer = TlsPeer(plain, context, as_server=True)
            while data := peer.recv(1000):
                heard.append(data)
                peer.sendall(data)

    with backend(serve) as to, proxy(to, "", "--client", *map(str, options)) as server:
        yield server, heard


def say(server: Running) -> bytes:
    with socket.create_connection(server.host_port, timeout=60) as plain, contextlib.suppress(ConnectionError):
        plain.sendall(b"a secret")
        return plain.recv(100)
    return b""


@pytest.mark.parametrize("version", [V12, V13])
def test_a_backend_with_a_good_certificate_is_believed_and_resumed(version: ssl.TLSVersion,
                                                                   authority: Authority) -> None:
    certificate = authority.issue("backend", "backend.example")
    with believing(certificate, version, "--ca", authority.certificate, "--verify-name",
                   "backend.example") as (server, heard):
        for _ in range(3):
            assert say(server) == b"a secret"
        assert heard == [b"a secret"] * 3
        counted = counters(server)
        assert (counted["handshakes_full"], counted["handshakes_resumed"]) == (1, 2)


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("fault", ["another name", "unknown authority", "expired", "address"])
def test_a_backend_that_is_not_believed_hears_nothing(fault: str, version: ssl.TLSVersion, authority: Authority,
                                                      stranger: Authority) -> None:
    name = {"another name": "other.example", "address": "127.0.0.1"}.get(fault, "backend.example")
    who = stranger if fault == "unknown authority" else authority
    days = (-10, -1) if fault == "expired" else (-1, 30)
    # A common name that fits does not make up for names that do not.
    certificate = who.issue("other.example" if fault == "another name" else "backend", "backend.example", days=days)
    with believing(certificate, version, "--ca", authority.certificate, "--verify-name", name) as (server, heard):
        for _ in range(3):
            assert say(server) == b""
        closed(server, "handshake_failed", 3)
        assert heard == []
        assert counters(server)["handshakes_failed_by"]["peer_certificate"] == 3
        eventually(lambda: any("peer_certificate: the peer's certificate was missing or refused" in line
                               for line in server.errors), "the operator is told")


def test_without_an_authority_any_certificate_will_do(stranger: Authority) -> None:
    with believing(stranger.issue("whoever"), V13, "--verify-name", "backend.example") as (server, _):
        assert say(server) == b"a secret"


@pytest.mark.parametrize("client_ends_first", [True, False])
@pytest.mark.parametrize("end", ["clean", "cut off"])
def test_an_answer_that_was_cut_off_is_told_from_one_that_ended(end: str, client_ends_first: bool, ecdsa: str,
                                                                tmp_path: Path) -> None:
    """A FIN that nobody has signed may come from anywhere (RFC 8446, 6.1): the client in the clear cannot see that, the
    operator can."""
    log, go = tmp_path / "log", threading.Event()

    def answer(peer: Peer) -> None:
        assert peer.recv(100) == b"question"
        go.wait(60)
        peer.sendall(b"answer")
        if end == "clean":
            peer.end_sending()
            while peer.recv(100):
                pass

    with proxy_in("client", answer, ecdsa, "--access-log", str(log), "--log-format", "json") as server:
        with client_in("client", server) as client:
            client.sendall(b"question")
            if client_ends_first:
                client.end_sending()
            go.set()
            assert read_all(client) == b"answer"
        closed(server, "done" if end == "clean" else "hung_up")
        eventually(lambda: log.read_text().endswith("\n"), "the line is written")
        line = json.loads(log.read_text())
        assert line["close"] == ("done" if end == "clean" else "hung_up")
        assert line["bytes_to_client"] == len(b"answer")


@pytest.mark.parametrize("option", ["--session-cache=100", "--tickets=off", "--num-tickets=2", "--ticket-rotation=1m",
                                    "--session-lifetime=5m"])
def test_what_is_asked_of_sessions_that_there_are_none_of_is_refused(option: str) -> None:
    refused = run("proxy", "-t", "--client", "-b", "127.0.0.1:1", option)
    assert (refused.returncode, refused.stderr) == (2, f"proxy: {option.split('=')[0]}: not together with --client\n")
    # No cache is what there is; so stud's files have it.
    assert run("proxy", "-t", "--client", "-b", "127.0.0.1:1", "-C", "0").returncode == 0
