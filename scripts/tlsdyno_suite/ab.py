"""`tlsdyno ab`: two builds of the proxy in one run, block by block, until every cell is decided or the time is over."""
import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import gate, gate_report, instructions, machine, output, trials
from .block import ARMS, PORTION_S, Block, measure_block, order
from .builds import Build, check, find
from .cell import Cell
from .certificates import certificate
from .gate import Outcome, Sample
from .inference import Budget
from .processes import Failed, Interrupted, check_tools
from .programs import build_directory, require_built
from .refusal import Refused
from .runner import Plan, out_of_the_way
from .subjects import DRIVERS, Task, check_paths
from .units import about
from .workspace import workspace

# When to look, in blocks. With the first number a cell of four can be found slower at all (1/256 is within a third of a
# quarter of 5 %); the last bounds a run that nothing decides. The last look of a run comes when its time is over.
LOOKS = (8, 16, 32)
MARGIN = "3"             # per cent, if nothing else is said
# A cell of which so many attempts failed, and so large a share of them, is not measured any more.
REJECTED, REJECTED_SHARE = 3, 0.2


@dataclass
class CellState:
    """What is known of a cell so far."""

    cell: Cell
    blocks: list[Block] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    portion_ops: int | None = None

    @property
    def invalid(self) -> str:
        attempts = len(self.rejected) + len(self.blocks)
        if len(self.rejected) < REJECTED or len(self.rejected) <= REJECTED_SHARE * attempts:
            return ""
        return f"{len(self.rejected)} of {attempts} blocks failed: {self.rejected[-1]}"

    def ops_of(self, cost_s: float) -> int:
        """How many ops a portion has: found in the first block, then the same for all."""
        if self.portion_ops is None:
            self.portion_ops = max(self.cell.connections, round(PORTION_S / max(cost_s, 1e-7)), 10)
        return self.portion_ops

    def typical(self, arm: str, figure: str) -> float:
        return gate.median([getattr(block.trials[arm], figure) for block in self.blocks])

    def sample(self) -> Sample:
        if not self.blocks:
            return Sample(self.cell.label, 0.0, 0.0, invalid=self.invalid or "no block was finished")
        return Sample(
            self.cell.label, self.typical("base", "cost_us"), self.typical("new", "cost_us"),
            paired=[block.paired for block in self.blocks], twin=[block.twin for block in self.blocks],
            base_rate_per_s=self.typical("base", "rate_per_s"), new_rate_per_s=self.typical("new", "rate_per_s"),
            invalid=self.invalid)


class Comparison:
    """Measures blocks, in turn over the cells, and looks at them."""

    def __init__(self, plan: Plan, cells: Sequence[Cell], builds: dict[str, Build], margin: float, time_s: float,
                 record: Callable[[int, Cell, Block | None, str], None]) -> None:
        self.plan, self.builds, self.margin, self.record = plan, builds, margin, record
        self.states = [CellState(cell) for cell in cells]
        self.begin = time.monotonic()
        self.time_s = time_s
        self.chooser = random.Random(plan.seed)
        self.statistics_s = 0.0  # CPU time of all looks
        self.budget = Budget(gate.ALPHA, len(LOOKS))
        self.looked = 0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.begin

    def look(self, is_last: bool) -> Outcome:
        begin = time.process_time()
        samples = [state.sample() for state in self.states]
        outcome = gate.judge(samples, self.budget.spend(is_last), self.margin, is_last)
        self.looked += 1
        self.statistics_s += time.process_time() - begin
        return outcome

    def attempt(self, number: int, state: CellState, temporary: Path, logs: Path) -> bool:
        """Whether a block came of it."""
        placement = self.plan.placement(state.cell)
        assert placement is not None  # a cell that cannot be placed was left out before
        directory = temporary / f"{self.states.index(state)}-{len(state.blocks)}-{len(state.rejected)}"
        directory.mkdir()
        # Logs are an attempt's own: addresses are read from them, and several cells may have one label.
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", state.cell.label)
        try:
            block = measure_block(state.cell, placement, self.builds, order(self.chooser), state.ops_of, directory,
                                  f"{logs}/{number:02d}-{directory.name}-{name}")
        except Failed as error:
            state.rejected.append(str(error))
            self.record(number, state.cell, None, str(error))
            return False
        state.blocks.append(block)
        self.record(number, state.cell, block, "")
        return True

    def run(self, temporary: Path, logs: Path, said: Callable[[int, Outcome | None], None]) -> Outcome:
        """`said` hears of every block, with the outcome where it was looked at."""
        open_cells = list(self.states)
        number, outcome = 0, None
        while open_cells:
            number += 1
            begin = self.elapsed_s
            for state in self.chooser.sample(open_cells, len(open_cells)):
                while not self.attempt(number, state, temporary, logs) and not state.invalid:
                    pass  # measured again at once: its reason is in what went in, not in what came out
            took_s = self.elapsed_s - begin
            last = number == LOOKS[-1] or self.elapsed_s + took_s > self.time_s
            outcome = self.look(last) if number in LOOKS or last else None
            said(number, outcome)
            if outcome and (last or outcome.decided()):
                return outcome
            # What is decided needs no more blocks; they are worth more where something is still open.
            open_cells = [state for state in open_cells if not state.invalid]
            if outcome:
                open_cells = [state for state, cell in zip(self.states, outcome.cells)
                              if state in open_cells and cell.verdict == "inconclusive"]
        return self.look(is_last=True)


def measurable(plan: Plan) -> tuple[list[Cell], list[str]]:
    """Cells, and what is said of those that are left out."""
    cells, left_out = [], []
    for cell in plan.cells:
        if cell.hosts > 1:
            left_out.append(f"{cell.label} skipped: ab measures one host")
            continue
        if cell.loop != "closed":
            raise Refused(plan.scenario.path, f"loop = {cell.loop}", "ab needs loop = closed")
        reason = plan.obstacle(cell)
        if reason:
            left_out.append(f"{cell.label} skipped: {reason}")
        else:
            cells.append(cell)
    return cells, left_out


def reference_of(plan: Plan) -> str:
    names = plan.scenario.subjects
    if len(names) != 1 or not DRIVERS[names[0]].has_statistics:
        raise Refused(plan.scenario.path, "subject.names", "ab compares builds of the proxy: one subject, reference or "
                      f"reference-no-resume (--only subject=reference), not {', '.join(names)}")
    return names[0]


def prepare(arguments: argparse.Namespace, plan: Plan) -> tuple[list[Cell], list[str], dict[str, Build]]:
    """Everything that can be refused, before anything is measured."""
    check_tools()
    check_paths(build_directory(), Path(tempfile.gettempdir()))
    driver = DRIVERS[reference_of(plan)]
    found = {"base": find("--base", arguments.base), "new": find("--new", arguments.new)}
    require_built(["proxy", "echo-backend", "loadgen"] if any(build.kind != "build" for build in found.values())
                  else ["echo-backend", "loadgen"])
    cells, left_out = measurable(plan)
    for cell in cells:
        placement = plan.placement(cell)
        assert placement is not None  # see measurable
        task = Task(cell, placement.subject, certificate(cell.cert_key), "127.0.0.1:1", 0, Path(tempfile.gettempdir()))
        for name, build in found.items():
            check(f"--{name}", build, driver, task)
    return cells, left_out, found


def copies(found: dict[str, Build], temporary: Path) -> dict[str, Build]:
    """One file for each arm, the base's twice."""
    sources = {"base": found["base"], "new": found["new"], "again": found["base"]}
    return {arm: sources[arm].copy(temporary / letter) for arm, letter in zip(ARMS, "abc")}


@dataclass(frozen=True)
class Told:
    """What a way of measuring has to say when it has ended."""

    outcome: Outcome
    unit: str
    notes: list[str]
    settings: dict[str, Any]


def by_time(arguments: argparse.Namespace, plan: Plan, cells: list[Cell], found: dict[str, Build],
            directory: Path) -> Told:
    recorder = trials.Recorder(directory / "trials.csv")
    margin = gate.parse_margin(arguments.threshold or MARGIN)
    (directory / "logs").mkdir()

    def said(number: int, outcome: Outcome | None) -> None:
        verdicts = "" if outcome is None else ": " + ", ".join(
            f"{cell.sample.label} {cell.verdict}" for cell in outcome.cells)
        output.mention(f"[{about(comparison.elapsed_s)}] block {number}{verdicts}")

    try:
        with workspace() as temporary, out_of_the_way(plan):
            builds = copies(found, temporary)
            comparison = Comparison(plan, cells, builds, margin, arguments.time, recorder.write)
            outcome = comparison.run(temporary, directory / "logs", said)
    finally:
        recorder.close()
    return Told(outcome, gate_report.COST, conditions(comparison), {
        "looks": list(LOOKS), "looked": comparison.looked, "statistics_cpu_s": round(comparison.statistics_s, 3)})


def by_instructions(arguments: argparse.Namespace, plan: Plan, cells: list[Cell], found: dict[str, Build]) -> Told:
    margin = gate.parse_margin(arguments.threshold or instructions.MARGIN)
    with workspace() as temporary:
        outcome = instructions.run(plan, cells, copies(found, temporary), margin, temporary, output.mention)
    return Told(outcome, gate_report.INSTRUCTIONS, [], {"repeats": instructions.REPEATS})


def command(arguments: argparse.Namespace, plan: Plan, make_directory: Callable[[Path | None, str], Path]) -> int:
    begin_s, begin = time.process_time(), time.monotonic()
    gate.parse_margin(arguments.threshold or MARGIN)
    if arguments.instructions:
        instructions.check_valgrind()
    cells, left_out, found = prepare(arguments, plan)
    if not cells:
        output.mention("\n".join(f"tlsdyno: {line}" for line in left_out))
        return gate.INVALID
    directory = make_directory(arguments.out, plan.run_id)
    (directory / "scenario.toml").write_bytes(plan.scenario.path.read_bytes())
    sides = {name: build.described for name, build in found.items()}
    about_run = {"run_id": plan.run_id, "kind": "ab", "scenario": plan.scenario.name, "seed": plan.seed, **sides}
    (directory / "machine.json").write_text(json.dumps({**about_run, **machine.fingerprint()}, indent=2) + "\n")
    length = "" if arguments.instructions else f", at most {about(arguments.time)}"
    output.mention(f"{plan.scenario.title}\n{len(cells)} cells{length}; results in {directory}")
    planned_s = time.process_time() - begin_s
    try:
        told = (by_instructions(arguments, plan, cells, found) if arguments.instructions
                else by_time(arguments, plan, cells, found, directory))
    except Interrupted as interruption:
        output.mention(f"tlsdyno: interrupted; what was finished is in {directory}")
        return interruption.exit_status
    status = gate.exit_status(told.outcome.verdict, arguments.inconclusive)
    report = gate_report.Report(
        title=plan.scenario.title, run_id=plan.run_id, unit=told.unit, outcome=told.outcome, exit_status=status,
        base=sides["base"], new=sides["new"], notes=[*left_out, *told.notes],
        settings={"seed": plan.seed, "alpha": gate.ALPHA, "elapsed_s": round(time.monotonic() - begin, 1),
                  "planning_cpu_s": round(planned_s, 3), **told.settings})
    gate_report.write(report, directory)
    output.say(gate_report.text(report) + f"Results: {directory}")
    return status


def conditions(comparison: Comparison) -> list[str]:
    """What the machine was like, and what had to be done again."""
    blocks = [block for state in comparison.states for block in state.blocks]
    lines = []
    if blocks:
        foreign, steal = (100 * sum(getattr(block, name) for block in blocks) / len(blocks)
                          for name in ("foreign", "steal"))
        lines.append(f"the subject's CPU: {foreign:.1f} % used by others, {steal:.1f} % stolen")
    rejected = [f"{state.cell.label}: {reason}" for state in comparison.states for reason in state.rejected]
    if rejected:
        lines.append(f"{len(rejected)} attempts do not count; the last one: {rejected[-1]}")
    return lines
