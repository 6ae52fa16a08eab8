"""Sessions and ticket keys of the reference proxy, shared between hosts."""
from __future__ import annotations

import contextlib
import os
import signal
import ssl
from pathlib import Path

import pytest

from hosts import Farm, applied, by_id, farm, have_met, host, rejected, shared, visit
from programs import children, make_certificate, name_of, run
from proxies import backend, client_context, counters, echo, eventually, proxy

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def sync_process(pid: int) -> int:
    return next(child for child in children(pid) if name_of(child) == "proxy-sync")


def test_a_session_born_on_one_host_resumes_on_every_other(ecdsa: str) -> None:
    with farm(ecdsa, own=([], [], [])) as hosts:
        context = by_id()
        for born in range(3):
            _, session = visit(hosts.hosts[born], context)
            for other in range(3):
                if other != born:
                    applied(hosts.hosts[other], shared(hosts.hosts[other])["sessions_applied"] or 1)
                    eventually(lambda: visit(hosts.hosts[other], context, session)[0], "resumed elsewhere")
        for one in hosts.hosts:
            assert shared(one)["lost"] == 0 and shared(one)["sessions_announced"] >= 1


def test_without_sharing_a_session_resumes_nowhere_else(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as one, proxy(to, ecdsa) as other:
        for context in (by_id(), client_context(TLS12), client_context(TLS13)):
            assert visit(other, context, visit(one, context)[1])[0] is False
        assert "shared_cache" not in counters(one)


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_ticket_of_one_host_resumes_on_another(version: ssl.TLSVersion, ecdsa: str) -> None:
    with farm(ecdsa) as hosts:
        context = client_context(version)
        session = None
        for turn in range(6):
            resumed, session = visit(hosts.hosts[turn % 2], context, session)
            assert resumed == (turn > 0)
        assert shared(hosts.hosts[0])["sessions_announced"] == 0


def test_a_stateful_ticket_resumes_on_another_host_and_then_nowhere(ecdsa: str) -> None:
    with farm(ecdsa, "--tickets", "off") as hosts:
        one, other = hosts.hosts
        context = client_context(TLS13)
        _, session = visit(one, context)
        applied(other, 1)
        assert visit(other, context, session)[0] is True
        eventually(lambda: shared(one)["withdrawals_applied"] == 1, "it is withdrawn where it was born")
        assert visit(one, context, session)[0] is False
        assert visit(other, context, session)[0] is False
