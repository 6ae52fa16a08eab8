"""What others may do to the datagrams between hosts: nothing of it goes into a cache, and each has its reason."""
from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hosts import (
    Wire, address_of, applied, by_id, farm, have_met, holds_sessions, host, is_to_all, rejected, settled, shared,
    sync_process, visit)
from programs import Running, program
from proxies import backend, echo, eventually

HEAD = 32  # "TDS", version, sender, stream, number
TAG = 16


def was_rejected(server: Running, reason: str, before: dict[str, int], count: int = 1) -> None:
    wanted = before.get(reason, 0) + count
    eventually(lambda: rejected(server).get(reason, 0) >= wanted, f"{reason}: {rejected(server)}")
    assert rejected(server)[reason] == wanted


def changed(at: int) -> Callable[[bytes], bytes]:
    return lambda datagram: datagram[:at] + bytes([datagram[at] ^ 1]) + datagram[at + 1:]


@pytest.mark.parametrize(("spoil", "reason"), [
    pytest.param(changed(0), "not_ours", id="another beginning"),
    pytest.param(changed(3), "wrong_version", id="another version"),
    pytest.param(changed(4), "forged", id="another sender"),
    pytest.param(changed(23), "forged", id="another stream"),
    pytest.param(changed(31), "forged", id="another number"),
    pytest.param(changed(HEAD), "forged", id="another date"),
    pytest.param(changed(HEAD + 8), "forged", id="another message"),
    pytest.param(changed(-1), "forged", id="another tag"),
    pytest.param(lambda datagram: datagram[:-1], "forged", id="a byte short"),
    pytest.param(lambda datagram: datagram + b"x", "forged", id="a byte more"),
    pytest.param(lambda datagram: datagram[:55], "truncated", id="shorter than any"),
    pytest.param(lambda datagram: b"", "truncated", id="empty"),
    pytest.param(lambda datagram: datagram + bytes(5001 - len(datagram)), "oversized", id="longer than any"),
    pytest.param(lambda datagram: os.urandom(60000), "not_ours", id="random"),
])
def test_what_was_changed_on_its_way(spoil: Callable[[bytes], bytes], reason: str, ecdsa: str) -> None:
    with farm(ecdsa, "--tickets", "off") as hosts:
        one, other = hosts.hosts
        wire = hosts.wires[0, 1]
        before = rejected(other)
        wire.carry = lambda datagram: [spoil(datagram)] if holds_sessions(datagram) else [datagram]
        context = by_id()
        _, session = visit(one, context)
        was_rejected(other, reason, before)
        assert shared(other)["sessions_applied"] == 0
        assert visit(other, context, session)[0] is False
        wire.carry = lambda datagram: [datagram]
        _, session = visit(one, context)
        applied(other, 1)
        assert visit(other, context, session)[0] is True


def all_seen(wire: Wire) -> list[bytes]:
    """All that the wire has carried, when a sign of life shows that it has come through."""
    count = len(wire.seen)
    eventually(lambda: len(wire.seen) > count, "a sign of life")
    return wire.seen[:count]


def replayed_to(target: Running, datagrams: list[bytes], reasons: set[str]) -> None:
    """Each is counted as one of these; nothing comes of it."""
    def count() -> int:
        return sum(rejected(target).get(reason, 0) for reason in reasons)

    before, had = count(), shared(target)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        for datagram in datagrams:
            attacker.sendto(datagram, address_of(target.announced["shared cache"]))
            time.sleep(0.0005)
    eventually(lambda: count() - before >= len(datagrams), f"all are refused: {rejected(target)}")
    has = shared(target)
    for name in ("sessions_applied", "withdrawals_applied", "ticket_keys_applied", "proofs_taken", "sessions_known"):
        assert has[name] == had[name], name


def test_replays_to_the_same_host_and_to_another(ecdsa: str) -> None:
    """To the other one, what was for one host only: it had the rest itself. What hosts said before they had met is no
    more proven than it was."""
    with farm(ecdsa, own=([], [], [])) as hosts:
        before_they_met = {ends: len(wire.seen) for ends, wire in hosts.wires.items()}
        context = by_id()
        for one in hosts.hosts:
            for _ in range(5):
                visit(one, context)
        for one in hosts.hosts:
            applied(one, 10)
        for (source, to), wire in hosts.wires.items():
            if source == 0:
                datagrams = all_seen(wire)
                replayed_to(hosts.hosts[to], datagrams[:before_they_met[0, to]], {"replayed", "unproven"})
                replayed_to(hosts.hosts[to], datagrams[before_they_met[0, to]:], {"replayed"})
                replayed_to(hosts.hosts[3 - to], datagrams, {"replayed", "unproven", "misaddressed"})
                replayed_to(hosts.hosts[0], datagrams, {"replayed"})


def test_replays_after_the_receiver_was_restarted(ecdsa: str) -> None:
    """Before it has met the sender again, and afterwards; and though it has forgotten all that it had."""
    with farm(ecdsa, own=([],)) as hosts, backend(echo) as to:
        sender = hosts.hosts[0]
        wire = Wire()
        try:
            with host(to, ecdsa, "-P", sender.announced["shared cache"]) as first:
                wire.connect(sender, first)
                with host(to, ecdsa, "-P", wire.address) as source:
                    wire.connect(source, first)
                    have_met(first, 2)
                    settled(first, source, sender, wires=[wire])
                    for _ in range(5):
                        visit(source, by_id())
                    applied(first, 5)
                    recorded = all_seen(wire)
                    with host(to, ecdsa) as second:
                        replayed_to(second, recorded, {"unproven", "misaddressed"})
                    with host(to, ecdsa, "-P", source.announced["shared cache"]) as third:
                        have_met(third, 1)
                        settled(third, source)
                        replayed_to(third, recorded, {"unproven", "misaddressed"})
        finally:
            wire.close()


def test_replays_of_a_sender_that_was_restarted(ecdsa: str) -> None:
    with farm(ecdsa, own=([],)) as hosts, backend(echo) as to:
        receiver = hosts.hosts[0]
        wire = Wire()
        try:
            with host(to, ecdsa, "-P", wire.address) as old:
                wire.connect(old, receiver)
                have_met(receiver, 1)
                settled(receiver, old, wires=[wire])
                before_they_met = len(wire.seen)
                visit(old, by_id())
                applied(receiver, 1)
                recorded = all_seen(wire)
            with host(to, ecdsa, "-P", receiver.announced["shared cache"]) as new:
                have_met(new, 1)
                eventually(lambda: shared(receiver)["catch_ups_done"] == 2, "the receiver has met the new one too")
                settled(receiver, new)
                replayed_to(receiver, recorded[:before_they_met], {"replayed", "unproven"})
                replayed_to(receiver, recorded[before_they_met:], {"replayed"})
                replayed_to(new, recorded, {"unproven", "misaddressed"})
        finally:
            wire.close()


def test_what_the_proof_has_overtaken_is_not_called_a_replay(ecdsa: str) -> None:
    """It is not taken either: it might have been recorded before the proof was asked for."""
    with farm(ecdsa, own=([],)) as hosts, backend(echo) as to:
        receiver = hosts.hosts[0]
        wire = Wire()
        late: list[bytes] = []

        def hold_back_first(datagram: bytes) -> list[bytes]:
            if not late and is_to_all(datagram):
                late.append(datagram)
                return []
            return [datagram]

        wire.carry = hold_back_first
        try:
            with host(to, ecdsa, "-P", wire.address) as sender:
                wire.connect(sender, receiver)
                have_met(receiver, 1)
                settled(receiver, sender, wires=[wire])
                before = rejected(receiver)
                wire.inject(late[0])
                was_rejected(receiver, "unproven", before)
                assert rejected(receiver).get("replayed") == before.get("replayed")
        finally:
            wire.close()


def test_a_datagram_that_was_kept_back_is_not_of_this_time(ecdsa: str) -> None:
    with farm(ecdsa, "--tickets", "off") as hosts:
        one, other = hosts.hosts
        wire = hosts.wires[0, 1]
        kept: list[bytes] = []

        def keep(datagram: bytes) -> list[bytes]:
            if kept or not holds_sessions(datagram):
                return [datagram]
            kept.append(datagram)
            return []

        wire.carry = keep
        context = by_id()
        _, session = visit(one, context)
        eventually(lambda: bool(kept), "it is on its way")
        time.sleep(5.5)
        wire.inject(kept[0])
        was_rejected(other, "misdated", {})
        assert shared(other)["sessions_applied"] == 0
        assert visit(other, context, session)[0] is False


def test_datagrams_that_come_in_any_order_are_all_taken(ecdsa: str) -> None:
    with farm(ecdsa) as hosts:
        one, other = hosts.hosts
        chance = random.Random(1)
        waiting: list[bytes] = []
        enough = threading.Event()

        def shuffle(datagram: bytes) -> list[bytes]:
            waiting.append(datagram)
            if len(waiting) < 7 and not enough.is_set():
                return []
            chance.shuffle(waiting)
            sent, waiting[:] = waiting[:], []
            return sent

        hosts.wires[0, 1].carry = shuffle
        context = by_id()
        sessions = [visit(one, context)[1] for _ in range(40)]
        enough.set()  # the next sign of life takes along what is left, before it is too old
        applied(other, 40)
        assert all(visit(other, context, session)[0] for session in sessions)
        assert not rejected(other).get("replayed")
        eventually(lambda: shared(other)["lost"] == 0, "nothing is missing in the end")


def test_what_a_host_with_another_secret_sends(ecdsa: str, tmp_path: Path) -> None:
    """Though it has the same certificate, so that the session would resume if it were taken."""
    for name in ("one", "other"):
        (tmp_path / name).write_bytes(os.urandom(32))
    options = ("--tickets", "off", "--shared-cache-key")
    with backend(echo) as to, host(to, ecdsa, *options, str(tmp_path / "one")) as one, \
            host(to, ecdsa, *options, str(tmp_path / "other"), "-P", one.announced["shared cache"]) as other:
        context = by_id()
        _, session = visit(other, context)
        eventually(lambda: shared(other)["sessions_announced"] == 1, "it is told of")
        eventually(lambda: shared(one)["datagrams_received"] >= shared(other)["datagrams_sent"] >= 3, "it has come")
        assert rejected(one).keys() == {"forged"}
        assert shared(one)["sessions_applied"] == shared(one)["peers"] == shared(one)["challenges_sent"] == 0
        assert visit(one, context, session)[0] is False


def resumes_soon(one: Running, other: Running) -> bool:
    """A new session: its datagram may be one of those for which there was no room left on a machine that is slow."""
    context = by_id()
    _, session = visit(one, context)
    return any(visit(other, context, session)[0] for _ in range(20))


TDS = "544453"
SESSION_OF_STUD = "00" * 32 + "308178020101020203"


@pytest.mark.parametrize(("options", "beginnings", "reasons"), [
    pytest.param([], ["", TDS, TDS + "01", TDS + "02", TDS + "02SENDER00000000"],
                 {"truncated", "not_ours", "wrong_version", "forged", "unproven", "flood"}, id="sealed"),
    pytest.param(["--shared-cache-format", "stud", "--tickets", "off"], ["", SESSION_OF_STUD[:66], SESSION_OF_STUD],
                 {"truncated", "oversized", "forged", "flood"}, id="stud"),
])
def test_a_flood_of_random_datagrams(options: list[str], beginnings: list[str], reasons: set[str], ecdsa: str) -> None:
    """
    A hundred thousand a second, or as many as the machine can: each is counted, also those that the system is told to
    drop; sessions are shared meanwhile, and nothing else is stored. Then each has its own reason again.
    """
    with farm(ecdsa, *options, meet=not options) as hosts:
        one, other = hosts.hosts
        wires = hosts.wires[0, 1], hosts.wires[1, 0]
        if not options:
            eventually(lambda: any(map(is_to_all, wires[0].seen)), "a sign of life")
            known = next(filter(is_to_all, wires[0].seen))[4:20].hex()
            beginnings = [beginning.replace("SENDER", known) for beginning in beginnings]
        before, process = shared(other), sync_process(other)

        def came() -> int:
            now = shared(other)
            return (now["datagrams_received"] + now["datagrams_dropped"] + now["rejected"]["flood"]
                    - before["datagrams_received"] - before["datagrams_dropped"] - before["rejected"]["flood"])

        def odd() -> int:
            """Received and not refused: what the peer has sent."""
            now = shared(other)
            return (now["datagrams_received"] - before["datagrams_received"] + now["rejected"]["flood"]
                    - sum(now["rejected"].values()) + sum(before["rejected"].values()))

        with subprocess.Popen([program("bench/datagram-flood"), other.announced["shared cache"], "100000", "1000000000",
                               *beginnings], stdout=subprocess.PIPE, text=True) as attack:
            try:
                eventually(lambda: rejected(other).get("flood", 0) > 0, "it is a flood")
                for _ in range(5):
                    eventually(lambda: resumes_soon(one, other), "a session resumes on the host that is attacked")
                eventually(lambda: came() >= 200000, "there were many")
                attack.terminate()
                assert attack.stdout
                sent = json.loads(attack.stdout.read())["sent"]
            finally:
                attack.kill()
        # The network of the machine itself drops one in some ten thousand on its way.
        eventually(lambda: came() >= sent * 0.99, f"{sent} are counted: {came()}")
        peers = sum(len(wire.seen) for wire in wires)
        assert came() <= sent + peers and odd() <= peers
        assert reasons >= {reason for reason, count in rejected(other).items() if count} >= {"flood", "forged"}
        assert shared(other)["sessions_applied"] <= shared(one)["sessions_announced"]
        assert sync_process(other) == process
        assert not [line for server in hosts.hosts for line in server.errors]
        eventually(lambda: is_refused_for_itself(other, "forged" if options else "not_ours"), "the flood is over")


def is_refused_for_itself(host_there: Running, reason: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        before = rejected(host_there).get(reason, 0)
        attacker.sendto(bytes(100), address_of(host_there.announced["shared cache"]))
        time.sleep(0.05)
        return rejected(host_there).get(reason, 0) > before


def recorded_of_the_dead(to: str, certificate: str) -> bytes:
    """A datagram for all of a host that has gone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tap:
        tap.settimeout(60)
        tap.bind(("127.0.0.1", 0))
        with host(to, certificate, "-P", "127.0.0.1:%d" % tap.getsockname()[1]):
            datagram = tap.recv(65536)
    assert is_to_all(datagram)
    return datagram


@contextlib.contextmanager
def replayed_all_the_time(target: Running, datagram: bytes) -> Iterator[None]:
    """Thousands of times a second. Who does it gets one answer."""
    with subprocess.Popen([program("bench/datagram-flood"), target.announced["shared cache"], "10000", "1000000000",
                           "=" + datagram.hex()], stdout=subprocess.DEVNULL) as attack:
        try:
            eventually(lambda: rejected(target).get("unproven", 0) >= 5000, "it is attacked")
            assert shared(target)["challenges_sent"] == 1
            yield
        finally:
            attack.kill()


def test_hosts_are_met_while_one_that_is_dead_is_replayed(ecdsa: str) -> None:
    """To both of those that meet; when one is new, and again when it was restarted."""
    with backend(echo) as to:
        dead = recorded_of_the_dead(to, ecdsa)
        with host(to, ecdsa) as there, replayed_all_the_time(there, dead):
            for met in (1, 2):
                with contextlib.closing(Wire()) as wire, host(to, ecdsa, "-P", wire.address) as new, \
                        replayed_all_the_time(new, dead):
                    wire.connect(new, there)
                    have_met(new, 1)
                    eventually(lambda: shared(there)["catch_ups_done"] == met, "it is known there")
                    eventually(lambda: resumes_soon(new, there), "sessions are shared")
