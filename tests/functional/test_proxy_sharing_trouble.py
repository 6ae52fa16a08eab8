"""Hosts that share sessions while datagrams are lost, clocks differ and processes die."""
from __future__ import annotations

import contextlib
import os
import random
import signal
import ssl
import threading
from pathlib import Path

import pytest

from hosts import Wire, applied, by_id, farm, have_met, host, rejected, shared, sync_process, visit
from programs import Running, preloaded
from proxies import backend, echo, eventually


def test_with_a_third_of_all_datagrams_lost_the_others_do_their_work(ecdsa: str) -> None:
    with farm(ecdsa, "--tickets", "off", meet=False) as hosts:
        chance = random.Random(3)
        hosts.spoil(lambda datagram: [datagram] if chance.random() > 0.3 else [])
        for one in hosts.hosts:
            have_met(one, 1)
        one, other = hosts.hosts
        context = by_id()
        sessions = [visit(one, context)[1] for _ in range(100)]
        eventually(lambda: shared(other)["lost"] > 0, "losses are seen")
        applied(other, 40)
        resumed = [visit(other, context, session)[0] for session in sessions]
        assert sum(resumed) >= 40
        assert sum(resumed) < 100, "a third was lost"


def test_a_peer_that_does_not_answer_for_a_while_is_asked_again(ecdsa: str) -> None:
    """For all that it has, by a host that has just started: one whose process gets no CPU answers late."""
    question_bytes = 83
    with farm(ecdsa, own=([],)) as hosts, backend(echo) as to:
        old = hosts.hosts[0]
        for _ in range(5):
            visit(old, by_id())
        wire = Wire()
        unanswered = 0

        def lose_questions(datagram: bytes) -> list[bytes]:
            nonlocal unanswered
            if len(datagram) != question_bytes or unanswered == 60:
                return [datagram]
            unanswered += 1
            return []

        wire.carry = lose_questions
        try:
            with host(to, ecdsa, "-P", wire.address) as new:
                wire.connect(new, old)
                have_met(new, 1)
                assert unanswered == 60 and shared(new)["catch_ups_begun"] > 1
                assert shared(new)["sessions_applied"] == 5
        finally:
            wire.close()


def clock(seconds: int, tmp_path: Path) -> list[str]:
    """A command that runs another with its clock ahead, or behind."""
    return preloaded("shifted_clock", tmp_path, f"CLOCK_SHIFT_S={seconds}")


def test_clocks_ten_minutes_apart(ecdsa: str, tmp_path: Path) -> None:
    """Sessions live as long on each host as on that where they were born: for much less than that."""
    with farm(ecdsa, "--session-lifetime", "2s", within=([], clock(600, tmp_path))) as hosts:
        rejected_before = [rejected(one) for one in hosts.hosts]
        context = by_id()

        def new_session(one: Running, other: Running) -> ssl.SSLSession:
            before = shared(other)["sessions_applied"]
            _, session = visit(one, context)
            applied(other, before + 1)
            return session

        for one, other in (hosts.hosts, hosts.hosts[::-1]):
            # On a slow machine one may be over before it is used.
            eventually(lambda: visit(other, context, new_session(one, other))[0], "a new one resumes there")
            session = new_session(one, other)
            eventually(lambda: not visit(other, context, session)[0], "it is over there too")
        assert [rejected(one) for one in hosts.hosts] == rejected_before


@pytest.mark.parametrize("who", ["proxy", "proxy-sync"])
def test_a_process_that_dies_with_the_lock_of_the_cache(who: str, ecdsa: str, tmp_path: Path) -> None:
    """
    A worker, or the process that shares, really holds it. The cache is small, so it has one lock, and full, so what is
    new wipes what is old: all of it is forgotten, nobody waits, and what comes afterwards is as it was.
    """
    order = tmp_path / "order"
    dying = preloaded("dies_in_lock", tmp_path, f"DIES_IN_LOCK={order}")
    context = by_id()
    with farm(ecdsa, "--tickets", "off", "-n", "2", own=(["-C", "20"], []), within=(dying, ())) as hosts:
        one, other = hosts.hosts
        born_at = one if who == "proxy" else other  # whose new sessions go through the lock of the one who dies

        def is_whole() -> bool:
            """In a moment, or when there is another process again, a second later."""
            with contextlib.suppress(OSError, AssertionError):
                _, here = visit(one, context)
                _, there = visit(other, context)
                return all(visit(at, context, session)[0] for at in (one, other) for session in (here, there))
            return False

        for place in ("after_lock", "in_the_middle", "before_unlock"):
            had = shared(other)["sessions_applied"]
            sessions = [visit(one, context)[1] for _ in range(30)]
            applied(other, had + 30)
            assert visit(one, context, sessions[-1])[0] is True
            old = sync_process(one), *one.workers()
            (tmp_path / "next").write_text(f"{who} {place}")
            (tmp_path / "next").rename(order)

            def has_died() -> bool:
                with contextlib.suppress(OSError, AssertionError):
                    visit(born_at, context)
                return not order.exists()

            eventually(has_died, f"{who} dies {place}")
            eventually(lambda: len({sync_process(one), *one.workers()} & set(old)) == 2, "one of three has gone")
            resumed_here = sum(visit(one, context, session)[0] for session in sessions)
            # A process that shares and has just started asks the other host for all that it has.
            assert who == "proxy-sync" or resumed_here == 0, "what the lock was held over is not trusted"
            assert all(visit(other, context, session)[0] for session in sessions)
            eventually(is_whole, "it shares again")
        killed = [line for line in one.errors if "killed by signal 9" in line]
        assert len(killed) == 3 and len(one.errors) == 3, one.errors
        assert not other.errors


def test_a_worker_killed_at_any_moment_holds_nobody_up(ecdsa: str) -> None:
    """With the lock of the store, or in the middle of telling of a session."""
    with farm(ecdsa, "--tickets", "off", "-n", "2") as hosts:
        one, other = hosts.hosts
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError, AssertionError):
                    visit(one, by_id())

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(15):
                with contextlib.suppress(ProcessLookupError, IndexError):
                    os.kill(random.choice(one.workers()), signal.SIGKILL)
                threading.Event().wait(0.02)
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)

        def is_whole() -> bool:
            with contextlib.suppress(OSError, AssertionError):
                _, session = visit(one, context)
                return visit(other, context, session)[0]
            return False

        context = by_id()
        eventually(is_whole, "a new session resumes elsewhere")
        assert not rejected(other).get("malformed")


def test_the_process_that_shares_is_replaced_when_it_dies(ecdsa: str) -> None:
    with farm(ecdsa) as hosts:
        one, other = hosts.hosts
        context = by_id()
        _, before = visit(one, context)
        applied(other, 1)
        old = sync_process(one)
        os.kill(old, signal.SIGKILL)
        _, meanwhile = visit(one, context)
        eventually(lambda: sync_process(one) not in (0, old), "there is another")
        eventually(lambda: visit(other, context, meanwhile)[0], "it tells of what it was not there for")
        _, there = visit(other, context)
        eventually(lambda: visit(one, context, there)[0], "and hears")
        assert visit(one, context, before)[0] and visit(other, context, before)[0]
