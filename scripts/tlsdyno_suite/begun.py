"""A run that has begun: what was asked of it, in its machine.json, so that it can go on after an interruption."""
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import machine, record, scenario
from .refusal import Refused
from .runner import Plan
from .subjects import DRIVERS, check_address

FILE = "machine.json"
ASKED = ("run_id", "scenario", "seed", "only", "repeats", "duration_s", "full", "at_once", "external", "owned")


def write(directory: Path, plan: Plan, only: list[str]) -> None:
    loaded = plan.scenario
    (directory / FILE).write_text(json.dumps({
        "run_id": plan.run_id, "scenario": loaded.name, "seed": plan.seed, "only": only, "repeats": loaded.repeats,
        "duration_s": loaded.duration_s, "warmup_s": loaded.warmup_s, "backend_beside": loaded.backend_beside,
        "full": loaded.full, "at_once": loaded.at_once, "external": plan.external, "owned": plan.owned,
        **machine.fingerprint()}, indent=2) + "\n")


def read_file(directory: Path) -> dict[str, Any]:
    path = directory / FILE
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise Refused(path, "", error.strerror or str(error)) from error
    except ValueError as error:
        raise Refused(path, "", f"not a JSON file: {error}") from error
    missing = [name for name in ASKED if not isinstance(data, dict) or name not in data]
    if missing:
        raise Refused(path, missing[0], "is missing: this is not a run that can go on")
    return data


def read(directory: Path, make_plan: Callable[[scenario.Scenario, str, str, bool], Plan]) -> Plan:
    """The plan of the run, with what it has done so far."""
    asked = read_file(directory)
    loaded = scenario.load(directory / "scenario.toml", tuple(DRIVERS))
    if asked["external"]:
        check_address(asked["external"], asked["owned"])
        loaded = replace(loaded, subjects=tuple(dict.fromkeys((*loaded.subjects, "external"))))
    loaded = replace(scenario.narrow(loaded, asked["only"]), name=asked["scenario"], repeats=asked["repeats"],
                     duration_s=asked["duration_s"], full=asked["full"], at_once=tuple(asked["at_once"]),
                     seed=asked["seed"])
    return replace(make_plan(loaded, asked["run_id"], asked["external"], asked["owned"]), done=done(directory))


def done(directory: Path) -> frozenset[tuple[str, ...]]:
    path = directory / "results.csv"
    # A run that was killed may have left half a line, or not even a whole first one.
    whole = path.read_bytes() if path.exists() else b""
    if not whole.count(b"\n"):
        return frozenset()
    return frozenset(record.row_key(row) for row in record.read(path, half_line=True))


def check_machine(directory: Path) -> None:
    """Rows of one run are compared with each other, so all are of one machine and of the same programs."""
    then, now = read_file(directory), json.loads(json.dumps(machine.fingerprint()))
    for name, value in now.items():
        if then.get(name) != value:
            raise Refused(directory / FILE, name, f"was {then.get(name)} and is {value}: a run goes on only where, and "
                          "with the programs with which, it began")
