"""Claims: what a scenario is to show, as data in its file, checked against the rows of a run. scenarios/README.md has
the notation for its readers.

A claim is a comparison of two sums of figures. It is read by Python's own parser, of whose language a whitelist of
nodes is understood and all else refused; nothing of it is ever executed."""
import ast
import difflib
import itertools
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import layout, seconds
from .cell import Cell
from .layout import CsvRow
from .refusal import Refused
from .statistics import median
from .units import significant

Selection = dict[str, str]  # subject, axis of bundles or parameter; the value it must have
Groups = list[tuple[Selection, list[CsvRow]]]  # the rows of each cell, with all that it can be selected by


@dataclass(frozen=True)
class Figure:
    """What can be claimed about: the median of a column over the rows in which it stands."""

    column: str
    stands: tuple[str, ...]
    lower_is_better: bool
    pick: Callable[[list[float]], float | None] = seconds.only  # of a field with several: what is made of them
    factor: float = 1.0


COSTS, ALL = ("all", "cost"), ("all",)
FIGURES = {
    "cost": Figure("subject_cpu_us_per_op", COSTS, True),
    "floor": Figure("floor_cpu_us_per_op", COSTS, True),
    "memory": Figure("subject_idle_kib_per_connection", ALL, True),
    "capacity": Figure("capacity_per_core_per_s", COSTS, False),
    "latency": Figure("transaction_p50_us", ALL, True),
    "longest": Figure("transaction_max_us", ALL, True),
    "service": Figure("service_mean_ms", ALL, True),
    "connections": Figure("connections_per_s", ALL, False),
    "transactions": Figure("transactions_per_s", ALL, False),
    "resumed": Figure("resume_accepted_share", COSTS, False, factor=100),
    # Of hosts that are left when one has died: before; the worst second after; and the first, when most come over.
    "survivor_resumed_before": Figure("survivor_resumed_share_by_second", ALL, False, seconds.before, 100),
    "survivor_resumed": Figure("survivor_resumed_share_by_second", ALL, False, seconds.lowest, 100),
    "survivor_cost_before": Figure("survivor_cpu_us_per_op_by_second", ALL, True, seconds.before),
    "survivor_cost": Figure("survivor_cpu_us_per_op_by_second", ALL, True, seconds.second(1)),
}
OF_ALL_SUBJECTS = "floor"  # the same for all, so its rows are those of all
REFERENCE = "reference"    # subjects whose name begins so are this project's, the others are the peers
COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[float, float], bool]]] = {
    ast.LtE: ("<=", operator.le), ast.Lt: ("<", operator.lt), ast.GtE: (">=", operator.ge), ast.Gt: (">", operator.gt)}
SUMS: dict[type[ast.operator], tuple[str, Callable[[float, float], float]]] = {
    ast.Add: ("+", operator.add), ast.Sub: ("-", operator.sub), ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv)}
LONGEST = 500  # characters of an expression: a person has to read it, and the parser's depth has an end


class Wrong(Exception):
    """The expression cannot be used: why, and the character at which."""

    def __init__(self, reason: str, node: ast.AST | None = None) -> None:
        at = getattr(node, "col_offset", None)
        super().__init__(reason + (f" (character {at + 1})" if at is not None else ""))


class NotMeasurable(Exception):
    """A figure of the claim is not in the run: which and why; `absent` where its cells are not in it at all."""

    def __init__(self, reason: str, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent


@dataclass(frozen=True)
class Claim:
    text: str
    level: str                 # must, aim or empty
    holds: str
    each: dict[str, list[str]]
    place: str                 # in the file, for who has to mend it
    within: float | None = None  # of an equation: by what part of the right side the left one may differ from it


@dataclass(frozen=True)
class Outcome:
    claim: Claim
    bound: Selection           # the values of `each`
    verdict: str               # holds, does not hold, not measurable
    figures: str               # the comparison with its figures, or why there are none
    absent: bool = False       # the run was of other cells than it speaks of


# ---- Reading ----

def parse(holds: str, within: float | None = None) -> ast.Compare:
    if len(holds) > LONGEST:
        raise Wrong(f"longer than {LONGEST} characters")
    try:
        tree = ast.parse(holds, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = f" (character {error.offset})" if isinstance(error, SyntaxError) and error.offset else ""
        raise Wrong(f"not an expression{at}") from error
    wanted = COMPARISONS.keys() if within is None else {ast.Eq}
    if not isinstance(tree, ast.Compare) or len(tree.ops) != 1 or type(tree.ops[0]) not in wanted:
        raise Wrong("a claim is one comparison: <=, <, >= or >" if within is None else
                    "a claim with `within` is one comparison: ==", tree)
    return tree


def figure_of(call: ast.Call) -> tuple[str, bool]:
    """Its name, and whether the best of the peers is meant."""
    if not isinstance(call.func, ast.Name):
        raise Wrong("not a figure", call)
    best = call.func.id == "best"
    wanted = 1 if best else 0
    if len(call.args) != wanted or best and not isinstance(call.args[0], ast.Name):
        raise Wrong("best takes the name of a figure, as in best(cost)" if best else
                    f"{call.func.id} takes selections only, as in {call.func.id}(subject='{REFERENCE}')", call)
    name = call.args[0].id if best else call.func.id  # type: ignore[attr-defined]
    if name not in FIGURES:
        close = difflib.get_close_matches(name, FIGURES, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"figures: {', '.join(FIGURES)}"
        raise Wrong(f"unknown figure '{name}' ({hint})", call)
    return name, best


def selection_of(call: ast.Call, bound: Selection) -> Selection:
    """What the call says, and what `each` says beside it."""
    said: Selection = {}
    for keyword in call.keywords:
        value = keyword.value
        if keyword.arg is None or not isinstance(value, ast.Constant) or type(value.value) not in (str, int):
            raise Wrong("a selection is NAME='TEXT' or NAME=NUMBER", value)
        said[keyword.arg] = str(value.value)
    return {**bound, **said}


def calls(node: ast.AST) -> Iterator[ast.Call]:
    """Every figure of an expression; Wrong where there is anything else than figures, numbers and sums."""
    if isinstance(node, ast.Compare):
        yield from calls(node.left)
        yield from calls(node.comparators[0])
    elif isinstance(node, ast.BinOp) and type(node.op) in SUMS:
        yield from calls(node.left)
        yield from calls(node.right)
    elif isinstance(node, ast.Call):
        yield node
    elif not isinstance(node, ast.Constant) or type(node.value) not in (int, float):
        raise Wrong("only figures, numbers and + - * / can be compared", node)


def names_of(cell: Cell) -> Selection:
    """Everything that a cell can be selected by, its subject left out."""
    return {name: value for name, value in layout.names_of(cell).items() if name != "subject"}


def check_selection(call: ast.Call, selection: Selection, cells: list[Cell]) -> None:
    """It must select one cell of the scenario; or, without a subject, one section of it."""
    name, best = figure_of(call)
    subjects = {cell.subject for cell in cells}
    rest = {key: value for key, value in selection.items() if key != "subject"}
    known = list(names_of(cells[0]))
    for key in rest:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            raise Wrong(f"nothing is selected by '{key}'" + (f" (did you mean '{close[0]}'?)" if close else ""), call)
    if best and "subject" in selection:
        raise Wrong("best is of all peers: it takes no subject", call)
    if best and not any(is_peer(subject) for subject in subjects):
        raise Wrong("the scenario has no peers", call)
    if not best and name != OF_ALL_SUBJECTS:
        if "subject" not in selection:
            raise Wrong(f"{name} of whom? (subject='{REFERENCE}', or best({name}))", call)
        if selection["subject"] not in subjects:
            raise Wrong(f"the scenario has no subject '{selection['subject']}'", call)
    found = {tuple(names.items()) for cell in cells if rest.items() <= (names := names_of(cell)).items()}
    if not found:
        raise Wrong(f"no cell has {said(rest)}", call)
    if len(found) > 1:
        differing = [key for key in known if len({dict(each)[key] for each in found}) > 1]
        raise Wrong(f"{said(rest) or 'nothing'} selects several cells: they differ in {', '.join(differing)}", call)


def said(selection: Selection, known: Selection | None = None) -> str:
    """A selection in words, without what is said elsewhere."""
    return ", ".join(f"{key}={value}" for key, value in selection.items() if value != (known or {}).get(key))


def bindings(claim: Claim) -> Iterator[Selection]:
    for values in itertools.product(*claim.each.values()):
        yield dict(zip(claim.each, values))


def lines_of(text: str) -> list[int]:
    """The numbers of the lines that begin with `holds =`."""
    return [number for number, line in enumerate(text.splitlines(), start=1) if re.match(r"\s*holds\s*=", line)]


def read(path: Path, tables: list[dict[str, Any]], cells: list[Cell]) -> tuple[Claim, ...]:
    """The claims of a scenario file, held against the cells that they speak of; Refused names the first wrong one."""
    lines = lines_of(path.read_text()) if tables else []
    claims = []
    for number, table in enumerate(tables):
        line = f" (line {lines[number]})" if len(lines) == len(tables) else ""
        each = {name: list(map(str, values)) for name, values in table.get("each", {}).items()}
        claim = Claim(table["text"], table.get("level", ""), table["holds"], each, f"claim[{number}].holds{line}",
                      table.get("within"))
        try:
            tree = parse(claim.holds, claim.within)
            for bound in bindings(claim):
                for call in calls(tree):
                    check_selection(call, selection_of(call, bound), cells)
        except Wrong as error:
            raise Refused(path, claim.place, str(error)) from error
        claims.append(claim)
    return tuple(claims)


# ---- Holding against a run ----

def is_peer(subject: str) -> bool:
    return not subject.startswith(REFERENCE)


def selected(groups: Groups, selection: Selection) -> Groups:
    return [(names, rows) for names, rows in groups if selection.items() <= names.items()]


def figure(name: str, groups: Groups) -> float | None:
    """The median over the rows in which it stands; None where there are none."""
    what = FIGURES[name]
    values = [value * what.factor for _, rows in groups for row in rows if row["stands"] in what.stands
              if (value := what.pick(seconds.figures(row[what.column]))) is not None]
    return median(values) if values else None


def figure_of_call(call: ast.Call, bound: Selection, groups: Groups) -> tuple[float, str]:
    """Its value, and how it is shown."""
    name, best = figure_of(call)
    selection = selection_of(call, bound)
    if name == OF_ALL_SUBJECTS and not best:
        selection.pop("subject", None)
    found = selected(groups, selection)
    if not best:
        value = figure(name, found)
        if value is None:
            why = "none of its rows has one that stands" if found else "not in this run"
            raise NotMeasurable(f"no {name} with {said(selection, bound)}: {why}", not found)
        return value, significant(value)
    peers = {subject: figure(name, selected(found, {"subject": subject}))
             for subject in dict.fromkeys(names["subject"] for names, _ in found) if is_peer(subject)}
    measured = {subject: value for subject, value in peers.items() if value is not None}
    if not measured:
        rest = said(selection, bound)
        why = "none of their rows has one that stands" if peers else "not in this run"
        raise NotMeasurable(f"no {name} of any peer{', ' if rest else ''}{rest}: {why}", not peers)
    choose = min if FIGURES[name].lower_is_better else max
    winner = choose(measured, key=lambda subject: measured[subject])
    without = [subject for subject in peers if subject not in measured]
    return measured[winner], (f"{significant(measured[winner])} ({winner}"
                              + (f"; without {', '.join(without)}" if without else "") + ")")


def evaluate(node: ast.expr, bound: Selection, groups: Groups) -> tuple[float, str]:
    """Its value, and the expression with the figures in their places."""
    if isinstance(node, ast.Constant):
        return float(node.value), str(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Call):
        return figure_of_call(node, bound, groups)
    assert isinstance(node, ast.BinOp)
    symbol, calculate = SUMS[type(node.op)]
    (left, left_text), (right, right_text) = evaluate(node.left, bound, groups), evaluate(node.right, bound, groups)
    if symbol == "/" and right == 0:
        raise NotMeasurable("a division by nothing")
    if symbol in "*/":
        left_text, right_text = (f"({text})" if isinstance(part, ast.BinOp) else text
                                 for part, text in ((node.left, left_text), (node.right, right_text)))
    return calculate(left, right), f"{left_text} {symbol} {right_text}"


def comparison(kind: ast.cmpop, within: float | None) -> tuple[str, Callable[[float, float], bool]]:
    if within is None:
        return COMPARISONS[type(kind)]
    part = within
    return f"within {100 * part:g} % of", lambda left, right: abs(left - right) <= part * abs(right)


def check_one(claim: Claim, bound: Selection, groups: Groups) -> Outcome:
    tree = parse(claim.holds, claim.within)
    symbol, compare = comparison(tree.ops[0], claim.within)
    try:
        (left, left_text), (right, right_text) = (
            evaluate(side, bound, groups) for side in (tree.left, tree.comparators[0]))
    except NotMeasurable as missing:
        return Outcome(claim, bound, "not measurable", str(missing), missing.absent)
    proportion = f"; that is {left / right:.2f} of it" if right else ""
    sides = [f"{text} = {significant(value)}" if isinstance(side, ast.BinOp) else text for side, value, text in (
        (tree.left, left, left_text), (tree.comparators[0], right, right_text))]
    return Outcome(claim, bound, "holds" if compare(left, right) else "does not hold",
                   f"{sides[0]} {symbol} {sides[1]}{proportion}")


def check(claims: tuple[Claim, ...], rows: list[CsvRow]) -> list[Outcome]:
    groups = layout.by_cell(rows)
    return [check_one(claim, bound, groups) for claim in claims for bound in bindings(claim)]


# ---- Showing ----

VERDICTS = ("holds", "does not hold", "not measurable")


def summary(outcomes: list[Outcome]) -> str:
    """How many of each verdict, by level."""
    parts = []
    for level in dict.fromkeys(outcome.claim.level for outcome in outcomes):
        of_level = [outcome.verdict for outcome in outcomes if outcome.claim.level == level]
        counts = ", ".join(f"{of_level.count(verdict)} {verdict.replace('holds', 'hold').replace('does', 'do')}"
                           for verdict in VERDICTS if verdict in of_level)
        parts.append(f"{level}: {counts}" if level else counts)
    return "Claims: " + "; ".join(parts) + "."


def of_this_run(outcomes: list[Outcome]) -> tuple[list[Outcome], str]:
    """Those that the run was to answer, and how many others there are, in words; none where it was of other cells."""
    present = [outcome for outcome in outcomes if not outcome.absent]
    others = len(outcomes) - len(present)
    return present, f"{others} more are of cells that are not in this run." if others and present else ""


def heading(claim: Claim) -> str:
    return claim.text + (f" ({claim.level})" if claim.level else "")


def render_text(outcomes: list[Outcome]) -> str:
    outcomes, others = of_this_run(outcomes)
    if not outcomes:
        return ""
    out = [summary(outcomes), *filter(None, [others])]
    for claim, together in itertools.groupby(outcomes, key=lambda outcome: outcome.claim):
        of_claim = list(together)
        out.append(heading(claim))
        width = max(len(" / ".join(outcome.bound.values())) for outcome in of_claim)
        for outcome in of_claim:
            name = f"  {' / '.join(outcome.bound.values()):<{width}}" if width else ""
            out.append(f"  {outcome.verdict:<14}{name}  {outcome.figures}")
    return "\n".join(out) + "\n"


def render_markdown(outcomes: list[Outcome]) -> str:
    outcomes, others = of_this_run(outcomes)
    if not outcomes:
        return ""
    out = ["### Claims", "", f"{summary(outcomes)} {others}".rstrip(), "",
           "| claim | where | verdict | figures |", "|---|---|---|---|"]
    for outcome in outcomes:
        cells = [heading(outcome.claim), " / ".join(outcome.bound.values()), outcome.verdict, outcome.figures]
        out.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(out) + "\n"


FORMATS: dict[str, Callable[[list[Outcome]], str]] = {"text": render_text, "markdown": render_markdown}
