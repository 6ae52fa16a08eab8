"""A block: a fresh process of the proxy for each arm (the base, the new one, and the base once more), all asked at once
on the same CPUs, in portions of a fixed number of ops that begin first in one order and then in its mirror image.

The kernel gives the CPUs to the arms in turn, for a few milliseconds each. So whatever makes the machine slower or
faster for longer than that, which is most of what others on it do, falls on all arms alike and is not in their ratio
(Bulej et al., "Duet benchmarking", ICPE 2020). The cost of an arm is the CPU time of all processes of its proxy from
before a portion to after it, so who waits for a CPU does not pay, and no window has to be cut out of anything. """
import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import counters, sampler, sessions
from .builds import Build
from .cell import Cell
from .certificates import certificate
from .loading import DRAIN_LIMIT_S, printed_address, watch
from .loads import loadgen
from .placement import Placement
from .processes import Failed, Program, crew, describe_end, last_line, start
from .runner import start_backend, start_subject
from .subjects import DRIVERS, Task
from .verdict import RULES, Evidence, count_differences, ops, percent

ARMS = ("base", "new", "again")  # again: the base once more, so that every run measures what "no change" looks like
PORTIONS = 2                     # of a block: an even number, half of them mirrored
PORTION_S = 0.12                 # CPU time of an arm: long beside the turns in which arms have a CPU
ALONE = 0.5                      # of a portion: what an arm's rate is measured with
LIMIT_S = 30                     # for one portion; on the busiest machine it takes a second
# Before the first portion: fills caches and pools. Kept-alive transactions cost a tenth of a handshake.
WARM_UP_OPS = {False: 160, True: 2000}
# Of the CPU time of load generator and backend, which share a CPU: a proxy that takes less of its own cannot have been
# what was full. It gets its work one piece at a time then, and pays for cold caches whenever it wakes up (proposal).
# How busy the CPUs were says little where others use them too.
RESTS = 0.5

# The rules of a row that hold for a portion too. The others are about a window, or about its rate.
KEPT = ("work", "errors", "negotiated", "certificate", "length")


@dataclass
class Trial:
    """A fresh process, and what its portions cost."""

    arm: str
    costs_us: list[float] = field(default_factory=list)
    rate_per_s: float = 0.0  # while it had the CPUs to itself
    totals: dict[str, Any] = field(default_factory=lambda: {"errors": {}})  # of all its loads, as the client counted

    @property
    def cost_us(self) -> float:
        return sum(self.costs_us) / len(self.costs_us)

    def add(self, totals: dict[str, Any]) -> None:
        for name, value in totals.items():
            if isinstance(value, int):
                self.totals[name] = self.totals.get(name, 0) + value
        for name, value in totals["errors"].items():
            self.totals["errors"][name] = self.totals["errors"].get(name, 0) + value


@dataclass(frozen=True)
class Block:
    trials: dict[str, Trial]
    foreign: float  # share of the subject's CPU that somebody else used meanwhile
    steal: float    # share that the hypervisor took
    portion_ops: int

    def log_cost(self, arm: str) -> float:
        return math.log(self.trials[arm].cost_us)

    @property
    def paired(self) -> float:
        """The new build above the base, whose two trials are both used."""
        return self.log_cost("new") - (self.log_cost("base") + self.log_cost("again")) / 2

    @property
    def twin(self) -> float:
        return self.log_cost("again") - self.log_cost("base")


def order(chooser: random.Random) -> list[list[str]]:
    """In which the arms begin, in each portion of a block. Of any two it is ABBA or BAAB."""
    sequence: list[list[str]] = []
    for _ in range(PORTIONS // 2):
        arms = chooser.sample(ARMS, len(ARMS))
        sequence += [arms, arms[::-1]]
    return sequence


def expected_full(cell: Cell, made: int) -> tuple[int, int]:
    """How many of so many handshakes are full, at least and at most: every load begins its slots anew."""
    slots = min(cell.connections, made)
    if cell.reuse == "never":
        return made, made
    if cell.reuse_period:
        share = made // cell.reuse_period
        return max(0, share - slots), share + slots
    return slots, slots


def check_load(cell: Cell, placement: Placement, result: loadgen.Result) -> None:
    """Failed, with the reason, when the portion did not measure what it claims."""
    evidence = Evidence(cell=cell, placement=placement, asked_s=result.duration_s, load=result, cpu_s={},
                        sample_gap_s=0.0, busy={}, steal=0.0, tcp={}, unpinned=(), counted=None)
    broken = [reason for rule in RULES if rule.name in KEPT and (reason := rule.broken(evidence, rule.threshold))]
    if broken:
        raise Failed("; ".join(broken))
    least, most = expected_full(cell, result.handshakes)
    if not least <= result.handshakes_full <= most:
        raise Failed(f"{result.handshakes_resumed} of {result.handshakes} handshakes were resumed, "
                     f"not {result.handshakes - most}: {result.resume_refused} sessions were refused")


@contextlib.contextmanager
def named(arm: str) -> Iterator[None]:
    """Whoever reads why a block failed wants to know of which build that is."""
    try:
        yield
    except Failed as error:
        raise Failed(f"{arm}: {error}") from error


class Clocks:
    """CPU time of all processes of a program, which are those that it had when it was ready."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._pids = sessions.members(program.session)

    def read_s(self) -> float:
        try:
            return sum(time.clock_gettime(sampler.process_clock(pid)) for pid in self._pids)
        except OSError as error:
            raise Failed(f"a process of the {self._program.role} died: it {describe_end(self._program)}") from error


def load_command(cell: Cell, placement: Placement, address: str, count: int, json_file: Path,
                 limit_s: float = LIMIT_S) -> list[str]:
    """What a run's cell has, but so many ops instead of a time."""
    *command, url = loadgen.command(cell, placement, address, limit_s, 0.0, json_file)
    return [*command, "-n", str(count), url]


class Bench:
    """One cell with everything started, ready to put portions on its arms."""

    def __init__(self, cell: Cell, placement: Placement, builds: dict[str, Build], directory: Path, logs: str,
                 programs: list[Program]) -> None:
        self.cell, self.placement, self.directory, self.logs, self.programs = cell, placement, directory, logs, programs
        backend = start_backend(cell, placement, directory, Path(f"{logs}-backend.log"), programs)
        self.backend = programs[-1]
        self.backend_clocks = Clocks(self.backend)
        task = Task(cell, placement.subject, certificate(cell.cert_key), backend, 0, directory)
        self.addresses: dict[str, str] = {}
        self.subjects: dict[str, Program] = {}
        for arm, build in builds.items():
            driver = build.driver(DRIVERS[cell.subject])
            with named(arm):
                self.addresses[arm] = start_subject(driver, task, Path(f"{logs}-{arm}.log"), programs)
            self.subjects[arm] = programs[-1]
        self.clocks = {arm: Clocks(program) for arm, program in self.subjects.items()}
        self.trials = {arm: Trial(arm) for arm in builds}
        self.busy_s = dict.fromkeys(("subject", "client", "backend"), 0.0)  # CPU time of everything put on the arms

    def load(self, arm: str, count: int, json_file: Path) -> Program:
        command = load_command(self.cell, self.placement, self.addresses[arm], count, json_file)
        self.programs.append(start("client", command, self.placement.client, Path(f"{self.logs}-{arm}-client.log")))
        return self.programs[-1]

    def put(self, arms: list[str], count: int) -> dict[str, tuple[float, loadgen.Result]]:
        """So many ops on each of these arms, all at once. CPU seconds that they cost it, and what its client saw."""
        files = {arm: self.directory / f"load-{arm}.json" for arm in arms}
        serving = [self.backend, *(self.subjects[arm] for arm in arms)]
        begin_s, backend_s = {arm: self.clocks[arm].read_s() for arm in arms}, self.backend_clocks.read_s()
        loads = [self.load(arm, count, files[arm]) for arm in arms]
        for arm, load in zip(arms, loads):
            if strayed := watch(load, serving, math.inf, LIMIT_S + DRAIN_LIMIT_S, poll_s=0.002):
                raise Failed(f"not on its CPUs: {', '.join(sorted(strayed))}")
            self.programs.remove(load)
            if load.popen.returncode not in loadgen.MEASURED:
                raise Failed(f"{arm}: load generator {describe_end(load)}")
        costs_s = {arm: self.clocks[arm].read_s() - begin_s[arm] for arm in arms}
        self.busy_s["subject"] += sum(costs_s.values())
        self.busy_s["backend"] += self.backend_clocks.read_s() - backend_s
        seen = {}
        for arm, load in zip(arms, loads):
            with named(arm):
                seen[arm] = (costs_s[arm], self.seen(arm, files[arm], load))
        return seen

    def seen(self, arm: str, json_file: Path, load: Program) -> loadgen.Result:
        try:
            result = loadgen.read(json_file)
        except ValueError as error:
            raise Failed(f"{error} ({last_line(load.log)})") from error
        json_file.unlink()
        check_load(self.cell, self.placement, result)
        self.trials[arm].add(result.totals)
        self.busy_s["client"] += result.cpu_s
        return result

    def warm_up(self, arm: str) -> float:
        """CPU seconds an op, about."""
        cost_s, result = self.put([arm], WARM_UP_OPS[self.cell.keeps_alive])[arm]
        return cost_s / ops(self.cell, result)

    def time(self, arm: str, count: int) -> None:
        """Its rate, alone."""
        _, result = self.put([arm], count)[arm]
        self.trials[arm].rate_per_s = ops(self.cell, result) / result.duration_s

    def measure(self, arms: list[str], count: int) -> None:
        for arm, (cost_s, result) in self.put(arms, count).items():
            self.trials[arm].costs_us.append(1e6 * cost_s / ops(self.cell, result))

    def check_arm(self, arm: str) -> None:
        """After its last portion: what only the whole trial can tell."""
        statistics = printed_address(self.subjects[arm], "stats")
        trial = self.trials[arm]
        if statistics:
            nothing = [dict.fromkeys(counters.COUNTED, 0)]
            counted = counters.growth(nothing, counters.settled([statistics], nothing, trial.totals))
            if differences := count_differences(counted, trial.totals, 0):
                raise Failed("the subject counted otherwise than the client: " + ", ".join(differences))

    def ours_s(self) -> float:
        """CPU time that everything of ours has taken on the subject's CPUs, also what only shares them."""
        homes = {"subject": self.placement.subject, "client": self.placement.client, "backend": self.placement.backend}
        return sum(self.busy_s[role] for role, cpus in homes.items() if set(cpus) <= set(self.placement.subject))

    def check_busy(self) -> None:
        """That it was the subjects who were full, of the whole block."""
        busy = self.busy_s
        beside_s = busy["client"] + (busy["backend"] if self.placement.backend == self.placement.client else 0.0)
        if busy["subject"] < RESTS * beside_s * len(self.placement.subject):
            raise Failed(f"client-bound: load generator and backend took {percent(beside_s / busy['subject'])} of the "
                         "CPU time that the subject took")


def measure_block(cell: Cell, placement: Placement, builds: dict[str, Build], sequence: list[list[str]],
                  portion_ops: Callable[[float], int], directory: Path, logs: str) -> Block:
    """From nothing running to nothing running. `portion_ops` says how many ops a portion has, from what one costs."""
    with crew() as programs:
        bench = Bench(cell, placement, builds, directory, logs, programs)
        costs_s = {arm: bench.warm_up(arm) for arm in builds}
        count = portion_ops(costs_s["base"])
        for arm in sequence[0]:
            bench.time(arm, max(1, round(count * ALONE)))
        before, begin, used_s = sampler.read_machine(), time.monotonic(), bench.ours_s()
        for arms in sequence:
            bench.measure(arms, count)
        length_s, after, used_s = time.monotonic() - begin, sampler.read_machine(), bench.ours_s() - used_s
        bench.check_busy()
        for arm in builds:
            with named(arm):
                bench.check_arm(arm)
        for program in programs:  # all at once: they take longest to notice that nobody is there any more
            program.popen.terminate()
    cpus = len(placement.subject)
    busy_s, steal_s = (sum(after[cpu][which] - before[cpu][which] for cpu in placement.subject) for which in (0, 1))
    return Block(bench.trials, max(0.0, busy_s - used_s) / length_s / cpus, steal_s / length_s / cpus, count)
