"""A scenario file: read, checked against scenarios/schema.json and against sense, and expanded to cells."""
import difflib
import itertools
import json
import math
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jsonschema

from . import ciphers, claims, layout
from .cell import DEFAULTS, PARAMETERS, Cell
from .claims import Claim
from .layout import Layout
from .programs import SCENARIOS
from .refusal import Refused
from .units import parse_length, parse_time


@dataclass(frozen=True)
class Choice:
    """One value of an axis: its name, and the parameters it sets (one for a plain axis, several for a bundle)."""

    name: str
    sets: dict[str, int | str]


@dataclass(frozen=True)
class Axis:
    name: str
    choices: tuple[Choice, ...]
    bundled: bool


@dataclass(frozen=True)
class Scenario:
    path: Path
    name: str
    title: str
    source: str
    subjects: tuple[str, ...]
    axes: tuple[Axis, ...]
    fixed: dict[str, int | str]  # parameters with one value in the whole scenario
    duration_s: float
    warmup_s: float
    repeats: int
    seed: int | None
    backend_beside: str  # client or subject
    cpus: tuple[int, ...] | None
    at_once: tuple[str, ...] = ()  # parameters, subject too: cells that differ in nothing else are measured together
    network: str = ""  # of several hosts: namespaces, loopback, or whatever this machine allows
    base: dict[str, str] = field(default_factory=dict)  # a value of axes that vary one at a time
    full: bool = False  # all combinations nevertheless
    claims: tuple[Claim, ...] = ()
    layouts: tuple[Layout, ...] = ()
    beside: tuple[str, ...] = ()  # files that it names, beside its own: a run takes them with it


def locate(name: str) -> Path:
    """A path, or the bare name of a file in scenarios/."""
    if "/" in name or name.endswith(".toml"):
        return Path(name)
    path = SCENARIOS / f"{name}.toml"
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in SCENARIOS.glob("*.toml")))
        raise Refused(name, "", f"no such scenario (known: {known}; or give the path of a file)")
    return path


def read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refused(path, "", error.strerror or str(error)) from error
    if not data.strip():
        raise Refused(path, "", "the file is empty")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(path, "", f"not a TOML file: {error}") from error


def key_of(error: jsonschema.ValidationError) -> str:
    parts = [str(part) if isinstance(part, str) else f"[{part}]" for part in error.absolute_path]
    return ".".join(parts).replace(".[", "[")


def explain(error: jsonschema.ValidationError) -> tuple[str, str]:
    """Key and reason, in the words of this file's format rather than in those of JSON schema."""
    key = key_of(error)
    where = list(error.absolute_path)
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        allowed = list(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(allowed))
        close = difflib.get_close_matches(unknown[0], allowed, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(allowed)}"
        return ".".join(filter(None, (key, unknown[0]))), f"unknown key ({hint})"
    if where[:1] == ["axes"] and len(where) == 2 and where[1] not in PARAMETERS:
        close = difflib.get_close_matches(str(where[1]), PARAMETERS, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"parameters: {', '.join(PARAMETERS)}"
        return key, f"unknown axis ({hint}); an axis that is no parameter is a table of named bundles"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return ".".join(filter(None, (key, missing[0]))), "is missing"
    if error.validator == "enum":
        return key, f"impossible value {error.instance!r} (one of: {', '.join(map(str, error.validator_value))})"
    if error.validator in ("pattern", "anyOf"):
        return key, f"impossible value {error.instance!r}"
    if error.validator == "type" and error.validator_value == "integer":
        return key, f"impossible value {error.instance!r} (a whole number is wanted)"
    if error.validator in ("minimum", "maximum"):
        bound = "smallest" if error.validator == "minimum" else "largest"
        return key, f"impossible value {error.instance!r} (the {bound} is {error.validator_value})"
    if error.validator == "minItems":
        return key, "needs at least one value"
    if error.validator == "uniqueItems":
        return key, "the same value twice"
    return key, error.message


def is_integer(_checker: object, value: object) -> bool:
    """Whole numbers are written without a point: 4.0 and 1e300 would be whole to JSON schema."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(_checker: object, value: object) -> bool:
    """TOML has nan and inf, JSON has not."""
    return is_integer(_checker, value) or isinstance(value, float) and math.isfinite(value)


Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": is_integer, "number": is_number}))


def check_schema(path: Path, data: dict[str, Any]) -> None:
    schema = json.loads((SCENARIOS / "schema.json").read_text())
    found = Validator(schema).iter_errors(data)
    errors = sorted(found, key=lambda error: list(map(str, error.absolute_path)))
    if errors:
        # An unknown key is the likeliest slip of the pen; whatever else is wrong often follows from it.
        first = next((error for error in errors if error.validator == "additionalProperties"), errors[0])
        raise Refused(path, *explain(first))


def parse_axes(path: Path, table: dict[str, Any]) -> tuple[Axis, ...]:
    axes = []
    for name, value in table.items():
        if isinstance(value, list):
            choices = tuple(Choice(str(item), {name: item}) for item in value)
        else:
            choices = tuple(Choice(choice, dict(sets)) for choice, sets in value.items())
            if len({frozenset(choice.sets) for choice in choices}) > 1:
                raise Refused(path, f"axes.{name}", "every bundle of an axis must set the same parameters")
            if name in ("subject", "case", "repeat"):
                raise Refused(path, f"axes.{name}", "this name is taken")
        axes.append(Axis(name, choices, isinstance(value, dict)))
    return tuple(axes)


def check_parameters(path: Path, axes: tuple[Axis, ...], fixed: dict[str, int | str]) -> None:
    """Every parameter has exactly one place that sets it."""
    setters = {name: "load" for name in fixed}
    for axis in axes:
        for name in axis.choices[0].sets:
            if name in setters:
                raise Refused(path, f"axes.{axis.name}", f"sets {name}, which {setters[name]} sets already")
            setters[name] = f"axes.{axis.name}"
    for name in PARAMETERS:
        if name not in setters and name not in DEFAULTS:
            raise Refused(path, f"load.{name}", "is missing: set it in [load] or in an axis")


def read_base(path: Path, table: dict[str, Any], axes: tuple[Axis, ...]) -> dict[str, str]:
    """Axes that are not in it are crossed with all others."""
    offered = {axis.name: [choice.name for choice in axis.choices] for axis in axes}
    base = {name: str(value) for name, value in table.items()}
    for name, value in base.items():
        if name not in offered:
            raise Refused(path, f"base.{name}", f"no such axis (axes: {', '.join(offered)})")
        if value not in offered[name]:
            raise Refused(path, f"base.{name}", f"no such value (values: {', '.join(offered[name])})")
    return base


def read_at_once(path: Path, names: list[str], axes: tuple[Axis, ...]) -> tuple[str, ...]:
    """As parameters: those that an axis sets, where it is named."""
    offered = {"subject": ["subject"], **{name: [name] for name in PARAMETERS},
               **{axis.name: list(axis.choices[0].sets) for axis in axes}}
    for name in names:
        if name not in offered:
            close = difflib.get_close_matches(name, offered, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"axes: {', '.join(axis.name for axis in axes)}"
            raise Refused(path, "placement.at_once", f"no axis or parameter is called '{name}' ({hint})")
    return tuple(dict.fromkeys(parameter for name in names for parameter in offered[name]))


def time_of(path: Path, key: str, value: Any, parse: Callable[[Any], float]) -> float:
    try:
        return parse(value)
    except ValueError as error:
        raise Refused(path, key, str(error)) from error


def load(path: Path, known_subjects: tuple[str, ...]) -> Scenario:
    data = read(path)
    check_schema(path, data)
    subjects = tuple(data["subject"]["names"])
    for name in subjects:
        if name not in known_subjects:
            raise Refused(path, "subject.names", f"unknown subject '{name}' (known: {', '.join(known_subjects)})")
    axes = parse_axes(path, data.get("axes", {}))
    settings, placement = data["load"], data.get("placement", {})
    fixed = {name: value for name, value in settings.items() if name in PARAMETERS}
    if "cores" in placement:
        if "cores" in fixed:
            raise Refused(path, "placement.cores", "load sets cores already")
        fixed["cores"] = max(1, len(placement.get("cpus", os.sched_getaffinity(0))) - 1)
    check_parameters(path, axes, fixed)
    loaded = Scenario(
        path=path, name=path.stem, title=data["title"], source=data.get("source", ""), subjects=subjects, axes=axes,
        fixed=fixed, duration_s=time_of(path, "load.duration", settings["duration"], parse_length),
        warmup_s=time_of(path, "load.warmup", settings.get("warmup", "1s"), parse_time),
        repeats=settings.get("repeats", 1), seed=data.get("seed"), backend_beside=placement.get("backend", "client"),
        cpus=tuple(placement["cpus"]) if "cpus" in placement else None,
        at_once=read_at_once(path, placement.get("at_once", []), axes),
        network=placement.get("network", ""), base=read_base(path, data.get("base", {}), axes))
    # What is said of the cells may be said of all that there can be.
    cells, tables = expand(replace(loaded, full=True)), data.get("table", [])
    bundled = {axis.name: frozenset(axis.choices[0].sets) for axis in axes if axis.bundled}
    return replace(loaded, claims=claims.read(path, data.get("claim", []), cells), beside=tuple(layout.files(tables)),
                   layouts=layout.read(path, tables, cells, bundled))


def narrow(scenario: Scenario, restrictions: list[str]) -> Scenario:
    """The scenario with each `AXIS=VALUE[,VALUE]` applied."""
    wanted: dict[str, list[str]] = {}
    for restriction in restrictions:
        name, equals, values = restriction.partition("=")
        if not equals or not values:
            raise Refused("--only", restriction, "is not AXIS=VALUE[,VALUE]")
        wanted.setdefault(name, []).extend(values.split(","))
    offered = {"subject": list(scenario.subjects)}
    offered.update({axis.name: [choice.name for choice in axis.choices] for axis in scenario.axes})
    for name, chosen in wanted.items():
        if name not in offered:
            raise Refused("--only", name, f"no such axis in {scenario.path.name} (axes: {', '.join(offered)})")
        for value in chosen:
            if value not in offered[name]:
                raise Refused("--only", f"{name}={value}", f"no such value (values: {', '.join(offered[name])})")
    axes = tuple(
        replace(axis, choices=tuple(choice for choice in axis.choices if choice.name in wanted[axis.name]))
        if axis.name in wanted else axis for axis in scenario.axes)
    subjects = tuple(name for name in scenario.subjects if name in wanted.get("subject", scenario.subjects))
    return replace(scenario, axes=axes, subjects=subjects)


def cell_name(scenario: Scenario, cell: Cell) -> str:
    """What tells it from the scenario's other cells, its subject left out: a value of each axis."""
    names = layout.names_of(cell)
    return "/".join(names[axis.name] for axis in scenario.axes) or cell.label


def expand(scenario: Scenario) -> list[Cell]:
    """Every cell, in the order of the file: axes outside, subjects inside, as a table reads. Of axes with a base at
    most one has another value, unless all combinations are wanted."""
    cells: list[Cell] = []
    for combination in itertools.product(*(axis.choices for axis in scenario.axes)):
        chosen = {axis.name: choice.name for axis, choice in zip(scenario.axes, combination)}
        if not scenario.full and sum(chosen[name] != value for name, value in scenario.base.items()) > 1:
            continue
        values: dict[str, Any] = {**DEFAULTS, **scenario.fixed}
        for choice in combination:
            values.update(choice.sets)
        values["cipher"] = ciphers.spelled(values["cipher"], values["tls_version"], values["cert_key"])
        case = ";".join(
            f"{axis.name}={choice.name}" for axis, choice in zip(scenario.axes, combination) if axis.bundled)
        cells.extend(Cell(subject=subject, case=case, **values) for subject in scenario.subjects)
    return cells
