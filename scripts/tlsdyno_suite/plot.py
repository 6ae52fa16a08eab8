"""SVG plots of a results.csv: each table of the run as dots, one for each repeat. What varies from line to line of the
table runs along, what varies from column to column has colours, and each page is a plot of its own. """
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .cell import PARAMETERS
from .layout import VALUES, CsvRow, Layout, Value, by_cell
from .pivot import Page, pages, said
from .published import Published
from .refusal import Refused
from .table import varying

SPREAD = 0.7       # of the room between two places, what the dots of one place take
LOGARITHMIC = 30   # largest to smallest value from which on equal ratios, not equal differences, are equally far apart
NAME_WIDTH = 16    # characters of a line below a place
FORMAT = {"svg.fonttype": "none", "svg.hashsalt": "tlsdyno", "font.size": 9}


@dataclass(frozen=True)
class Series:
    """Dots of one colour: places along, and values."""

    name: str
    sure: list[tuple[int, float]]
    estimated: list[tuple[int, float]]
    published: list[tuple[int, float]]

    @property
    def values(self) -> list[float]:
        return [value for _, value in (*self.sure, *self.estimated, *self.published)]


@dataclass(frozen=True)
class Drawing:
    title: str
    along: list[str]
    unit: str
    series: list[Series]

    @property
    def empty(self) -> bool:
        return not any(each.sure or each.estimated for each in self.series)


def plain_layout(rows: list[CsvRow]) -> Layout:
    """For a results.csv without its scenario: what varies along, subjects in colours, cost upwards."""
    cells = [names for names, _ in by_cell(rows)]
    axes = [pair.partition("=")[0] for pair in rows[0]["case"].split(";") if pair]
    # What a bundle sets is said by its name.
    along = [name for name in varying(rows)
             if len({tuple(cell[axis] for axis in (*axes, name)) for cell in cells}) >
             len({tuple(cell[axis] for axis in axes) for cell in cells})]
    return Layout("", (*axes, *along), ("subject",), (VALUES["cost"],), {}, (),
                  {axis: frozenset(PARAMETERS) for axis in axes}, Published())


def drawings(layouts: tuple[Layout, ...], rows: list[CsvRow]) -> list[Drawing]:
    found = []
    for layout in layouts or (plain_layout(rows),):
        # Figures of different kinds have no scale in common.
        for value in layout.values:
            title = ": ".join(filter(None, (layout.title, value.unit if len(layout.values) > 1 else "")))
            found += [draw_up(layout, value, title, page) for page in pages(replace(layout, values=(value,)), rows)]
    return found


def draw_up(layout: Layout, value: Value, title: str, page: Page) -> Drawing:
    series = []
    for across in page.across:
        entries = [(place, entry) for place, down in enumerate(page.down)
                   if (entry := page.entries.get((down, across)))]
        sure = [(place, figure) for place, entry in entries for row in entry.rows
                if (figure := value.read(row)) is not None]
        estimated = [(place, figure) for place, entry in entries for row in entry.rows
                     if value.read(row) is None and (figure := value.estimated(row)) is not None]
        published = [(place, entry.published) for place, entry in entries if entry.published is not None]
        series.append(Series(said(layout, across, layout.columns) or value.unit, sure, estimated, published))
    along = [said(layout, down, layout.rows) or "all" for down in page.down]
    return Drawing(" / ".join(filter(None, (title, page.title))), along, value.unit, series)


def file_name(drawing: Drawing, number: int) -> str:
    words = re.sub(r"[^a-z0-9.]+", "-", drawing.title.lower()).strip("-.")
    return f"{number:02d}{'-' if words else ''}{words[:80].rstrip('-.')}.svg"


def draw(drawing: Drawing, heading: str, path: Path) -> None:
    try:
        import matplotlib
        matplotlib.use("svg")
        from matplotlib import pyplot
    except ImportError as error:
        raise Refused("matplotlib", "", "is not installed (Debian package python3-matplotlib)") from error
    with matplotlib.rc_context(FORMAT):
        figure, axes = pyplot.subplots(figsize=(3 + max(4.0, 1.3 * len(drawing.along)), 4.8), layout="constrained")
        for number, series in enumerate(drawing.series):
            draw_series(axes, series, f"C{number % 10}", number, len(drawing.series))
        values = [value for series in drawing.series for value in series.values]
        if min(values) > 0 and max(values) / min(values) >= LOGARITHMIC:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(range(len(drawing.along)), [textwrap.fill(name, NAME_WIDTH) for name in drawing.along])
        axes.set_xlim(-0.5, len(drawing.along) - 0.5)
        axes.set_ylabel(drawing.unit)
        axes.set_title("\n".join(filter(None, (heading, drawing.title))), wrap=True)
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
        try:
            # No date in it: the same results make the same file.
            figure.savefig(path, format="svg", metadata={"Date": None})
        except OSError as error:
            raise Refused(path, "", error.strerror or str(error)) from error
        finally:
            pyplot.close(figure)


def draw_series(axes: Any, series: Series, colour: str, number: int, count: int) -> None:
    """Beside those of the others, so that no dot hides one of another colour."""
    beside = SPREAD * ((number + 0.5) / count - 0.5)
    kinds: Mapping[str, tuple[list[tuple[int, float]], dict[str, Any]]] = {
        "": (series.sure, {"marker": "o", "color": colour}),
        ", estimated": (series.estimated, {"marker": "o", "facecolors": "none", "edgecolors": colour}),
        ", published": (series.published, {"marker": "D", "facecolors": "none", "edgecolors": colour})}
    for kind, (dots, look) in kinds.items():
        if dots:
            axes.scatter([place + beside for place, _ in dots], [value for _, value in dots], s=30, alpha=0.8,
                         label=series.name + kind, gid=series.name + kind, **look)


def write(layouts: tuple[Layout, ...], rows: list[CsvRow], directory: Path) -> list[Path]:
    """One file for each page that has a figure."""
    drawn = [drawing for drawing in drawings(layouts, rows) if not drawing.empty]
    if not drawn:
        raise Refused("plot", "", "no row of this run has a figure that stands")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(directory, "", error.strerror or str(error)) from error
    paths = []
    for number, drawing in enumerate(drawn, start=1):
        paths.append(directory / file_name(drawing, number))
        draw(drawing, rows[0]["scenario"], paths[-1])
    return paths
