"""Connections to the echo-backend: when they stay, when they end, and what is no HTTP."""
import contextlib
import json
import os
import time
from pathlib import Path

import pytest
from echo_backends import Backend, ask, filling, is_closed, read_all, response_of


@pytest.mark.parametrize("version, headers, query, stays", [
    ("1.1", "", "", True),
    ("1.1", "Connection: close\r\n", "", False),
    ("1.1", "", "C=1", False),
    ("1.1", "", "C=0", True),
    ("1.0", "", "", False),
    ("1.0", "Connection: keep-alive\r\n", "", True),
    ("1.0", "Connection: keep-alive\r\n", "C=1", False),
    ("1.0", "", "K=1", True),
    ("1.1", "Connection: close\r\n", "K=1", True),
])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_connection_stays_open_or_closes_as_agreed(backend, version, headers, query, stays, method):
    if method == "POST":
        headers += "Content-Length: 1\r\n"
    with backend.connect() as client:
        response, body = ask(client, f"/?s=1&{query}", method, version, headers, b"0" if method == "POST" else b"")
        assert body == b"0"
        said = (response.header("Connection") or "").lower()
        assert said == ("close" if not stays else "keep-alive" if version == "1.0" else "")
        if stays:
            assert ask(client, "/?s=2")[1] == filling(2)
        else:
            assert is_closed(client)


def test_an_offer_to_change_the_protocol_is_not_taken(backend):
    with backend.connect() as client:
        response, body = ask(client, "/?s=3", headers="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                                                      "HTTP2-Settings: AAMAAABkAAQAAP__\r\n")
        assert (response.status, body) == (200, filling(3))
        assert ask(client, "/?s=1")[1] == b"0"


def test_what_follows_the_last_request_is_not_answered_and_costs_no_answer(backend):
    with backend.connect() as client:
        client.sendall(b"GET /?s=60k&C=1 HTTP/1.1\r\n\r\n" + b"GET / HTTP/1.1\r\n\r\n" * 5000)
        assert read_all(client).split(b"\r\n\r\n", 1)[1] == filling(60 * 1024)


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"hello\r\n\r\n",
                                     b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
                                     b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
                                     b"GET / HTTP/1.1\r\nA: " + b"a" * 200_000, b"CONNECT x:1 HTTP/1.1\r\n\r\n",
                                     b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
                                     b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0",
                                     b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                                     b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
                                     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
                         ids=["tls", "words", "header", "target", "long header", "connect", "two lengths",
                              "length and chunks", "length", "chunk", "HTTP/2"])
def test_what_is_not_http_gets_a_400_and_the_connection_ends(backend, rubbish):
    with backend.connect() as client:
        client.sendall(b"GET /?s=1 HTTP/1.1\r\n\r\n" + rubbish)
        assert response_of(client)[1] == b"0", "what came before is answered"
        response, body = response_of(client)
        assert response.status == 400 and body.count(b"\n") == 1
        assert is_closed(client)


def test_an_idle_connection_is_closed_and_a_delayed_one_is_not():
    with Backend("http", "--idle-timeout", "200ms") as backend:
        with backend.connect() as idle, backend.connect() as unfinished, backend.connect() as delayed:
            unfinished.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab")
            delayed.sendall(b"GET /?t=700&s=1 HTTP/1.1\r\n\r\n")
            assert is_closed(idle)
            read_all(unfinished)
            assert response_of(delayed)[1] == b"0"


def test_running_out_of_descriptors_neither_spins_nor_ends_the_service():
    with Backend("http", descriptors=40) as backend:
        clients = [backend.connect() for _ in range(60)]
        for client in clients:
            client.sendall(b"GET /?s=1 HTTP/1.1\r\n\r\n")
        worker, = backend.workers()
        for client in clients[:20]:
            assert response_of(client)[1] == b"0"
        before = cpu_seconds(worker)
        start = time.monotonic()
        time.sleep(0.5)
        assert cpu_seconds(worker) - before < 0.5 * (time.monotonic() - start)
        for client in clients[:30]:
            client.close()
        for client in clients[30:]:  # those who waited get their turn
            assert response_of(client)[1] == b"0"
            client.close()
    assert len([line for line in backend.errors if "accept: " in line]) == 1


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_many_connections_at_once_are_all_served():
    with Backend("http", "-n", 3) as backend, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(backend.connect()) for _ in range(300)]
        for number, client in enumerate(clients):
            client.sendall(f"GET /?s={number} HTTP/1.1\r\n\r\n".encode())
        workers = set()
        for number, client in enumerate(clients):
            assert response_of(client)[1] == filling(number)
            workers.add(json.loads(ask(client, "/whoami")[1])["worker_pid"])
        assert workers == set(backend.workers()) and len(workers) == 3
