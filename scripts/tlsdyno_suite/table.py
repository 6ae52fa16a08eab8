"""Tables of a results.csv, as text for a terminal or as Markdown. Nothing but the CSV is needed.

One section for each combination of what was asked, one line for each subject. A rate is the median of the rows in
which every figure stands; a cost is the median of the rows in which at least the cost does. No other row enters any
figure, and each that does not is named in a footnote with its reason. """
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import seconds
from .cell import PARAMETERS
from .claims import is_peer
from .statistics import median, spread
from .units import significant

CsvRow = Mapping[str, str]
Key = tuple[str, ...]  # of a section: its case, and the value of every parameter that varies

RATE_LEFT_OUT = "Rate left out"
LOOPBACK_NOTE = (
    "Client, subject and backend share one machine: on loopback the kernel does part of a receiver's work at the "
    "sender's expense, so figures compare subjects with each other, not with a network.")


@dataclass
class Line:
    """A subject in a section: all its repeats."""

    subject: str
    rows: list[CsvRow] = field(default_factory=list)

    def values(self, column: str, standing: tuple[str, ...]) -> list[float]:
        return [float(row[column]) for row in self.rows if row["stands"] in standing and row[column]]

    def rate(self, column: str) -> list[float]:
        return self.values(column, ("all",))

    def cost(self, column: str) -> list[float]:
        return self.values(column, ("all", "cost"))

    def of_survivors(self, figure: str, pick: Callable[[list[float]], float | None], factor: float = 1) -> list[float]:
        """What is made of the seconds around a host's death."""
        return [value * factor for row in self.rows if row["stands"] == "all"
                and (value := pick(seconds.figures(row[f"survivor_{figure}_by_second"]))) is not None]


@dataclass
class Section:
    key: Key
    title: str
    detail: str
    lines: dict[str, Line] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        return self.title + (f" ({self.detail})" if self.detail else "")

    @property
    def limit_us(self) -> float | None:
        floors = [float(row["floor_cpu_us_per_op"]) for line in self.lines.values() for row in line.rows
                  if row["floor_cpu_us_per_op"]]
        return median(floors) if floors else None

    @property
    def limit_kind(self) -> str:
        return next((row["floor_kind"] for line in self.lines.values() for row in line.rows if row["floor_kind"]), "")

    @property
    def columns(self) -> tuple["Column", ...]:
        rows = [row for line in self.lines.values() for row in line.rows]
        if all(row["failover"] == "kill" for row in rows):
            return SURVIVOR_COLUMNS
        return HELD_COLUMNS if all(row["loop"] == "hold" for row in rows) else COLUMNS


def figure(values: list[float], show: Callable[[float], str] = significant) -> str:
    """Median, and half the range beside it when there are several."""
    if not values:
        return "-"
    width = spread(values)
    return show(median(values)) + (f" ±{100 * width:.0f}%" if width is not None else "")


def middle(values: list[float], show: Callable[[float], str] = significant) -> str:
    """The median alone, for figures whose spread is that of another column."""
    return show(median(values)) if values else "-"


def share(value: float) -> str:
    return f"{100 * value:.0f} %"


def handshakes(line: Line) -> list[float]:
    """Of both kinds; none where connections are kept alive and the window sees no handshake."""
    full, resumed = line.rate("handshakes_full_per_s"), line.rate("handshakes_resumed_per_s")
    both = [sum(pair) for pair in zip(full, resumed)] if full and resumed else full or resumed
    return [value for value in both if value > 0]


def bounds(line: Line) -> str:
    """Who was the bottleneck; `mixed` where the repeats do not agree (the footnotes tell)."""
    seen = {row["bound"] for row in line.rows if row["bound"]}
    return "mixed" if len(seen) > 1 else "".join(seen) or "-"


@dataclass(frozen=True)
class Column:
    heading: str
    width: int
    text: Callable[[Line], str]


COLUMNS = (
    Column("handshakes/s", 12, lambda line: figure(handshakes(line))),
    Column("transactions/s", 14, lambda line: figure(line.rate("transactions_per_s"))),
    Column("CPU us/op", 12, lambda line: figure(line.cost("subject_cpu_us_per_op"))),
    Column("ops/s a core", 12, lambda line: middle(line.cost("capacity_per_core_per_s"))),
    Column("efficiency", 10, lambda line: middle(line.cost("efficiency"), share)),
    Column("bound", 8, bounds),
)
# Of connections that only rest.
HELD_COLUMNS = (
    Column("KiB/connection", 14, lambda line: figure(line.rate("subject_idle_kib_per_connection"))),
    Column("resident KiB", 14, lambda line: middle(line.rate("subject_rss_kib"))),
)
# Of hosts one of which dies.
SURVIVOR_COLUMNS = (
    Column("% resumed before", 16, lambda line: figure(line.of_survivors("resumed_share", seconds.before, 100))),
    Column("1st second", 10, lambda line: middle(line.of_survivors("resumed_share", seconds.second(1), 100))),
    Column("worst second", 12, lambda line: middle(line.of_survivors("resumed_share", seconds.lowest, 100))),
    Column("CPU us/op before", 16, lambda line: figure(line.of_survivors("cpu_us_per_op", seconds.before))),
    Column("1st second", 10, lambda line: figure(line.of_survivors("cpu_us_per_op", seconds.second(1)))),
)
# What subjects are compared by, in each kind of section, and what it is called.
COMPARED = {"CPU us/op": "subject_cpu_us_per_op", "KiB/connection": "subject_idle_kib_per_connection"}
SUBJECT_WIDTH = 28
MARK_WIDTH = 8


def bundle_names(case: str) -> str:
    return " / ".join(pair.partition("=")[2] for pair in case.split(";")) if case else ""


def parameter_text(name: str, value: str) -> str:
    """A parameter as a person says it."""
    if name == "reuse":
        return {"never": "new session each time", "always": "session always resumed"}.get(
            value, f"new session every {value.partition(':')[2]} connections")
    if name == "requests_per_connection":
        return {"inf": "connections kept alive", "0": "handshakes only"}.get(
            value, "1 request a connection" if value == "1" else f"{value} requests a connection")
    if name == "resume_with":
        return {"id": "resumed by session ID", "ticket": "resumed by ticket"}.get(value, "resumed by ticket or ID")
    if name == "request_bytes":
        return f"POST of {value} B" if value != "0" else "GET"
    if name == "response_bytes":
        return f"{value} B objects"
    if name == "connections":
        return f"{value} connections"
    if name == "cores":
        return f"{value} core" + ("" if value == "1" else "s")
    if name == "backend":
        return f"{value} backend"
    if name == "loop":
        # A closed loop is what all others are.
        if value.startswith("search:"):
            mean, _, loss = value[7:].partition(",")
            return f"the highest rate with a mean below {mean} and less than {loss} % lost"
        if value.endswith("%"):
            return f"{value[5:-1]} % of a closed loop's rate"
        words = {"hold": "held at rest", "burst": "all at once", "closed": ""}
        return words.get(value, f"{value[5:]} a second")
    if name == "load_tool":
        return "" if value == "loadgen" else f"loaded by {value}"
    if name == "load_workers":
        return "" if value == "0" else f"{value} load worker" + ("" if value == "1" else "s")
    if name == "maxconn":
        return "" if value == "0" else f"{value} at once to the backend"
    if name == "service_model":
        return "" if value == "none" else f"a backend of {value}"
    if name == "hosts":
        return f"{value} host" + ("" if value == "1" else "s")
    if name in OF_HOSTS:
        return OF_HOSTS[name].get(value, value)
    return value


OF_HOSTS = {
    "sharing": {"none": "nothing shared", "pull": "unicast and pull", "ticket-keys": "ticket keys"},
    "spread": {"turn": "clients go from host to host", "sticky": "clients stay with a host"},
    "failover": {"none": "", "kill": "until it is killed"},
}


def varying(rows: list[CsvRow]) -> list[str]:
    return [name for name in PARAMETERS if len({row[name] for row in rows}) > 1]


def common_text(rows: list[CsvRow]) -> str:
    several = varying(rows)
    resuming = any(row["reuse"] != "never" for row in rows)
    names = [name for name in PARAMETERS if name not in several and (resuming or name != "resume_with")
             and not is_of_hosts(name, rows[0])]
    return ", ".join(filter(None, (parameter_text(name, rows[0][name]) for name in names)))


def says_nothing(name: str, row: CsvRow) -> bool:
    """How sessions are reused, where no connection ever ends; what resumes them, where none is; what several hosts do,
    where there is one."""
    return (is_of_hosts(name, row) or name == "reuse" and row["requests_per_connection"] == "inf"
            or name == "resume_with" and row["reuse"] == "never")


def is_of_hosts(name: str, row: CsvRow) -> bool:
    return row["hosts"] == "1" and (name == "hosts" or name in OF_HOSTS)


def sections(rows: list[CsvRow]) -> list[Section]:
    """In the order of the cells of the scenario as far as the CSV tells it: by case and parameters, subjects by first
    sight of all. The rows of a run come in random order, so the order of the file is no order."""
    differing = varying(rows)
    found: dict[Key, Section] = {}
    for row in rows:
        key = (row["case"], *(row[name] for name in differing))
        if key not in found:
            said = [name for name in differing if not says_nothing(name, row)]
            detail = ", ".join(filter(None, (parameter_text(name, row[name]) for name in said)))
            title = bundle_names(row["case"])
            found[key] = Section(key, title or detail, detail if title else "")
        line = found[key].lines.setdefault(row["subject"], Line(row["subject"]))
        line.rows.append(row)
    return [found[key] for key in sorted(found, key=section_order)]


# Words that have an order other than the alphabet's: the dearest work first, as tables of TLS benchmarks do.
WORD_ORDER = {"never": 0, "full": 0, "always": 2, "resumed": 2, "keep-alive": 3, "inf": 3}


def section_order(key: Key) -> list[tuple[int, list[tuple[float, str]]]]:
    words = [word for part in key for word in (part.replace(";", "=").split("=")[1::2] if "=" in part else [part])]
    # Numbers in a word by their value: 16k comes after 1k.
    return [(WORD_ORDER.get(word, 1), [(float(part), "") if part.isdigit() else (0.0, part)
                                       for part in re.split(r"(\d+)", word) if part]) for word in words]


def subject_order(line: Line) -> tuple[bool, str]:
    """The reference first: it is what the others are held against."""
    return not line.subject.startswith("reference"), line.subject


# A number that stands alone; digits in a name (TLSv1.2, P-256, CPU 1) are no figure and have no range.
NUMERAL = re.compile(r"(?<![^\s(\[])(?<!CPU )\d+(?:\.\d+)?(?=$|[\s%,;:!?)\]]|\.(?:\s|$))")


def merge_numbers(reasons: list[str]) -> str:
    """One text for reasons that differ in their figures only, with the range of each figure."""
    columns = list(zip(*(NUMERAL.findall(reason) for reason in reasons)))
    ranges = iter([low if (low := min(column, key=float)) == (high := max(column, key=float)) else f"{low}-{high}"
                   for column in columns])
    return NUMERAL.sub(lambda _match: next(ranges), reasons[0])


@dataclass
class Note:
    mark: int
    what: str
    reasons: list[str] = field(default_factory=list)
    where: dict[Key, dict[str, int]] = field(default_factory=dict)  # section, subject, rows

    def text(self, names: dict[Key, str]) -> str:
        def who(counts: dict[str, int]) -> str:
            return ", ".join(f"{subject} (x{count})" if count > 1 else subject for subject, count in counts.items())

        places = "; ".join((f"{names[section]}: " if names[section] else "") + who(counts)
                           for section, counts in self.where.items())
        return f"{self.what}: {merge_numbers(self.reasons)}. {places}."


def remarks(row: CsvRow) -> list[tuple[str, str, str]]:
    """What has to be said of a row: in what words, the reason, and what reasons share a footnote with it. Those of a
    verdict do when they differ in their figures only. The figures of a failure are dates, process numbers and versions,
    so only the same words make the same footnote."""
    said = []
    if row["status"] == "invalid":
        what = RATE_LEFT_OUT if row["stands"] == "cost" else "INVALID, left out"
        # A verdict joins its reasons with semicolons.
        said += [(what, reason, NUMERAL.sub("#", reason)) for reason in row["reason"].split("; ")]
    elif row["status"] != "ok":
        said.append(({"skipped": "Skipped", "failed": "FAILED"}.get(row["status"], row["status"]), row["reason"],
                     row["reason"]))
    if row["floor_reason"]:
        said.append(("No floor", row["floor_reason"], row["floor_reason"]))
    return said


def notes(tabled: list[Section]) -> tuple[list[Note], dict[tuple[Key, str], set[int]]]:
    """A footnote for each kind of thing to say, and the marks of each line."""
    by_kind: dict[tuple[str, str], Note] = {}
    marks: dict[tuple[Key, str], set[int]] = {}
    for section in tabled:
        for line in sorted(section.lines.values(), key=subject_order):
            for row in line.rows:
                for what, reason, kind in remarks(row):
                    note = by_kind.setdefault((what, kind), Note(len(by_kind) + 1, what))
                    note.reasons.append(reason)
                    counts = note.where.setdefault(section.key, {})
                    counts[line.subject] = counts.get(line.subject, 0) + 1
                    marks.setdefault((section.key, line.subject), set()).add(note.mark)
    return list(by_kind.values()), marks


def section_names(tabled: list[Section]) -> dict[Key, str]:
    """Titles; with the detail where a title alone would not tell one section from another."""
    count = Counter(section.title for section in tabled)
    return {section.key: section.heading if count[section.title] > 1 else section.title for section in tabled}


def mark_text(marks: set[int]) -> str:
    return "[" + ",".join(map(str, sorted(marks))) + "]" if marks else ""


def summary(rows: list[CsvRow]) -> str:
    """How many rows stand, in one line."""
    count = Counter(row["status"] for row in rows)
    cost_only = sum(1 for row in rows if row["status"] == "invalid" and row["stands"] == "cost")
    parts = [f"{count['ok']} of {len(rows)} rows stand in full"]
    if cost_only:
        parts.append(f"{cost_only} in their CPU cost only")
    if count["invalid"] - cost_only:
        parts.append(f"{count['invalid'] - cost_only} not at all")
    parts += [f"{count[status]} {status}" for status in ("skipped", "failed") if count[status]]
    return ", ".join(parts) + "."


EXPLANATION = (
    "handshakes/s, transactions/s: where the subject was the bottleneck; elsewhere they would be another's figures.",
    "CPU us/op: CPU time of the subject per connection with its handshake, or per transaction where kept alive.",
    "ops/s a core: 1,000,000 / CPU us/op, what a core could do. efficiency: floor / CPU us/op; the floor is what the "
    "TLS library alone costs or, on connections that are kept alive, what a bare relay does.",
)
SURVIVOR_EXPLANATION = (
    "before, 1st second, worst second: of the hosts that are left, around the death of one in the midst of the window.")
HELD_EXPLANATION = (
    "KiB/connection: what the subject grew by while it was given the connections, divided by them; its own memory, "
    "without the kernel's.")


def wrap(text: str, indent: int, width: int = 118) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(" " * (indent if lines else 0) + word)
    return lines


def limit_cells(section: Section) -> list[str]:
    """What the TLS library alone would show in each column."""
    if not section.limit_us:
        return []
    cost = section.limit_us
    limits = {"CPU us/op": significant(cost), "ops/s a core": significant(1e6 / cost), "efficiency": "100 %"}
    return [limits.get(column.heading, "") for column in section.columns]


FLOORS = {"library": "TLS library alone", "relay": "bare relay", "library+relay": "TLS library, relay"}


def comparison_cells(section: Section) -> tuple[list[str], str]:
    """The reference divided by the best of the others, and who that is; nothing where one of the two is missing."""
    compared = next((column.heading for column in section.columns if column.heading in COMPARED), None)
    if compared is None:
        return [], ""
    name = COMPARED[compared]
    middles = {line.subject: median(values) for line in section.lines.values() if (values := line.cost(name))}
    peers = {subject: value for subject, value in middles.items() if is_peer(subject)}
    if "reference" not in middles or not peers:
        return [], ""
    best = min(peers, key=lambda subject: peers[subject])
    return [f"{middles['reference'] / peers[best]:.2f}" if column.heading == compared else ""
            for column in section.columns], best


def explanations(tabled: list[Section]) -> list[str]:
    kinds = {section.columns for section in tabled}
    return [*(EXPLANATION if COLUMNS in kinds else ()), *([HELD_EXPLANATION] if HELD_COLUMNS in kinds else []),
            *([SURVIVOR_EXPLANATION] if SURVIVOR_COLUMNS in kinds else []),
            LOOPBACK_NOTE]


def subject_name(line: Line) -> str:
    return f"{line.subject} {next((row['subject_version'] for row in line.rows if row['subject_version']), '')}".strip()


def render_text(rows: list[CsvRow]) -> str:
    tabled = sections(rows)
    found, marks = notes(tabled)
    names = section_names(tabled)

    def ruled(name: str, cells: list[str], mark: str = "", columns: tuple[Column, ...] = COLUMNS) -> str:
        figures = "".join(f"  {cell:>{column.width}}" for cell, column in zip(cells, columns))
        return f"{name[:SUBJECT_WIDTH]:<{SUBJECT_WIDTH}}{figures} {mark}".rstrip()

    usual = any(section.columns is COLUMNS for section in tabled)
    rule = "─" * (SUBJECT_WIDTH + MARK_WIDTH + sum(column.width + 2 for column in COLUMNS))
    out = [f"{rows[0]['scenario']}  {rows[0]['run_id']}", *wrap(f"All: {common_text(rows)}", 5), "",
           *([ruled("", [column.heading for column in COLUMNS])] if usual else []), rule]
    for section in tabled:
        columns = section.columns
        out += wrap(section.heading, 4)
        if columns is not COLUMNS:
            out.append(ruled("", [column.heading for column in columns], columns=columns))
        for line in sorted(section.lines.values(), key=subject_order):
            out.append(ruled(f"  {subject_name(line)}", [column.text(line) for column in columns],
                             mark_text(marks.get((section.key, line.subject), set())), columns))
        if limits := limit_cells(section):
            out.append(ruled(f"  ({FLOORS[section.limit_kind]})", limits))
        ratios, best = comparison_cells(section)
        if ratios:
            out.append(ruled(f"  (reference / {best})", ratios, columns=columns))
        out.append(rule)
    repeated = any(len(line.rows) > 1 for section in tabled for line in section.lines.values())
    out.append(summary(rows) + (" Medians, ± half the range." if repeated else ""))
    for note in found:
        out += wrap(f"[{note.mark}] {note.text(names)}", 4)
    for text in explanations(tabled):
        out += wrap(text, 2)
    return "\n".join(out) + "\n"


def render_markdown(rows: list[CsvRow]) -> str:
    tabled = sections(rows)
    found, marks = notes(tabled)
    names = section_names(tabled)

    def ruled(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    out = [f"## {rows[0]['scenario']} ({rows[0]['run_id']})", "", f"All: {common_text(rows)}.", ""]
    for section in tabled:
        out += [f"### {section.heading}", "",
                ruled(["subject", *(column.heading for column in section.columns), "notes"]),
                "|---|" + "---:|" * len(section.columns) + "---|"]
        for line in sorted(section.lines.values(), key=subject_order):
            out.append(ruled([subject_name(line), *(column.text(line) for column in section.columns),
                              mark_text(marks.get((section.key, line.subject), set()))]))
        if limits := limit_cells(section):
            out.append(ruled([f"*{FLOORS[section.limit_kind]}*", *limits, ""]))
        ratios, best = comparison_cells(section)
        if ratios:
            out.append(ruled([f"*reference / {best}*", *ratios, ""]))
        out.append("")
    out += [summary(rows), "", *(f"- [{note.mark}] {note.text(names)}" for note in found), ""]
    out += [f"{text}  " for text in explanations(tabled)]
    return "\n".join(out) + "\n"


FORMATS: dict[str, Callable[[list[CsvRow]], str]] = {"text": render_text, "markdown": render_markdown}
