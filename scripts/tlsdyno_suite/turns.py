"""Contenders that take turns: load generators that all run against the same server, one at a time for a fraction of a
second while the others are stopped (SIGSTOP), first in one order and then in its mirror image.

Whatever makes the machine slower or faster for longer than a turn falls on all of them alike. Two at once on the same
CPU would drive each other out of its caches, so they are not: within its turn each has the machine to itself."""
import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import sessions
from .processes import Failed, Program, crew, describe_end, start, wait_until_ready
from .sampler import process_clock

LIFE_S = 600           # of a contender, if nobody ends it
READY_LIMIT_S = 10.0
END_LIMIT_S = 10.0
BEGUN_S = 0.02         # of the server's CPU time: a contender that has cost so much has begun
SETTLE_POLL_S = 0.002  # the server is done with what a contender left under way when it uses less than SETTLED_S
SETTLED_S = 0.0001     # from one look at its clocks to the next
SETTLE_LIMIT_S = 1.0


@dataclass(frozen=True)
class Contender:
    name: str
    command: list[str]
    last: signal.Signals = signal.SIGTERM  # asks it to end and to say what it did


@dataclass(frozen=True)
class Spent:
    """CPU seconds, and what was done for them."""

    client_s: float = 0.0
    server_s: float = 0.0
    ops: int = 0
    resumed: int = 0  # of them, where they are handshakes

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.client_s + other.client_s, self.server_s + other.server_s, self.ops + other.ops,
                     self.resumed + other.resumed)


Count = Callable[[], tuple[int, int]]  # operations so far, and how many of them were resumed, as the server says


def cpu_s(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += time.clock_gettime(process_clock(pid))
    return total


class Runner:
    """A contender that runs. `timeout` is its parent: if we are killed it is asked to end, and can, which a program
    that is stopped cannot."""

    def __init__(self, contender: Contender, cpus: tuple[int, ...], log: Path) -> None:
        self.contender = contender
        self.program: Program = start("client", ["timeout", str(LIFE_S), *contender.command], cpus, log,
                                      name=contender.name)
        self.pids: list[int] = []  # its own, the first of them forked the others

    def find(self) -> None:
        self.pids = sorted(set(sessions.members(self.program.session)) - {self.program.popen.pid})

    def signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def check(self) -> None:
        if self.program.popen.poll() is not None:
            raise Failed(f"{self.contender.name} did not last: it {describe_end(self.program)}")

    def end(self) -> float:
        """CPU seconds of its whole life, start-up included."""
        self.check()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.kill(self.pids[0], self.contender.last)
        self.signal(signal.SIGCONT)
        deadline = time.monotonic() + END_LIMIT_S
        while self.program.popen.poll() is None:
            if time.monotonic() > deadline:
                raise Failed(f"{self.contender.name} did not end")
            time.sleep(0.01)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@dataclass(frozen=True)
class Ring:
    """Where contenders meet."""

    server: Program
    cpus: tuple[int, ...]  # of the contender whose turn it is
    turn_s: float
    directory: Path        # for their logs

    def server_pids(self) -> list[int]:
        return sessions.members(self.server.session)

    def _settle(self, pids: list[int]) -> None:
        """Until the server has done what there was to do."""
        deadline, last_s = time.monotonic() + SETTLE_LIMIT_S, cpu_s(pids)
        while time.monotonic() < deadline:
            time.sleep(SETTLE_POLL_S)
            now_s = cpu_s(pids)
            if now_s - last_s < SETTLED_S:
                break
            last_s = now_s

    def enter(self, contender: Contender, programs: list[Program]) -> Runner:
        """It is started, has begun, and is stopped."""
        pids = self.server_pids()
        self._settle(pids)  # from its own start
        before_s = cpu_s(pids)
        runner = Runner(contender, self.cpus, self.directory / f"{contender.name}.log")
        programs.append(runner.program)
        wait_until_ready(runner.program, lambda: cpu_s(pids) > before_s + BEGUN_S, READY_LIMIT_S)
        runner.find()
        runner.signal(signal.SIGSTOP)
        self._settle(pids)
        return runner

    def turn(self, runner: Runner) -> Spent:
        pids = self.server_pids()
        client_s, server_s = cpu_s(runner.pids), cpu_s(pids)
        runner.signal(signal.SIGCONT)
        time.sleep(self.turn_s)
        runner.signal(signal.SIGSTOP)
        self._settle(pids)
        runner.check()
        return Spent(cpu_s(runner.pids) - client_s, cpu_s(pids) - server_s)

    def counted_turn(self, runner: Runner, count: Count) -> Spent:
        """It begins and ends with the same number of operations under way, but for the chance of the moment."""
        ops, resumed = count()
        spent = self.turn(runner)
        ops_after, resumed_after = count()
        if ops_after <= ops:
            raise Failed(f"{runner.contender.name} did nothing in its turn")
        return spent + Spent(ops=ops_after - ops, resumed=resumed_after - resumed)

    def rounds(self, contenders: list[Contender], count: Count, rounds: int) -> Iterator[dict[str, Spent]]:
        """What each spent in its two turns of each round: neither the start of a program nor its end is in that, nor a
        turn before, in which the first connections are over that have no session yet. They are ended when there is
        nothing more to yield."""
        with crew() as programs:
            runners = [self.enter(contender, programs) for contender in contenders]
            for runner in runners:
                self.turn(runner)
            for _ in range(rounds):
                spent = {contender.name: Spent() for contender in contenders}
                for runner in (*runners, *reversed(runners)):
                    spent[runner.contender.name] += self.counted_turn(runner, count)
                yield spent
            for runner in runners:
                runner.end()

    def life(self, contenders: list[Contender], turns: int) -> dict[str, Spent]:
        """What each spent in its whole life, with so many turns in either order: for a server that does not count.
        What was done in it, the contender must say."""
        with crew() as programs:
            runners = [self.enter(contender, programs) for contender in contenders]
            spent = {contender.name: Spent() for contender in contenders}
            for _ in range(turns):
                for runner in (*runners, *reversed(runners)):
                    spent[runner.contender.name] += Spent(server_s=self.turn(runner).server_s)
            for runner in runners:
                spent[runner.contender.name] += Spent(client_s=runner.end())
            return spent
