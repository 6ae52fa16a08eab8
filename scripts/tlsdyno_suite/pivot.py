"""Tables in the layout that a scenario asks for, as an article prints them: today's figure, the published one, and
their ratio in each cell; as text for a terminal or as Markdown.

A figure is the median of the rows in which it stands; where no rate stands but a cost does, the rate that this cost
allows stands there with a ~. What else there is of a cell is said in a footnote. """
from collections.abc import Callable
from dataclasses import dataclass, field

from .cell import PARAMETERS
from .layout import CsvRow, Layout, Value, by_cell
from .published import Names
from .statistics import median
from .table import (
    LOOPBACK_NOTE, RATE_LEFT_OUT, Note, figure, mark_text, parameter_text, remarks, says_nothing, summary, wrap)
from .units import significant

Line = tuple[str, ...]    # the values of the layout's rows, or of its columns
WIDTH = 118
ESTIMATE = "~: the rate did not stand; what that many cores could do at the CPU cost that was measured."
PUBLISHED = "published: the source's own figure; unpublished: no source that was read has one for this cell."


@dataclass
class Entry:
    """A cell of a page: its rows, or nothing but a published figure."""

    names: Names
    value: Value
    rows: list[CsvRow] = field(default_factory=list)
    published: float | None = None
    marks: set[int] = field(default_factory=set)


@dataclass
class Page:
    title: str
    across: list[Line]
    down: list[Line]
    entries: dict[tuple[Line, Line], Entry]  # by line and column

    @property
    def compares(self) -> bool:
        return any(entry.published is not None for entry in self.entries.values())


@dataclass(frozen=True)
class Shown:
    """A page in words: for each line its name, and lines of cells with what they are."""

    title: str
    heads: list[str]
    lines: list[tuple[str, list[tuple[str, list[str]]]]]


def page_names(layout: Layout, cells: list[Names]) -> list[str]:
    """Parameters that vary and are neither down nor across, also not as a part of a bundle that is."""
    placed = {*layout.rows, *layout.columns}
    for name, sets in layout.bundled.items():
        if name in placed:
            placed |= sets
    return [name for name in PARAMETERS if name not in placed and len({cell[name] for cell in cells}) > 1]


def page_title(layout: Layout, names: list[str], cells: list[Names]) -> str:
    """The bundles that all its cells have in common, and the parameters that tell it from other pages."""
    placed = {*layout.rows, *layout.columns}
    common = [next(iter(values)) for name in layout.bundled if name not in placed
              and len(values := {cell[name] for cell in cells}) == 1]
    first = cells[0]
    detail = ", ".join(filter(None, (parameter_text(name, first[name]) for name in names
                                     if not says_nothing(name, first))))
    return " / ".join(common) + (f" ({detail})" if common and detail else detail)


def pages(layout: Layout, rows: list[CsvRow]) -> list[Page]:
    groups = [(names, group) for names, group in by_cell(rows) if layout.selects(names)]
    place = {tuple(names.items()): number for number, names in enumerate(layout.order)}
    groups.sort(key=lambda item: place.get(tuple(item[0].items()), len(place)))
    varying = page_names(layout, [names for names, _ in groups])
    split: dict[Line, list[tuple[Names, list[CsvRow]]]] = {}
    for names, group in groups:
        split.setdefault(tuple(names[name] for name in varying), []).append((names, group))
    return [one_page(layout, varying, members) for members in split.values()]


def one_page(layout: Layout, varying: list[str], members: list[tuple[Names, list[CsvRow]]]) -> Page:
    entries: dict[tuple[Line, Line], Entry] = {}
    of_line: dict[Line, Names] = {}
    for names, group in members:
        line, column = (tuple(names[name] for name in places) for places in (layout.rows, layout.columns))
        of_line.setdefault(line, names)
        for value in layout.values:
            here = (line, (*column, value.unit) if len(layout.values) > 1 else column)
            entry = entries.setdefault(here, Entry(names, value, published=layout.published.of(names)))
            entry.rows += group
    across = list(dict.fromkeys(key[1] for key in entries))
    down = list(dict.fromkeys(key[0] for key in entries))
    if layout.columns == ("subject",):
        # Published subjects that nothing here stands for have columns of their own.
        for subject in layout.published.without:
            for line, names in of_line.items():
                figure_there = layout.published.of({**names, "subject": subject})
                if figure_there is not None:
                    entries[line, (subject,)] = Entry({**names, "subject": subject}, layout.values[0],
                                                      published=figure_there)
                    across += [] if (subject,) in across else [(subject,)]
    return Page(page_title(layout, varying, [names for names, _ in members]), across, down, entries)


def said(layout: Layout, line: Line, names: tuple[str, ...]) -> str:
    return ", ".join(filter(None, (parameter_text(name, value) for name, value in zip(names, line))))


def said_across(layout: Layout, across: Line) -> str:
    """Of a column; the name of the figure in it comes last, where there are several."""
    return said(layout, across, (*layout.columns, "value"))


def today(entry: Entry) -> tuple[str, float | None, bool]:
    """The figure as shown, its median, and whether it is an estimate."""
    values = [value for row in entry.rows if (value := entry.value.read(row)) is not None]
    if values:
        return figure(values), median(values), False
    estimates = [value for row in entry.rows if (value := entry.value.estimated(row)) is not None]
    if estimates:
        return "~" + figure(estimates), median(estimates), True
    statuses = {row["status"] for row in entry.rows if row["stands"] not in entry.value.stands}
    # A row that is sound but has no such figure is a dash.
    word = next((word for status, word in (("failed", "FAILED"), ("invalid", "invalid"), ("skipped", "skipped"))
                 if status in statuses), "-")
    return word, None, False


class Notes:
    """Footnotes, numbered as they are met; one for all that differ in their figures only. Each names its columns; the
    lines are where its mark is."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Note] = {}
        self._counted: set[tuple[int, int]] = set()

    def add(self, what: str, reason: str, kind: str, column: str, row: CsvRow | None = None) -> int:
        """A row that has several figures in a table counts once."""
        note = self._found.setdefault((what, kind), Note(len(self._found) + 1, what))
        if row is not None and (note.mark, id(row)) in self._counted:
            return note.mark
        self._counted.add((note.mark, id(row)))
        note.reasons.append(reason)
        counts = note.where.setdefault((), {})
        counts[column] = counts.get(column, 0) + 1
        return note.mark

    def texts(self) -> list[tuple[int, str]]:
        return [(note.mark, note.text({(): ""})) for note in self._found.values()]


def annotate(layout: Layout, page: Page, notes: Notes) -> None:
    for down in page.down:
        for across in page.across:
            entry = page.entries.get((down, across))
            if entry is None:
                continue
            column = "/".join(across[:len(layout.columns)] or down)
            if not entry.rows:
                reason = layout.published.without[entry.names["subject"]]
                entry.marks.add(notes.add("Not measured", reason, reason, column))
            for row in entry.rows:
                for what, reason, kind in remarks(row):
                    # No table of this kind shows a floor, and one of costs no rate.
                    if what != "No floor" and not (what == RATE_LEFT_OUT and row["stands"] in entry.value.stands):
                        entry.marks.add(notes.add(what, reason, kind, column, row))


def show(layout: Layout, page: Page) -> Shown:
    heads = [said_across(layout, across) for across in page.across]
    lines = []
    for down in page.down:
        now, then, ratio = [], [], []
        for across in page.across:
            entry = page.entries.get((down, across))
            if entry is None:
                now.append("")
                then.append("")
                ratio.append("")
                continue
            text, value, _ = today(entry)
            now.append(f"{text} {mark_text(entry.marks)}".rstrip())
            then.append("unpublished" if entry.published is None else significant(entry.published))
            ratio.append("" if value is None or not entry.published else f"x {significant(value / entry.published)}")
        parts = [("today", now), ("published", then), ("ratio", ratio)] if page.compares else [("", now)]
        lines.append((said(layout, down, layout.rows), parts))
    return Shown(page.title, heads, lines)


def heading(layout: Layout) -> str:
    unit = layout.values[0].unit if len(layout.values) == 1 else ""
    return ": ".join(filter(None, (layout.title, unit)))


def broken(head: str, width: int) -> list[str]:
    """A column's name on as many lines as it takes, broken after - and /."""
    lines = [""]
    for part in head.replace("-", "-\0").replace("/", "/\0").replace(", ", ",\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append(part)
        else:
            lines[-1] += part
    return lines


def text_page(shown: Shown) -> list[str]:
    """In as many blocks of columns as the terminal's width makes necessary."""
    part_width = max(len(part) for _, parts in shown.lines for part, _ in parts)
    name_width = max(24, *(len(name) for name, _ in shown.lines)) + (part_width + 2 if part_width else 0)
    widths = [max(9, *map(len, broken(head, 0)),
                  *(len(cells[column]) for _, parts in shown.lines for _, cells in parts))
              for column, head in enumerate(shown.heads)]
    out, begin = [], 0
    while begin < len(widths):
        end = begin + 1
        while end < len(widths) and name_width + sum(width + 2 for width in widths[begin:end + 1]) <= WIDTH:
            end += 1
        block = range(begin, end)
        heads = [broken(shown.heads[column], widths[column]) for column in block]
        for level in range(height := max(map(len, heads))):
            # The last lines of all names stand side by side above the figures.
            words = [head[level - height + len(head)] if level - height + len(head) >= 0 else "" for head in heads]
            out.append((" " * name_width + "".join(f"  {word:>{widths[column]}}"
                                                   for word, column in zip(words, block))).rstrip())
        for name, parts in shown.lines:
            for number, (part, cells) in enumerate(parts):
                label = f"{name if number == 0 else '':<{name_width - part_width}}{part:>{part_width}}"
                out.append((label + "".join(f"  {cells[column]:>{widths[column]}}" for column in block)).rstrip())
        begin = end
        out += [""]
    return out[:-1]


def legends(layout: Layout, tabled: list[Page]) -> list[str]:
    entries = [entry for page in tabled for entry in page.entries.values()]
    return [*([ESTIMATE] if any(today(entry)[2] for entry in entries) else ()),
            *([PUBLISHED] if any(page.compares for page in tabled) else ())]


def render(layouts: tuple[Layout, ...], rows: list[CsvRow], markdown: bool) -> str:
    first = rows[0]
    out = [f"## {first['scenario']} ({first['run_id']})" if markdown else f"{first['scenario']}  {first['run_id']}", ""]
    for layout in layouts:
        tabled = pages(layout, rows)
        if not tabled:
            continue  # the run was narrowed to other cells
        notes = Notes()
        for page in tabled:
            annotate(layout, page, notes)
        out += [f"### {heading(layout)}" if markdown else heading(layout), ""]
        for page in tabled:
            bare = "; no figure was published for these" if layout.published.figures and not page.compares else ""
            if title := page.title + bare:
                out += [f"#### {title}" if markdown else title, ""] if markdown else wrap(title, 2) + [""]
            out += [*(markdown_page if markdown else text_page)(show(layout, page)), ""]
        for mark, text in notes.texts():
            out += [f"- [{mark}] {text}"] if markdown else wrap(f"[{mark}] {text}", 4)
        out += [""] if markdown else []
        for text in legends(layout, tabled):
            out += [f"{text}  "] if markdown else wrap(text, 2)
        out.append("")
    repeated = len({row["repeat"] for row in rows}) > 1
    out += wrap(summary(rows) + (" Medians, ± half the range." if repeated else ""), 2) + wrap(LOOPBACK_NOTE, 2)
    return "\n".join(out) + "\n"


def markdown_page(shown: Shown) -> list[str]:
    def ruled(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    compares = any(part for _, parts in shown.lines for part, _ in parts)
    out = [ruled(["", *([""] if compares else []), *shown.heads]),
           "|---|" + ("---|" if compares else "") + "---:|" * len(shown.heads)]
    for name, parts in shown.lines:
        for number, (part, cells) in enumerate(parts):
            out.append(ruled([name if number == 0 else "", *([part] if compares else []), *cells]))
    return out


FORMATS: dict[str, Callable[[tuple[Layout, ...], list[CsvRow]], str]] = {
    "text": lambda layouts, rows: render(layouts, rows, False),
    "markdown": lambda layouts, rows: render(layouts, rows, True),
}
