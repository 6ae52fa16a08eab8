"""`tlsdyno ab --instructions`: the deterministic form, for machines on which no time means anything. Instructions an op
that the proxy executes outside of the kernel, counted by valgrind's callgrind.

Each build is counted with few ops and with many: the difference, divided by the difference in ops, is what an op takes;
start-up, first connections and the end of the process are in both. With a single connection the order of events is
always the same, so that counts of one build differ by less than a thousandth (keys and nonces are random numbers, of
which some take more steps than others); no time is measured, so everything that fits on the CPUs runs at once. """
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import gate
from .block import check_load, load_command
from .builds import Build
from .cell import Cell
from .certificates import certificate
from .gate import CellVerdict, Outcome, Sample
from .inference import Estimate, two_sample
from .loading import check_alive, printed_address
from .loads import loadgen
from .placement import Placement
from .processes import Failed, Program, crew, describe_end, last_line, start, wait_gone, wait_until_ready
from .refusal import Refused
from .runner import Plan, start_backend
from .subjects import DRIVERS, Task
from .verdict import ops

REPEATS = 3
MARGIN = "0.5"           # per cent, if nothing else is said: what a change of a line can do, and noise cannot
# Few and many. A new connection is worth some hundred kept-alive transactions.
OPS = {False: (100, 200), True: (1000, 3000)}
READY_LIMIT_S = 120.0    # a program starts fifty times slower under valgrind
LOAD_LIMIT_S = 300.0
END_LIMIT_S = 120.0      # to write the counts
POLL_S = 0.05
TOOL = ("valgrind", "-q", "--tool=callgrind", "--dump-line=no")


@dataclass
class Counts:
    """Instructions an op of a cell, a repeat each."""

    cell: Cell
    base: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    invalid: str = ""

    def judged(self, margin: float) -> CellVerdict:
        """The counts of a build hardly differ, so their whole range stands in for an interval: a change is proven where
        the two ranges are apart."""
        if self.invalid or len(self.new) < REPEATS:
            sample = Sample(self.cell.label, 0.0, 0.0, invalid=self.invalid or "not counted")
            return CellVerdict(sample, None, 1.0, margin, margin, None, None, "invalid", sample.invalid)
        base, new = ([gate.log(count) for count in counts] for counts in (self.base, self.new))
        sample = Sample(self.cell.label, gate.median(self.base), gate.median(self.new), apart=(base, new))
        shift = gate.median(new) - gate.median(base)
        estimate = Estimate(REPEATS, shift, min(new) - max(base), max(new) - min(base),
                            two_sample(base, new, gate.ALPHA).p, gate.ALPHA)
        floor = (max(base) - min(base)) / 2
        verdict, reason = "inconclusive", ""
        if 2 * floor >= margin:
            verdict, reason = "invalid", f"A/A check: counts of the base differ by {100 * 2 * floor:.2f} %"
        elif estimate.low > 0 and shift >= margin:
            verdict = "regression"
        elif estimate.high < margin:
            verdict = "faster" if estimate.high < 0 and shift <= -margin else "pass"
        return CellVerdict(sample, estimate, estimate.p, margin, margin, floor, margin + 2 * floor, verdict, reason)


def counted(directory: Path) -> int:
    """Of all processes of a program: each leaves a file."""
    files = list(directory.glob("out.*"))
    totals = [re.search(r"^totals: (\d+)", file.read_text(errors="replace"), re.MULTILINE) for file in files]
    if not files or not all(totals):
        raise Failed("callgrind left no counts")
    return sum(int(total[1]) for total in totals if total)


class Count:
    """One process of the proxy under callgrind, and the load on it."""

    def __init__(self, cell: Cell, cpu: int, build: Build, wanted: int, backend: str, directory: Path) -> None:
        self.cell, self.wanted, self.directory = cell, wanted, directory
        self.placement = Placement((cpu,), (cpu,), (cpu,))
        directory.mkdir()
        words = (*build.launcher, *TOOL, f"--callgrind-out-file={directory}/out.%p")
        task = Task(cell, (cpu,), certificate(cell.cert_key), backend, 0, directory)
        self.command = replace(build, launcher=words).command(DRIVERS[cell.subject].command(task))
        self.subject: Program
        self.load: Program

    def begin(self, programs: list[Program]) -> None:
        self.subject = start("subject", self.command, self.placement.subject, self.directory / "subject.log")
        programs.append(self.subject)

    def put_load(self, programs: list[Program]) -> None:
        wait_until_ready(self.subject, lambda: printed_address(self.subject, "listening") is not None, READY_LIMIT_S)
        address = printed_address(self.subject, "listening") or ""
        command = load_command(self.cell, self.placement, address, self.wanted, self.directory / "load.json",
                               LOAD_LIMIT_S)
        self.load = start("client", command, self.placement.client, self.directory / "client.log")
        programs.append(self.load)

    def end(self) -> tuple[int, int]:
        """Instructions, and ops."""
        deadline = time.monotonic() + LOAD_LIMIT_S
        while self.load.popen.poll() is None:
            check_alive([self.subject])
            if time.monotonic() > deadline:
                raise Failed(f"load generator did not end within {LOAD_LIMIT_S:g} s")
            time.sleep(POLL_S)
        if self.load.popen.returncode not in loadgen.MEASURED:
            raise Failed(f"load generator {describe_end(self.load)}")
        try:
            result = loadgen.read(self.directory / "load.json")
        except ValueError as error:
            raise Failed(f"{error} ({last_line(self.load.log)})") from error
        check_load(self.cell, self.placement, result)
        self.subject.popen.send_signal(signal.SIGTERM)
        if not wait_gone(self.subject, END_LIMIT_S):
            raise Failed(f"subject did not end within {END_LIMIT_S:g} s")
        return counted(self.directory), ops(self.cell, result)


def count_once(cell: Cell, cpus: tuple[int, ...], builds: dict[str, Build], directory: Path) -> dict[str, float]:
    """Instructions an op, of each build."""
    directory.mkdir()
    with crew() as programs:
        backend = start_backend(cell, Placement(cpus, cpus[-1:], cpus[-1:]), directory, directory / "backend.log",
                                programs)
        counts = {(arm, wanted): Count(cell, cpus[number % len(cpus)], builds[arm], wanted, backend,
                                       directory / f"{arm}-{wanted}")
                  for number, (arm, wanted) in enumerate(
                      (arm, wanted) for wanted in OPS[cell.keeps_alive] for arm in builds)}
        for count in counts.values():
            count.begin(programs)
        for count in counts.values():
            count.put_load(programs)
        seen = {key: count.end() for key, count in counts.items()}
    few, many = OPS[cell.keeps_alive]
    return {arm: (seen[arm, many][0] - seen[arm, few][0]) / (seen[arm, many][1] - seen[arm, few][1]) for arm in builds}


def check_valgrind() -> None:
    if not shutil.which(TOOL[0]):
        raise Refused("--instructions", "", "needs valgrind (Debian package valgrind)")


def run(plan: Plan, cells: list[Cell], builds: dict[str, Build], margin: float, temporary: Path,
        said: Callable[[str], None]) -> Outcome:
    states = [Counts(replace(cell, connections=1)) for cell in cells]
    pair = {arm: builds[arm] for arm in ("base", "new")}
    for repeat in range(1, REPEATS + 1):
        for number, state in enumerate(states):
            if state.invalid:
                continue
            directory = temporary / f"{repeat}-{number}"
            try:
                counts = count_once(state.cell, plan.cpus, pair, directory)
            except Failed as error:
                state.invalid = str(error)
                continue
            finally:
                shutil.rmtree(directory, ignore_errors=True)
            state.base.append(counts["base"])
            state.new.append(counts["new"])
            said(f"count {repeat} of {REPEATS}: {state.cell.label} {counts['base']:.0f} -> {counts['new']:.0f}")
    return Outcome(tuple(state.judged(margin) for state in states), gate.ALPHA)
