"""What a gate says: one screen for people, and JSON, JUnit XML and Markdown for those who read it by machine."""
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .gate import CellVerdict, Outcome
from .inference import share
from .units import significant

FILES = {"text": "report.txt", "json": "report.json", "junit": "junit.xml", "markdown": "comment.md"}
HEADINGS = ("cell", "n", "base", "new", "change", "interval", "threshold", "noise", "detectable", "verdict")
MARKS = {"regression": "❌", "pass": "✅", "faster": "✅", "inconclusive": "❔", "invalid": "⚠️"}
COST, INSTRUCTIONS = "CPU us/op", "instructions/op"
LOUD = ("regression", "invalid")
SUMMARIES = {
    "pass": "no regression", "faster": "no regression", "regression": "REGRESSION",
    "inconclusive": "inconclusive: neither a regression nor its absence is proven",
    "invalid": "invalid: not everything measured what it claims",
}


@dataclass(frozen=True)
class Report:
    title: str
    run_id: str
    unit: str
    outcome: Outcome
    exit_status: int
    base: dict[str, Any]
    new: dict[str, Any]
    notes: Sequence[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)


def percent(shift: float | None, sign: str = "") -> str:
    """Of a shift of logarithms."""
    if shift is None:
        return "-"
    if not math.isfinite(shift):
        return "any"
    return f"{100 * share(shift):{sign}.1f}%" if abs(shift) >= 0.01 or not shift else f"{100 * share(shift):{sign}.2f}%"


def interval(cell: CellVerdict) -> str:
    if cell.estimate is None:
        return "-"
    low, high = cell.estimate.low, cell.estimate.high
    return f"{percent(low, '+')} .. {percent(high, '+')}" if math.isfinite(high - low) else "any"


def cells_of(cell: CellVerdict) -> list[str]:
    estimate, sample = cell.estimate, cell.sample
    change = "-" if estimate is None else percent(estimate.shift, "+") if cell.proven else "~"
    costs = [significant(value) if value else "-" for value in (sample.base, sample.new)]
    return [sample.label, str(estimate.n) if estimate else "0", *costs, change, interval(cell),
            percent(cell.threshold), "-" if cell.floor is None else "±" + percent(cell.floor),
            percent(cell.detectable), cell.verdict.upper() if cell.verdict in LOUD else cell.verdict]


def rate_line(cell: CellVerdict) -> str | None:
    base, new = cell.sample.base_rate_per_s, cell.sample.new_rate_per_s
    if not base or not new:
        return None
    return f"{cell.sample.label} {significant(base)} -> {significant(new)}"


def remarks(report: Report) -> list[str]:
    lines = [f"{cell.sample.label}: {note}" for cell in report.outcome.cells
             for note in (*filter(None, [cell.reason]), *cell.sample.notes)]
    return [*lines, *report.notes]


def headline(report: Report) -> str:
    worst = [cell for cell in report.outcome.cells if cell.verdict == report.outcome.verdict]
    named = ", ".join(
        f"{cell.sample.label} {percent(cell.estimate.shift, '+')}" if cell.estimate else cell.sample.label
        for cell in worst)
    verdict = report.outcome.verdict
    return SUMMARIES[verdict] + (f" ({named})" if verdict not in ("pass", "faster") else "")


def explanation(report: Report) -> str:
    if report.unit == INSTRUCTIONS:
        return f"{report.unit}; ~: nothing proven; interval: all counts; noise: range of the base's counts"
    level = 100 * (1 - 2 * report.outcome.alpha)
    return (f"{report.unit}; ~: nothing proven; interval {level:.1f} %; noise: base against itself; "
            "detectable: in 4 of 5 runs")


def text(report: Report) -> str:
    rows = [list(HEADINGS), *(cells_of(cell) for cell in report.outcome.cells)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [report.title, f"base {named(report.base)}", f"new  {named(report.new)}", ""]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1])), row[-1]]
        lines.append("  ".join(cells))
    lines += ["", explanation(report)]
    if rates := list(filter(None, map(rate_line, report.outcome.cells))):
        lines.append("ops/s (wall clock, not judged): " + "; ".join(rates))
    lines += [*remarks(report), "", f"Verdict: {headline(report)} (exit status {report.exit_status})"]
    return "\n".join(lines) + "\n"


def named(side: dict[str, Any]) -> str:
    return " ".join(str(side[key]) for key in ("path", "version", "runs") if side.get(key))


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def as_share(shift: float | None) -> float | None:
    return share(shift) if finite(shift) is not None else None  # type: ignore[arg-type]


def as_data(report: Report) -> dict[str, Any]:
    """Shares, not logarithms: 0.05 is 5 % more. null for what is not known or has no bound."""
    cells = []
    for cell in report.outcome.cells:
        estimate, sample = cell.estimate, cell.sample
        cells.append({
            "cell": sample.label, "verdict": cell.verdict, "reason": cell.reason, "n": estimate.n if estimate else 0,
            "base": sample.base, "new": sample.new, "base_rate_per_s": sample.base_rate_per_s,
            "new_rate_per_s": sample.new_rate_per_s, "change": as_share(estimate.shift if estimate else None),
            "low": as_share(estimate.low if estimate else None), "high": as_share(estimate.high if estimate else None),
            "p": cell.p, "proven": cell.proven, "margin": as_share(cell.margin), "threshold": as_share(cell.threshold),
            "noise_floor": as_share(cell.floor), "detectable": as_share(cell.detectable), "notes": list(sample.notes)})
    return {"run_id": report.run_id, "title": report.title, "unit": report.unit, "verdict": report.outcome.verdict,
            "exit_status": report.exit_status, "confidence": 1 - 2 * report.outcome.alpha, "base": report.base,
            "new": report.new, "settings": report.settings, "cells": cells, "notes": list(report.notes)}


def junit(report: Report) -> str:
    """A test case for each cell: failed for a regression, an error where the measurement is invalid, skipped where
    nothing is decided."""
    kinds = {"regression": "failure", "invalid": "error", "inconclusive": "skipped"}
    verdicts = [cell.verdict for cell in report.outcome.cells]
    suite = ElementTree.Element("testsuite", {
        "name": f"tlsdyno {report.run_id}", "tests": str(len(verdicts)), "failures": str(verdicts.count("regression")),
        "errors": str(verdicts.count("invalid")), "skipped": str(verdicts.count("inconclusive"))})
    for cell in report.outcome.cells:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "tlsdyno", "name": cell.sample.label})
        said = ", ".join(f"{heading} {value}" for heading, value in zip(HEADINGS[1:], cells_of(cell)[1:]))
        if kind := kinds.get(cell.verdict):
            ElementTree.SubElement(case, kind, {"message": cell.reason or said})
        ElementTree.SubElement(case, "system-out").text = said
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def markdown(report: Report) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines = [f"### {MARKS[report.outcome.verdict]} {report.title}: {headline(report)}", "",
             row(HEADINGS), row([":--", *["--:"] * (len(HEADINGS) - 2), ":--"])]
    lines += [row([*cells_of(cell)[:-1], f"{MARKS[cell.verdict]} {cell.verdict}"]) for cell in report.outcome.cells]
    lines += ["", explanation(report) + "."]
    if rates := list(filter(None, map(rate_line, report.outcome.cells))):
        lines += ["", "ops/s (wall clock, not judged): " + "; ".join(rates) + "."]
    lines += [f"- {remark}" for remark in remarks(report)]
    lines += ["", f"base: `{named(report.base)}`, new: `{named(report.new)}`"]
    return "\n".join(lines) + "\n"


def write(report: Report, directory: Path) -> None:
    made = {"text": text(report), "json": json.dumps(as_data(report), indent=2) + "\n", "junit": junit(report),
            "markdown": markdown(report)}
    for kind, content in made.items():
        (directory / FILES[kind]).write_text(content, encoding="utf-8", errors="backslashreplace")
