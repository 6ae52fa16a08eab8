"""`tlsdyno compare`: two results.csv, of runs made apart. What lay between them, besides the change, cannot be known;
so the machine has to be the same, and the report says what it cannot tell."""
import argparse
import json
import math
from collections.abc import Mapping, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import gate, gate_report, history, output, record
from .cell import PARAMETERS
from .gate import Sample
from .refusal import Refused

NEEDED = 5  # rows of a cell on each side: of fewer, no order is rare enough to prove anything
MARGIN = "3"  # per cent, if nothing else is said
COST = "subject_cpu_us_per_op"
# Of machine.json: what makes the same work cost something else.
MACHINE = ("cpu_model", "architecture", "cpus_available", "memory_kib", "kernel", "hypervisor", "governors", "no_turbo",
           "smt", "mitigations", "openssl", "sysctl")
APART = ("the runs were made apart: a drift of the machine between them cannot be told from a change of the code "
         "(tlsdyno ab can)")

Key = tuple[str, ...]  # subject, case, every parameter


@dataclass
class Rows:
    """Of one cell, with their numbers in the file."""

    numbers: list[int] = field(default_factory=list)
    rows: list[Mapping[str, str]] = field(default_factory=list)

    @property
    def label(self) -> str:
        row = self.rows[0]
        named = "/".join(pair.partition("=")[2] for pair in row["case"].split(";")) if row["case"] else "/".join(
            row[name] for name in ("tls_version", "cert_key", "reuse", "requests_per_connection"))
        return f"{row['subject']} {named}"

    def standing(self) -> list[Mapping[str, str]]:
        return [row for row in self.rows if row["stands"] in ("all", "cost")]

    def costs(self) -> list[float]:
        return [float(row[COST]) for row in self.standing() if row[COST]]

    def rate_per_s(self) -> float | None:
        name = "connections_per_s" if self.rows[0]["requests_per_connection"] in ("0", "1") else "transactions_per_s"
        rates = [float(row[name]) for row in self.rows if row["stands"] == "all" and row[name]]
        return gate.median(rates) if rates else None


def without_cost(row: Mapping[str, str]) -> str:
    """Why no row of such a cell has a cost per op, or nothing: see Cell.has_pace."""
    if row["loop"] == "hold":
        return "connections that rest have no cost per op"
    if row["loop"] == "burst":
        return "a burst is over before there is a cost per op"
    return "a window in which a host dies has no cost per op" if row["failover"] == "kill" else ""


def key_of(row: Mapping[str, str]) -> Key:
    return (row["subject"], row["case"], *(row[name] for name in PARAMETERS))


def csv_of(path: Path) -> Path:
    return path / "results.csv" if path.is_dir() else path


def read(path: Path) -> dict[Key, Rows]:
    """The cells of a results.csv. A ratio to a cost of nothing is none."""
    path = csv_of(path)
    cells: dict[Key, Rows] = {}
    seen: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(record.read(path), start=2):
        first = seen.setdefault((row["run_id"], *record.row_key(row)), number)
        if first != number:
            raise Refused(path, f"row {number}", f"is the same cell and repeat as row {first}")
        if row[COST] and float(row[COST]) == 0:
            raise Refused(path, f"row {number}", f"{COST}: '{row[COST]}' is no such figure")
        found = cells.setdefault(key_of(row), Rows())
        found.numbers.append(number)
        found.rows.append(row)
    if not cells:
        raise Refused(path, "", "has no rows")
    return cells


def check_matrices(base_path: Path, base: dict[Key, Rows], new_path: Path, new: dict[Key, Rows]) -> None:
    one, other = (base_path, base), (new_path, new)
    for (path, cells), (other_path, others) in ((one, other), (other, one)):
        for key, rows in cells.items():
            if key not in others:
                raise Refused(csv_of(other_path), "", f"has no cell `{rows.label}`, which row {rows.numbers[0]} of "
                              f"{csv_of(path)} has: the runs have different matrices")


def read_machine(path: Path) -> dict[str, Any]:
    file = csv_of(path).parent / "machine.json"
    try:
        fingerprint = json.loads(file.read_text())
    except OSError as error:
        raise Refused(file, "", f"{error.strerror or error}: where {csv_of(path).name} was measured is not known "
                      "(--force compares all the same)") from error
    except ValueError as error:
        raise Refused(file, "", f"is not JSON: {error}") from error
    if not isinstance(fingerprint, dict):
        raise Refused(file, "", "is not a fingerprint of a machine")
    return fingerprint


def differences(base: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str]]:
    """What differs between two machines, and how."""
    found = []
    for name in MACHINE:
        ours, theirs = base.get(name), new.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            name, ours, theirs = next(((f"{name}.{key}", ours.get(key), theirs.get(key))
                                       for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)),
                                      (name, None, None))
        if ours != theirs:
            found.append((name, f"{theirs}, and {ours} where the base was measured"))
    return found


def check_machines(base: Path, new: Path, force: bool) -> list[str]:
    """Refuses what was not measured on the same machine; with `force` says so instead."""
    try:
        found = differences(read_machine(base), read_machine(new))
    except Refused as refusal:
        if not force:
            raise
        return [f"compared by force: {refusal}"]
    if found and not force:
        name, how = found[0]
        raise Refused(csv_of(new).parent / "machine.json", name,
                      f"{how}: another machine (--force compares all the same)")
    return [f"compared by force: {name}: {how}" for name, how in found]


def check_placement(base: Rows, new_path: Path, new: Rows, force: bool) -> None:
    """Refuses what had other CPUs, or (several hosts) another kind of network."""
    for name in ("placement", "network"):
        known = {row[name] for row in base.standing()}
        for number, row in zip(new.numbers, new.rows):
            if row in new.standing() and known and row[name] not in known and not force:
                raise Refused(csv_of(new_path), f"row {number}", f"{name}: {row[name]}, and {min(known)} in the base "
                              "(--force compares all the same)")


def spoilt(rows: Rows, path: Path) -> str:
    """Why a side of a cell has too few rows that stand; refused when it never had enough."""
    if len(rows.rows) < NEEDED:
        raise Refused(csv_of(path), f"row {rows.numbers[-1]}", f"cell `{rows.label}` ends after {len(rows.rows)} "
                      f"repeats and {NEEDED} are needed (run --repeats {NEEDED})")
    standing = rows.costs()
    if len(standing) >= NEEDED:
        return ""
    reason = next(row["reason"] for row in rows.rows if row["stands"] not in ("all", "cost") or not row[COST])
    return f"{len(standing)} of {len(rows.rows)} rows stand in {csv_of(path)}: {reason or 'no cost'}"


def samples_of(arguments: argparse.Namespace) -> tuple[list[Sample], list[str]]:
    base, new = read(arguments.base), read(arguments.new)
    check_matrices(arguments.base, base, arguments.new, new)
    notes = [APART, *check_machines(arguments.base, arguments.new, arguments.force)]
    known = history.read(arguments.history) if arguments.history else []
    samples = []
    for key, rows in base.items():
        others = new[key]
        if all(row["status"] == "skipped" for row in rows.rows) and all(
                row["status"] == "skipped" for row in others.rows):
            notes.append(f"{rows.label} skipped in both: {rows.rows[0]['reason']}")
            continue
        if reason := without_cost(rows.rows[0]):
            notes.append(f"{rows.label} left out: {reason}")
            continue
        check_placement(rows, arguments.new, others, arguments.force)
        reason = "; ".join(filter(None, (spoilt(rows, arguments.base), spoilt(others, arguments.new))))
        usual = history.usual_change(known, rows.label)
        samples.append(Sample(
            rows.label, gate.median(rows.costs()) if rows.costs() else 0.0,
            gate.median(others.costs()) if others.costs() else 0.0,
            apart=([math.log(cost) for cost in rows.costs()], [math.log(cost) for cost in others.costs()]),
            base_rate_per_s=rows.rate_per_s(), new_rate_per_s=others.rate_per_s(), invalid=reason,
            margin=max(usual, gate.parse_margin(arguments.threshold or MARGIN)) if usual else None,
            notes=(f"its runs usually differ by up to {100 * math.expm1(usual):.1f} %",) if usual else ()))
    if not samples:
        raise Refused(csv_of(arguments.base), "", "has no cell with a cost")
    return samples, notes


def side(path: Path, rows: dict[Key, Rows]) -> dict[str, Any]:
    runs = sorted({row["run_id"] for each in rows.values() for row in each.rows})
    return {"path": str(csv_of(path)), "runs": ", ".join(runs)}


def command(arguments: argparse.Namespace, make_directory: Callable[[Path | None, str], Path]) -> int:
    margin = gate.parse_margin(arguments.threshold or MARGIN)
    samples, notes = samples_of(arguments)
    outcome = gate.judge(samples, gate.ALPHA, margin)
    status = gate.exit_status(outcome.verdict, arguments.inconclusive)
    base, new = (side(path, read(path)) for path in (arguments.base, arguments.new))
    report = gate_report.Report(
        title="Two runs made apart", run_id=f"{base['runs']} and {new['runs']}", unit=gate_report.COST, outcome=outcome,
        exit_status=status, base=base, new=new, notes=notes, settings={"alpha": gate.ALPHA})
    if arguments.out:
        gate_report.write(report, make_directory(arguments.out, ""))
    output.say(gate_report.text(report).rstrip("\n"))
    return status
