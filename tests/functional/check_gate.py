#!/usr/bin/python3
"""Shows that the regression gate finds what it should and cries wolf no more often than it may.

    check_gate.py      (CHECK_GATE_RUNS=N runs of each kind instead of 10)

Runs of each kind in turn: builds that are slower by a known amount, and the base against itself, with and without
somebody else on the subject's CPU. Each finished run is a row in build/check-gate/, so that it can be interrupted and
begun again; another proxy or another gate begins a new file. Prints the table of all runs; status 1 when a demand is
not met or a run found no time, 0 otherwise. Ninety minutes at most.
"""
from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("TLSDYNO_BUILD_DIR", ROOT / "build")).resolve()
sys.path.insert(0, str(ROOT / "scripts"))

from tlsdyno_suite import cli  # noqa: E402  (found only with the path above)
from tlsdyno_suite.machine import sha256  # noqa: E402

COLUMNS = ("kind", "run", "exit_status", "elapsed_s", "largest_change", "remark", "own_cpu_s")
REGRESSION = 1
LIMIT_S = 5400   # for all runs together: none is begun that might not end within it
RUN_S = 100.0    # the longest run of a kind that has no limit of its own, on a machine that is not too busy
OWN_CPU_S = 2.0  # what planning and statistics of a run may take
VERDICTS = {0: "pass", 1: "regression", 2: "refused", 3: "inconclusive", 4: "invalid"}


@dataclass(frozen=True)
class Kind:
    name: str
    new: str                    # directory of the new build, below the build directory
    options: tuple[str, ...]
    least: float | None = None  # share of the runs that is to be regressions; None: none of them is one
    limit_s: float | None = None
    disturbed: bool = False


AGAINST_ITSELF = ("--time", "90s")
KINDS = (
    Kind("10 % slower, 90 s", "slow-10", ("--time", "85s"), least=0.9, limit_s=90),
    Kind("5 % slower, 3 minutes", "slow-5", ("--time", "175s"), least=0.9, limit_s=180),
    Kind("2 % slower, instructions", "slow-2", ("--instructions", "--only", "work=full-ecdsa"), least=0.9),
    Kind("the same", ".", AGAINST_ITSELF),
    Kind("the same, disturbed", ".", AGAINST_ITSELF, disturbed=True),
)

# Burns 30 % of a CPU in bursts of up to half a second of its time, however much of it others have meanwhile.
DISTURBER = """
import os, random, sys, threading, time
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
os.sched_setaffinity(0, {int(sys.argv[1])})
dice = random.Random(sys.argv[2])
while True:
    burst, begin = dice.uniform(0.05, 0.5), time.monotonic()
    end = time.thread_time() + burst
    while time.thread_time() < end:
        pass
    time.sleep(max(0.0, burst / 0.3 * dice.uniform(0.7, 1.3) - (time.monotonic() - begin)))
"""


@contextlib.contextmanager
def disturber(seed: str) -> Iterator[None]:
    """On the CPU that the subject has. It ends with us, however we end: its standard input is ours to close."""
    words = [sys.executable, "-c", DISTURBER, str(min(os.sched_getaffinity(0))), seed]
    process = subprocess.Popen(words, stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.kill()
        process.wait()
        assert process.stdin
        process.stdin.close()


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    yield


def run_one(kind: Kind, number: int, scenario: str) -> dict[str, object]:
    """One run of the gate, as its user would have it."""
    directory = Path(tempfile.mkdtemp(prefix="check-gate-"))
    said = io.StringIO()
    begin = time.monotonic()
    try:
        with disturber(f"{kind.name} {number}") if kind.disturbed else nobody():
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                status = cli.main(["ab", scenario, "--base", str(BUILD), "--new", str(BUILD / kind.new), *kind.options,
                                   "--out", str(directory / "run")])
        elapsed_s = time.monotonic() - begin
        if status > 128:
            raise KeyboardInterrupt
        if status == 2:
            raise SystemExit(f"check_gate: {said.getvalue().strip()}")
        report = json.loads((directory / "run" / "report.json").read_text())
    finally:
        shutil.rmtree(directory)
    changes = [cell["change"] for cell in report["cells"] if cell["change"] is not None]
    own_s = sum(report["settings"].get(name, 0.0) for name in ("planning_cpu_s", "statistics_cpu_s"))
    return {"kind": kind.name, "run": number, "exit_status": status, "elapsed_s": f"{elapsed_s:.1f}",
            "largest_change": f"{max(changes):.4f}" if changes else "",
            "remark": "; ".join(f"{cell['cell']}: {cell['reason']}" for cell in report["cells"] if cell["reason"]),
            "own_cpu_s": f"{own_s:.2f}"}


def identity() -> str:
    """Of the proxy and of the gate: rows of others are not continued."""
    parts = [BUILD / "proxy", *sorted((ROOT / "scripts" / "tlsdyno_suite").rglob("*.py"))]
    return hashlib.sha256("".join(str(sha256(part)) for part in parts).encode()).hexdigest()[:16]


def finished(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        # A row that was cut off by whatever ended the last run is measured again.
        return [row for row in csv.DictReader(file) if row["own_cpu_s"]]


def measure(kinds: tuple[Kind, ...], runs: int, path: Path, scenario: str, said: Callable[[str], None]) -> None:
    """What is not in the file yet, a run of each kind in turn."""
    done = {(row["kind"], int(row["run"])) for row in finished(path)}
    rows = finished(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for number in range(1, runs + 1):
        for kind in random.Random(number).sample(kinds, len(kinds)):
            if (kind.name, number) in done:
                continue
            used_s = sum(float(row["elapsed_s"]) for row in finished(path))
            if used_s + (kind.limit_s or RUN_S) > LIMIT_S:
                said(f"{kind.name}, run {number}: not begun, {used_s:.0f} s of {LIMIT_S} s are used")
                continue
            row = run_one(kind, number, scenario)
            with path.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)
            remark = f" ({row['remark']})" if row["remark"] else ""
            verdict = VERDICTS[int(str(row["exit_status"]))]
            said(f"{kind.name}, run {number}: {verdict} after {row['elapsed_s']} s{remark}")


def demand(kind: Kind) -> str:
    if kind.least is None:
        return "1 false alarm in 20 at most, all kinds together"
    return ", ".join([f"at least {kind.least:.0%} regressions", *([f"{kind.limit_s:.0f} s"] if kind.limit_s else [])])


def is_met(kind: Kind, kinds: tuple[Kind, ...], rows: list[dict[str, str]]) -> bool:
    """What is asked of a kind of which there are rows."""
    ours = [row for row in rows if row["kind"] == kind.name]
    if max(float(row["own_cpu_s"]) for row in ours) > OWN_CPU_S:
        return False
    if kind.least is None:
        harmless = {each.name for each in kinds if each.least is None}
        alarms = [int(row["exit_status"]) == REGRESSION for row in rows if row["kind"] in harmless]
        return sum(alarms) <= max(1, len(alarms) // 20)
    found = sum(int(row["exit_status"]) == REGRESSION for row in ours)
    in_time = kind.limit_s is None or max(float(row["elapsed_s"]) for row in ours) <= kind.limit_s
    return found >= kind.least * len(ours) and in_time


def table(kinds: tuple[Kind, ...], rows: list[dict[str, str]]) -> tuple[str, bool]:
    """The table, and whether every demand on the runs so far is met."""
    head = ["kind", "runs", *VERDICTS.values(), "largest change", "longest", "own CPU", "demanded", "met"]
    lines, all_met = [head], True
    for kind in kinds:
        ours = [row for row in rows if row["kind"] == kind.name]
        if not ours:
            lines.append([kind.name, "0", *[""] * (len(head) - 4), demand(kind), "not yet"])
            continue
        counts = [sum(int(row["exit_status"]) == status for row in ours) for status in VERDICTS]
        changes = [float(row["largest_change"]) for row in ours if row["largest_change"]]
        longest_s, own_s = (max(float(row[name]) for row in ours) for name in ("elapsed_s", "own_cpu_s"))
        met = is_met(kind, kinds, rows)
        all_met &= met
        lines.append([
            kind.name, str(len(ours)), *map(str, counts),
            f"{100 * statistics.median(changes):+.1f}%" if changes else "-",
            f"{longest_s:.0f} s", f"{own_s:.1f} s", demand(kind), "yes" if met else "NO"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    made = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join(made), all_met


def main() -> int:
    wanted = os.environ.get("CHECK_GATE_RUNS", "10")
    if not wanted.isdecimal():
        print(f"check_gate: CHECK_GATE_RUNS: '{wanted}' is not a number of runs", file=sys.stderr)
        return 2
    runs = int(wanted)
    path = BUILD / "check-gate" / f"{identity()}.csv"
    print(f"runs so far: {len(finished(path))}; each is a row in {path}", flush=True)
    try:
        measure(KINDS, runs, path, "regression", lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("interrupted; the next one goes on from here")
        print(table(KINDS, finished(path))[0])
        return 130
    text, met = table(KINDS, finished(path))
    print(text)
    return 0 if met and len(finished(path)) >= runs * len(KINDS) else 1


if __name__ == "__main__":
    sys.exit(main())
