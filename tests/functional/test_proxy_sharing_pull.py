"""A session that a host does not have is asked of the others while the client waits."""
from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time

import pytest

from hosts import applied, by_id, farm, hello_for, is_to_all, rejected, shared, visit
from proxies import backend, client_context, counters, cpu_s, echo, eventually, nobody, proxy

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_session_that_is_not_here_is_asked_for(version: ssl.TLSVersion, ecdsa: str) -> None:
    """
    What the one tells all is lost from when they have met, so the other has its sessions only by asking. Questions are
    told to all too, together with whatever else there is to tell then, so the other way nothing is lost.
    """
    with farm(ecdsa, "--tickets", "off", "--shared-cache-pull", "1s") as hosts:
        one, other = hosts.hosts
        hosts.wires[0, 1].carry = lambda datagram: [] if is_to_all(datagram) else [datagram]
        before = rejected(one), rejected(other)
        context = client_context(version)
        for count in range(1, 6):
            _, session = visit(one, context)
            assert visit(other, context, session)[0] is True
            assert counters(other)["session_pulls_found"] == counters(other)["session_pulls"] == count
            eventually(lambda: shared(one)["pulls_answered"] == count, "the answer is counted, when it has left")
        assert (rejected(one), rejected(other)) == before


def test_a_session_that_is_known_to_be_dead_is_not_asked_for(ecdsa: str) -> None:
    """Neither where it was used up nor where that was told of; else the client would wait for what nobody has."""
    with farm(ecdsa, "--tickets", "off", "--shared-cache-pull", "1s") as hosts:
        one, other = hosts.hosts
        context = client_context(TLS13)
        _, session = visit(one, context)
        applied(other, 1)
        assert visit(one, context, session)[0] is True
        eventually(lambda: shared(other)["withdrawals_applied"] == 1, "it is withdrawn")
        for server in hosts.hosts:
            assert visit(server, context, session)[0] is False
            assert counters(server)["session_pulls"] == shared(server)["pulls_asked"] == 0


def test_clients_that_leave_while_they_wait_and_those_that_stay(ecdsa: str) -> None:
    with nobody() as silent, backend(echo) as to, contextlib.ExitStack() as stack, \
            proxy(to, ecdsa, "-U", "127.0.0.1:0", "-P", silent, "--shared-cache-pull", "1s") as server:
        clients = [stack.enter_context(socket.create_connection(server.host_port, timeout=60)) for _ in range(300)]
        for client in clients:
            client.sendall(hello_for(os.urandom(32)))
        eventually(lambda: counters(server)["session_pulls"] >= 256, "as many as may wait do")
        for client in clients[::2]:
            client.close()
        for client in clients[1::2]:
            assert client.recv(1) == b"\x16", "a handshake record: it goes on without the session"
        assert counters(server)["session_pulls_found"] == 0


def test_what_a_client_sends_while_it_waits_is_no_work(ecdsa: str) -> None:
    """Beyond its ClientHello, which nobody is to look at again and again."""
    with nobody() as silent, backend(echo) as to, \
            proxy(to, ecdsa, "-U", "127.0.0.1:0", "-P", silent, "--shared-cache-pull", "1s") as server:

        def cpu_of_one_that_waits() -> float | None:
            """None: it did not wait for as long as it was looked at."""
            asked = counters(server)["session_pulls"]
            with socket.create_connection(server.host_port, timeout=60) as client:
                client.sendall(hello_for(os.urandom(32)))
                eventually(lambda: counters(server)["session_pulls"] > asked, "it waits")
                client.sendall(b"\x16\x03\x03")
                before = sum(map(cpu_s, server.workers()))
                time.sleep(0.5)
                spent = sum(map(cpu_s, server.workers())) - before
                client.setblocking(False)
                try:
                    client.recv(1)
                except BlockingIOError:
                    return spent
                return None

        spent = cpu_of_one_that_waits()
        while spent is None:
            spent = cpu_of_one_that_waits()
        assert spent < 0.2


def test_nobody_has_it_and_the_handshake_is_a_full_one(ecdsa: str) -> None:
    with nobody() as silent, backend(echo) as to, proxy(to, ecdsa) as elsewhere, \
            proxy(to, ecdsa, "-U", "127.0.0.1:0", "-P", silent, "--shared-cache-pull", "20ms") as server:
        context = by_id()
        _, session = visit(elsewhere, context)
        assert visit(server, context, session)[0] is False
        assert (counters(server)["session_pulls"], counters(server)["session_pulls_found"]) == (1, 0)


def test_what_is_no_session_of_the_cache_is_not_asked_for(ecdsa: str) -> None:
    """A ticket, and the ID that clients of TLS 1.3 make up for old boxes on the way."""
    with farm(ecdsa, "--shared-cache-pull", "1s") as hosts:
        one, other = hosts.hosts
        for version in (TLS12, TLS13):
            context = client_context(version)
            _, session = visit(one, context)
            assert visit(other, context, session)[0] is True
            visit(other, context)
        assert counters(other)["session_pulls"] == 0
