"""Prometheus' text format 0.0.4, read as strictly as its description allows."""
from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)?\}})? (\S+)")


@dataclass
class Family:
    type: str = ""
    help: str | None = None
    samples: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)

    def sum(self, **labels: str) -> float:
        return sum(value for series, value in self.samples.items() if labels.items() <= dict(series).items())


def parse(text: str) -> dict[str, Family]:
    """Every family by its name. Whatever a strict reader could refuse is an AssertionError."""
    families: dict[str, Family] = {}
    current = ""
    assert text.endswith("\n"), "the last line has no end"
    for line in text[:-1].split("\n"):
        if line.startswith("# "):
            kind, name, rest = line[2:].split(" ", 2)
            assert kind in ("HELP", "TYPE") and re.fullmatch(NAME, name), line
            if name != current:
                assert name not in families, f"{name}: its lines are not together"
                families[name], current = Family(), name
            family = families[name]
            assert not family.samples, f"{name}: {kind} after samples"
            if kind == "HELP":
                assert family.help is None and "\\" not in rest, line
                family.help = rest
            else:
                assert not family.type and rest in ("counter", "gauge", "untyped"), line
                family.type = rest
            continue
        match = SAMPLE.fullmatch(line)
        assert match, f"not a sample: {line!r}"
        name, labels, number = match.groups()
        assert name == current, f"{name}: not below its own TYPE"
        series = tuple(sorted((label.split("=", 1)[0], label.split("=", 1)[1][1:-1])
                              for label in re.findall(LABEL, labels or "")))
        assert len(dict(series)) == len(series), f"a label comes twice: {line}"
        assert series not in families[name].samples, f"a series comes twice: {line}"
        value = float(number)
        assert families[name].type == "gauge" or (value >= 0 and math.isfinite(value)), line
        families[name].samples[series] = value
    for name, family in families.items():
        assert family.type and family.help, name
        assert (family.type == "counter") == name.endswith("_total"), name
    return families
