"""`tlsdyno history`: what each cell cost in one run after the other, in a CSV that only ever grows; where its level
changed; and a plot. It sees the creep of which every single step is too small for a gate.

Change points are looked for as Apache Otava does, by dividing the series where two sides differ most (E-Divisive with
Student's t in the place of permutations, so that the same file always gives the same answer): first at a level of ten
times SIGNIFICANT, so that a change is not overlooked because another one is near, then each that is left is judged
again between its neighbours. """
import argparse
import csv
import io
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy
import scipy.stats

from . import csv_input, gate, gate_report, output, record
from .refusal import Refused
from .units import significant

COLUMNS = ("run_id", "cell", "cpu_us_per_op", "rows", "commit")
SIGNIFICANT = 0.001
FIRST_PASS = 10          # times SIGNIFICANT
WINDOW = 50              # runs looked at together; a rise that is older has been told often enough
LEAST_SIDE = 3           # runs on each side of a change point: of fewer no level is known
MARGIN = math.log(1.02)  # a change of level by less is not reported
ENOUGH = 10              # runs of a cell from which a usual change can be said


@dataclass(frozen=True)
class Entry:
    row: int        # in the file
    run_id: str
    cell: str
    cost_us: float
    commit: str


@dataclass(frozen=True)
class Change:
    """Of a cell's level, from the run at `index` of its series."""

    cell: str
    index: int
    entry: Entry
    before_us: float
    after_us: float
    p: float
    last_us: float  # the level of the last runs, after all changes

    @property
    def shift(self) -> float:
        return math.log(self.after_us / self.before_us)

    @property
    def is_open(self) -> bool:
        """A rise that nothing has taken back since."""
        return self.shift > 0 and math.log(self.last_us / self.before_us) >= MARGIN


def read(path: Path) -> list[Entry]:
    with csv_input.opened(path) as file:
        lines = list(csv.reader(file))
    if not lines:
        raise Refused(path, "", "the file is empty")
    if tuple(lines[0]) != COLUMNS:
        raise Refused(path, "row 1", f"is not the head of a history ({','.join(COLUMNS)})")
    entries = []
    for number, fields in enumerate(lines[1:], start=2):
        if len(fields) != len(COLUMNS):
            raise Refused(path, f"row {number}", "has not as many fields as there are columns")
        row = dict(zip(COLUMNS, fields))
        try:
            cost_us = float(row["cpu_us_per_op"])
        except ValueError:
            cost_us = math.nan
        if not 0 < cost_us < math.inf:
            raise Refused(path, f"row {number}", f"cpu_us_per_op: '{row['cpu_us_per_op']}' is no cost")
        entries.append(Entry(number, row["run_id"], row["cell"], cost_us, row["commit"]))
    return entries


def series(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Of each cell, in the order of the file, which is that of the runs."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.cell, []).append(entry)
    return found


def usual_change(entries: list[Entry], cell: str) -> float | None:
    """How much a cell changes from one run to the next when nothing is wrong: the upper quartile of its steps and three
    times the distance between the quartiles. None where too few runs are known."""
    costs = [entry.cost_us for entry in entries if entry.cell == cell]
    if len(costs) < ENOUGH:
        return None
    lower, upper = numpy.percentile(numpy.abs(numpy.diff(numpy.log(costs))), (25, 75))
    return float(upper + 3 * (upper - lower))


def difference_p(left: numpy.ndarray, right: numpy.ndarray) -> float:
    if not numpy.ptp(left) and not numpy.ptp(right):
        return 0.0 if left[0] != right[0] else 1.0  # without any spread Student has nothing to divide by
    return float(scipy.stats.ttest_ind(left, right).pvalue)


def best_split(values: numpy.ndarray) -> tuple[float, int] | None:
    """(p, index) of where the two sides differ most."""
    splits = [(difference_p(values[:index], values[index:]), index)
              for index in range(LEAST_SIDE, len(values) - LEAST_SIDE + 1)]
    return min(splits) if splits else None


def divide(values: numpy.ndarray, begin: int, level: float) -> list[int]:
    split = best_split(values)
    if split is None or split[0] > level:
        return []
    index = split[1]
    return [*divide(values[:index], begin, level), begin + index, *divide(values[index:], begin + index, level)]


def change_points(values: numpy.ndarray) -> list[tuple[int, float]]:
    """(index, p) of each. The weakest that does not hold between its neighbours goes first: without it they may."""
    points = divide(values, 0, FIRST_PASS * SIGNIFICANT)
    while points:
        bounds = [0, *points, len(values)]
        parts = [values[begin:end] for begin, end in zip(bounds, bounds[1:])]
        judged = [(difference_p(left, right), abs(float(numpy.mean(right) - numpy.mean(left))), index)
                  for left, right, index in zip(parts, parts[1:], points)]
        weak = [each for each in judged if each[0] > SIGNIFICANT or each[1] < MARGIN]
        if not weak:
            return [(index, p) for p, _, index in judged]
        points.remove(max(weak)[2])
    return []


def since(path: Path, entries: list[Entry], run_id: str) -> list[Entry]:
    """From a run on: what it cost is accepted, whatever was before."""
    start = next((position for position, entry in enumerate(entries) if entry.run_id == run_id), None)
    if start is None:
        raise Refused(path, "--since", f"has no run {run_id}")
    return entries[start:]


def changes(entries: list[Entry]) -> list[Change]:
    found = []
    for cell, whole in series(entries).items():
        recent = whole[-WINDOW:]
        values = numpy.log([entry.cost_us for entry in recent])
        points = change_points(values)
        bounds = [0, *(index for index, _ in points), len(recent)]
        levels = [math.exp(numpy.mean(values[begin:end])) for begin, end in zip(bounds, bounds[1:])]
        for (index, p), before_us, after_us in zip(points, levels, levels[1:]):
            found.append(Change(cell, len(whole) - len(recent) + index, recent[index], before_us, after_us, p,
                                levels[-1]))
    return found


def costs_of_gate(report: Path) -> tuple[str, dict[str, tuple[float, int]]]:
    """Of a run of ab: what its new build cost, and in how many blocks."""
    try:
        data = json.loads(report.read_text())
        if data["unit"] != gate_report.COST:
            raise Refused(report, "unit", f"{data['unit']}, and a history is of {gate_report.COST}")
        return data["run_id"], {cell["cell"]: (float(cell["new"]), int(cell["n"]))
                                for cell in data["cells"] if cell["verdict"] != "invalid"}
    except OSError as error:
        raise Refused(report, "", error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(report, "", f"is not a report of ab: {error}") from error


def costs_of_run(path: Path) -> tuple[str, dict[str, tuple[float, int]]]:
    """Of a results.csv: the median of the rows that stand, and how many they are."""
    from . import compare  # which asks the history for its thresholds

    cells = list(compare.read(path).values())
    costs = {found.label: found.costs() for found in cells}
    return cells[0].rows[0]["run_id"], {label: (gate.median(values), len(values))
                                        for label, values in costs.items() if values}


def rows_to_add(path: Path, commit: str) -> list[tuple[str, ...]]:
    """Of one run."""
    report = path / "report.json"
    run_id, costs = costs_of_gate(report) if report.is_file() else costs_of_run(path)
    if not costs:
        raise Refused(path, "", "has no cell whose cost stands")
    return [(run_id, cell, record.field(cost), str(count), commit) for cell, (cost, count) in costs.items()]


def append(path: Path, runs: list[Path], commit: str) -> int:
    """How many rows were added. All or none; a run that is there already is not added twice."""
    entries = read(path) if path.exists() else []
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        raise Refused(path, f"row {len(entries) + 1}", "is cut off: there is no end of line")
    present = {(entry.run_id, entry.cell) for entry in entries}
    new = [row for run in runs for row in rows_to_add(run, commit) if row[:2] not in present]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*([] if path.exists() else [COLUMNS]), *new])
    data = text.getvalue().encode(errors="backslashreplace")
    try:
        # One write to a file that is only ever appended to: another run that adds at the same time is before or after.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, data) != len(data):
                os.ftruncate(descriptor, size)
                raise Refused(path, "", "could not be written whole: nothing was added")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Refused(path, "", error.strerror or str(error)) from error
    return len(new)


def describe(change: Change) -> str:
    commit = f"commit {change.entry.commit}, " if change.entry.commit else ""
    return (f"{change.cell}: {significant(change.before_us)} -> {significant(change.after_us)} CPU us/op "
            f"({100 * math.expm1(change.shift):+.1f} %) from run {change.entry.run_id} ({commit}"
            f"row {change.entry.row}, p {change.p:.1g})")


def creep(whole: list[Entry]) -> float:
    """From the first runs that are looked at to the last."""
    values = [math.log(entry.cost_us) for entry in whole[-WINDOW:]]
    few = max(1, min(LEAST_SIDE, len(values) // 2))
    return gate.median(values[-few:]) - gate.median(values[:few])


def text(entries: list[Entry], found: list[Change]) -> str:
    lines = []
    for cell, whole in series(entries).items():
        usual = usual_change(entries, cell)
        step = "" if usual is None else f", usual step up to {100 * math.expm1(usual):.1f} %"
        runs = "1 run" if len(whole) == 1 else f"{len(whole)} runs"
        lines.append(f"{cell}: {runs}, {significant(whole[-1].cost_us)} CPU us/op, "
                     f"{100 * math.expm1(creep(whole)):+.1f} % since run {whole[-WINDOW:][0].run_id}{step}")
    lines.append("")
    lines += [("RISE " if each.is_open else "     ") + describe(each) for each in found] or ["No change points."]
    return "\n".join(lines)


def plot(entries: list[Entry], found: list[Change], path: Path) -> None:
    try:
        import matplotlib
    except ImportError as error:
        raise Refused("--plot", str(path), "needs matplotlib (Debian package python3-matplotlib)") from error
    matplotlib.use("agg")
    from matplotlib import pyplot

    cells = series(entries)
    figure, axes = pyplot.subplots(len(cells), 1, figsize=(10, 2.2 * len(cells) + 0.6), squeeze=False)
    for axis, (cell, whole) in zip(axes[:, 0], cells.items()):
        costs = [entry.cost_us for entry in whole]
        axis.plot(range(len(costs)), costs, ".-", color="tab:blue", linewidth=0.8)
        for change in (each for each in found if each.cell == cell):
            axis.axvline(change.index - 0.5, color="tab:red" if change.shift > 0 else "tab:green")
        axis.set_title(cell, fontsize=9, loc="left")
        axis.set_ylabel("CPU us/op")
        axis.margins(x=0.02)
    axes[-1, 0].set_xlabel("run")
    figure.tight_layout()
    try:
        figure.savefig(path)
    except OSError as error:
        raise Refused("--plot", str(path), error.strerror or str(error)) from error
    except ValueError as error:
        raise Refused("--plot", str(path), str(error).splitlines()[0]) from error
    finally:
        pyplot.close(figure)


def command(arguments: argparse.Namespace) -> int:
    if arguments.add:
        added = append(arguments.file, arguments.add, arguments.commit)
        output.mention(f"{added} rows added to {arguments.file}")
    entries = read(arguments.file)
    if not entries:
        raise Refused(arguments.file, "", "has no rows")
    if arguments.since:
        entries = since(arguments.file, entries, arguments.since)
    found = changes(entries)
    if arguments.plot:
        plot(entries, found, arguments.plot)
    output.say(text(entries, found))
    return gate.REGRESSION if any(change.is_open for change in found) else gate.PASS
