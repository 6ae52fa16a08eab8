"""How a scenario's run is shown: what varies down and across, which figure stands in the cells, and the published
figures beside it. Read from `[table]`, checked before anything starts."""
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import published, seconds
from .cell import PARAMETERS, Cell
from .published import Names, Published
from .refusal import Refused

CsvRow = Mapping[str, str]


@dataclass(frozen=True)
class Value:
    """A figure of a cell, computed from one row of results.csv."""

    unit: str
    column: str
    factor: float = 1.0
    stands: tuple[str, ...] = ("all",)
    # Where the rate does not stand but the cost does: the rate that so many cores would have at that cost. None where
    # there is no such figure.
    estimate: Callable[[CsvRow], float | None] | None = None
    # Of a column that has several figures, one a second: what is made of them.
    pick: Callable[[list[float]], float | None] = seconds.only

    def read(self, row: CsvRow) -> float | None:
        if row["stands"] not in self.stands:
            return None
        figure = self.pick(seconds.figures(row[self.column]))
        return None if figure is None else figure * self.factor

    def estimated(self, row: CsvRow) -> float | None:
        if self.estimate is None or row["stands"] not in ("all", "cost") or not row["capacity_per_core_per_s"]:
            return None
        return self.estimate(row)


def ops_per_s(row: CsvRow) -> float:
    return int(row["cores"]) * float(row["capacity_per_core_per_s"])


def connections_per_s(row: CsvRow) -> float | None:
    """An op is a connection, or one transaction of several on it."""
    requests = row["requests_per_connection"]
    return None if requests == "inf" else ops_per_s(row) / max(1, int(requests))


def transactions_per_s(row: CsvRow) -> float | None:
    """None of a search: that a rate was answered well is not said by its cost."""
    return None if row["loop"].startswith("search:") or row["requests_per_connection"] == "0" else ops_per_s(row)


def gbit_per_s(row: CsvRow) -> float | None:
    """Bytes an op are what they are, whoever set the pace."""
    received, transactions = row["received_bytes_per_s"], row["transactions_per_s"]
    if not received or not transactions or not float(transactions):
        return None
    return ops_per_s(row) * float(received) / float(transactions) * 8e-9


COSTS = ("all", "cost")
VALUES = {
    "connections_per_s": Value("connections/s", "connections_per_s", estimate=connections_per_s),
    "transactions_per_s": Value("transactions/s", "transactions_per_s", estimate=transactions_per_s),
    "target_rate_per_s": Value("asked for a second", "target_rate_per_s", stands=COSTS),
    "gbit_per_s": Value("Gbit/s received", "received_bytes_per_s", 8e-9, estimate=gbit_per_s),
    "transaction_mean_ms": Value("ms, mean", "transaction_mean_us", 1e-3),
    "transaction_p50_ms": Value("ms, median", "transaction_p50_us", 1e-3),
    "transaction_p99_ms": Value("ms, 99th percentile", "transaction_p99_us", 1e-3),
    "transaction_max_ms": Value("ms, longest", "transaction_max_us", 1e-3),
    "service_mean_ms": Value("ms, mean service time", "service_mean_ms"),
    "cost": Value("CPU us/op", "subject_cpu_us_per_op", stands=COSTS),
    "capacity": Value("ops/s a core", "capacity_per_core_per_s", stands=COSTS),
    "memory": Value("KiB/connection", "subject_idle_kib_per_connection"),
    "resumed": Value("% resumed", "resume_accepted_share", 100, COSTS),
    "datagrams_per_session": Value("datagrams/session", "sharing_datagrams_per_session", stands=COSTS),
    "bytes_per_session": Value("bytes/session", "sharing_bytes_per_session", stands=COSTS),
    "sharing_lag_us": Value("lag us", "sharing_lag_us", stands=COSTS),
    **{f"survivor_{name}{when}": Value(f"{unit}{said}", f"survivor_{column}_by_second", factor, pick=pick)
       for name, unit, column, factor in (("resumed", "% resumed", "resumed_share", 100),
                                          ("cost", "CPU us/op", "cpu_us_per_op", 1),
                                          ("busy", "% of a CPU", "cpu_busy", 100))
       for when, said, pick in (("_before", " before", seconds.before), ("_1s", ", 1st second", seconds.second(1)),
                                ("_2s", ", 2nd second", seconds.second(2)),
                                ("_3s", ", 3rd second", seconds.second(3)))},
}


@dataclass(frozen=True)
class Layout:
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[Value, ...]           # several make a column each
    of: dict[str, tuple[str, ...]]      # only cells with these values
    order: tuple[Names, ...]            # what each cell of the scenario is called, in the order of its file
    bundled: dict[str, frozenset[str]]  # axes of bundles: the parameters that each sets
    published: Published

    def selects(self, cell: Names) -> bool:
        return all(cell.get(name) in values for name, values in self.of.items())


def names_of(cell: Cell) -> Names:
    return {"subject": cell.subject, **dict(pair.split("=", 1) for pair in cell.case.split(";") if pair),
            **{name: str(getattr(cell, name)) for name in PARAMETERS}}


def names_of_row(row: CsvRow) -> Names:
    return {"subject": row["subject"], **dict(pair.split("=", 1) for pair in row["case"].split(";") if pair),
            **{name: row.get(name, "") for name in PARAMETERS}}


def by_cell(rows: list[CsvRow]) -> list[tuple[Names, list[CsvRow]]]:
    """The rows of each cell, in the order of their first ones."""
    found: dict[tuple[str, ...], list[CsvRow]] = {}
    for row in rows:
        found.setdefault((row["subject"], row["case"], *(row.get(name, "") for name in PARAMETERS)), []).append(row)
    return [(names_of_row(group[0]), group) for group in found.values()]


def check_names(path: Path, key: str, names: list[str], known: Names) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
            raise Refused(path, key, f"nothing is called '{name}' ({hint})")


def read_one(path: Path, key: str, table: dict[str, Any], order: tuple[Names, ...],
             bundled: dict[str, frozenset[str]]) -> Layout:
    for part in ("rows", "columns", "of"):
        check_names(path, f"{key}.{part}", list(table.get(part, ())), order[0])
    if twice := set(table["rows"]) & set(table["columns"]):
        raise Refused(path, f"{key}.columns", f"'{min(twice)}' is in rows too")
    wanted = [table["value"]] if isinstance(table["value"], str) else table["value"]
    for name in wanted:
        if name not in VALUES:
            raise Refused(path, f"{key}.value", f"unknown value '{name}' (known: {', '.join(VALUES)})")
    for name in ("scale", "published"):
        if name in table and len(wanted) > 1:
            raise Refused(path, f"{key}.{name}", "is of one value, and the table has several")
    of = {name: tuple(map(str, values)) for name, values in table.get("of", {}).items()}
    mine = [names for names in order if all(names[name] in values for name, values in of.items())]
    if not mine:
        raise Refused(path, f"{key}.of", "selects no cell")
    values = tuple(VALUES[name] for name in wanted)
    if "scale" in table:
        if values[0].estimate:
            raise Refused(path, f"{key}.scale", f"{wanted[0]} may be an estimate, which is what it is")
        values = (replace(values[0], factor=values[0].factor * table["scale"]),)
    return Layout(table.get("title", ""), tuple(table["rows"]), tuple(table["columns"]), values, of, order, bundled,
                  published.load(path, key, table, mine))


def read(path: Path, tables: dict[str, Any] | list[dict[str, Any]], cells: list[Cell],
         bundled: dict[str, frozenset[str]]) -> tuple[Layout, ...]:
    order = tuple(names_of(cell) for cell in cells)
    if isinstance(tables, dict):
        return (read_one(path, "table", tables, order, bundled),)
    return tuple(read_one(path, f"table[{number}]", table, order, bundled) for number, table in enumerate(tables))


def files(tables: dict[str, Any] | list[dict[str, Any]]) -> list[str]:
    """The published files that a scenario names; a run takes them with it."""
    listed = [tables] if isinstance(tables, dict) else tables
    return list(dict.fromkeys(table["published"] for table in listed if "published" in table))
