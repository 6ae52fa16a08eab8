"""Figures that somebody published, and which cell of a scenario each is to be held against."""
import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import csv_input
from .refusal import Refused

Names = dict[str, str]  # everything a cell is called by: subject, axes of bundles, parameters


@dataclass(frozen=True)
class Figure:
    """One row of a file. `names` are those of its columns that a cell has too, in the words of the scenario."""

    names: tuple[tuple[str, str], ...]
    value: float
    line: int

    @property
    def subject(self) -> str:
        return dict(self.names).get("subject", "")

    def fits(self, cell: Names) -> bool:
        return all(cell.get(name) == value for name, value in self.names)


@dataclass(frozen=True)
class Published:
    figures: tuple[Figure, ...] = ()
    without: dict[str, str] = field(default_factory=dict)  # published subjects that are not measured here, and why

    def of(self, cell: Names) -> float | None:
        return next((figure.value for figure in self.figures if figure.fits(cell)), None)


def read_rows(path: Path) -> list[Names]:
    with csv_input.opened(path) as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise Refused(path, "", "has no rows")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise Refused(path, f"row {number}", "has not as many fields as there are columns")
    return rows


def number(path: Path, line: int, text: str, column: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise Refused(path, f"row {line}", f"{column} is {text!r}, not a number") from error


def load(scenario: Path, key: str, table: dict[str, Any], cells: list[Names]) -> Published:
    """The rows of the file that `where` selects, each value called as the scenario calls it. Refused: a column that is
    not there, a figure that nothing is held against and no reason given, and two figures for one cell."""
    if "published" not in table:
        return Published()
    path = scenario.parent / table["published"]
    rows = read_rows(path)
    column = table.get("published_value", "value")
    where, called, columns = table.get("where", {}), table.get("called", {}), table.get("column", {})
    for name in (column, *where, *called, *columns):
        if name not in rows[0]:
            raise Refused(scenario, f"{key}.published", f"{path.name} has no column '{name}'")
    known = set(cells[0])
    figures = []
    for line, row in enumerate(rows, start=2):
        if any(row[name] not in map(str, values) for name, values in where.items()):
            continue
        names = tuple((title, called.get(name, {}).get(value, value)) for name, value in row.items()
                      if (title := columns.get(name, name)) in known)
        names += (("subject", table["subject"]),) if "subject" in table else ()
        figures.append(Figure(names, number(path, line, row[column], column), line))
    published = Published(tuple(figures), table.get("without", {}))
    check(scenario, key, published, cells)
    return published


def check(scenario: Path, key: str, published: Published, cells: Iterable[Names]) -> None:
    fitting: set[int] = set()
    for cell in cells:
        found = [figure.line for figure in published.figures if figure.fits(cell)]
        if len(found) > 1:
            raise Refused(scenario, f"{key}.published", f"rows {found[0]} and {found[1]} are both of one cell "
                          f"(subject {cell['subject']})")
        fitting.update(found)
    for figure in published.figures:
        if figure.line not in fitting and figure.subject not in published.without:
            raise Refused(scenario, f"{key}.published", f"row {figure.line} is of no cell of this scenario: "
                          "select with where, rename with called, or say in without why it is not measured")
