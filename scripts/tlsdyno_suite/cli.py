"""The command line: what each subcommand does with the other modules, and its exit status."""
import argparse
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from . import article, begun, claims, machine, output, pivot, plot, record, scenario, table
from .cell import Cell
from .certificates import certificate
from .placement import usable
from .processes import Interrupted, check_tools, interruptible
from .programs import RESULTS, SCENARIOS, build_directory, require_built
from .refusal import Refused
from .runner import ARTICLE_ROW, Plan, run
from .subjects import DRIVERS, EXTERNAL, check_address, check_paths
from .units import about, parse_length

MEASURED, USAGE, INVALID = 0, 2, 4
LARGEST_SEED = 2**63 - 1  # what schema.json allows too


def time_option(text: str) -> float:
    try:
        return parse_length(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def count_option(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a count from 1 to 9999")
    return int(text)


def seed_option(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to {LARGEST_SEED}")
    return int(text)


class Parser(argparse.ArgumentParser):
    """One line on standard error, like every other refusal."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise Refused(message, "", "see tlsdyno --help")

    def _print_message(self, message: str, _file: object = None) -> None:  # type: ignore[override]
        output.say(message.rstrip("\n"))


def parser() -> Parser:
    whole = Parser(prog="tlsdyno", description="Measure TLS terminators, with proof.",
                   epilog="Exit status: 0 measured, or no regression (ab, compare, history); 1 regression; 2 bad usage "
                   "or data; 3 inconclusive; 4 a row failed or has no figure that stands, or the measurement is "
                   "invalid.")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    runs = commands.add_parser("run", help="measure a scenario")
    runs.add_argument("scenario", metavar="SCENARIO", nargs="?",
                      help="a name from `tlsdyno list`, or the path of a file")
    runs.add_argument("--only", metavar="AXIS=VALUE[,VALUE]", action="append", default=[],
                      help="only the cells with these values of an axis (or of subject)")
    runs.add_argument("--repeats", metavar="N", type=count_option, help="measure each cell N times")
    runs.add_argument("--duration", metavar="T", type=time_option, help="measured window of each cell (500ms, 5s, 1m)")
    runs.add_argument("--seed", metavar="N", type=seed_option,
                      help="of the random order of the cells; without it a new one, which machine.json records")
    runs.add_argument("--full", action="store_true", help="combine all values of axes that else vary one at a time")
    runs.add_argument("--alone", action="store_true",
                      help="one cell at a time, also where the scenario measures several at once: rates stand then")
    runs.add_argument("--external", metavar="HOST:PORT",
                      help="measure also what runs there already: subject `external`")
    runs.add_argument("--i-own-the-target", dest="owned", action="store_true",
                      help="required for --external with an address that is not loopback")
    runs.add_argument("--resume", metavar="DIR", type=Path,
                      help="go on with a run that was interrupted, as it was asked")
    runs.add_argument("--out", metavar="DIR", type=Path, help="where the results go; must not exist or be empty")
    runs.add_argument("--dry-run", action="store_true", help="print cells, placement and time; start nothing")
    commands.add_parser("list", help="the scenarios, and how long each takes here")
    tables = commands.add_parser("table", help="print the table of a run")
    tables.add_argument("run", metavar="RUN", type=Path, help="directory of a run, or its results.csv")
    tables.add_argument("--format", choices=tuple(table.FORMATS), default="text")
    tables.add_argument("--cells", action="store_true",
                        help="every cell with all its figures, also where the scenario has a table of its own")
    plots = commands.add_parser("plot", help="draw each table of a run as an SVG file, a dot for each repeat")
    plots.add_argument("run", metavar="RUN", type=Path, help="directory of a run, or its results.csv")
    plots.add_argument("--out", metavar="DIR", type=Path, help="where the files go (plots/ beside results.csv)")
    gates = commands.add_parser("ab", help="two builds of the proxy in one run: has the new one got slower?")
    gates.add_argument("scenario", metavar="SCENARIO", nargs="?", default="regression",
                       help="as for run (default: regression); of one subject, the reference, and closed loops only")
    gates.add_argument("--base", metavar="PATH", type=Path, required=True,
                       help="a build directory or a proxy; or a configuration file of the proxy, or the prefix of an "
                       "OpenSSL, for the proxy that is built here")
    gates.add_argument("--new", metavar="PATH", type=Path, required=True, help="the same, of what is to be judged")
    gates.add_argument("--only", metavar="AXIS=VALUE[,VALUE]", action="append", default=[], help="as for run")
    gates.add_argument("--instructions", action="store_true",
                       help="count instructions under valgrind instead of time: the same on the noisiest machine")
    gates.add_argument("--time", metavar="T", type=time_option, default=300.0,
                       help="after the first block of each cell, begin none that would not end within this time (5m)")
    gates.add_argument("--seed", metavar="N", type=seed_option,
                       help="of the order of blocks; without it a new one, which report.json records")
    gates.add_argument("--out", metavar="DIR", type=Path, help="as for run")
    judgement_options(gates)
    apart = commands.add_parser("compare", help="two runs made apart, on the same machine")
    apart.add_argument("base", metavar="BASE.csv", type=Path, help="a results.csv, or the directory of a run")
    apart.add_argument("new", metavar="NEW.csv", type=Path, help="the same, of what is to be judged")
    apart.add_argument("--force", action="store_true", help="compare also what was measured on different machines")
    apart.add_argument("--history", metavar="FILE", type=Path,
                       help="thresholds from what `tlsdyno history` has collected: what its runs usually differ by")
    apart.add_argument("--out", metavar="DIR", type=Path, help="also write the reports there; as for run")
    judgement_options(apart)
    past = commands.add_parser("history", help="what cells cost in one run after the other: changes of level, a plot")
    past.add_argument("file", metavar="FILE.csv", type=Path, help="the history; rows are only ever appended")
    past.add_argument("--add", metavar="RUN", type=Path, nargs="+", default=[],
                      help="append these runs first, the oldest first: directories of run or ab, or a results.csv")
    past.add_argument("--commit", metavar="NAME", default="", help="what the added runs were runs of")
    past.add_argument("--since", metavar="RUN", default="", help="look only at what came from this run on")
    past.add_argument("--plot", metavar="FILE", type=Path, help="write a plot there (.svg, .png, .pdf)")
    commands.add_parser("doctor", help="what on this machine would spoil a measurement, and how to mend it")
    return whole


def judgement_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threshold", metavar="PERCENT",
                         help="a smaller rise is let pass (3; of ab --instructions 0.5)")
    command.add_argument("--inconclusive", choices=("pass", "fail"),
                         help="exit with 0 (pass) or 1 (fail) instead of 3 where nothing is proven")


def make_plan(loaded: scenario.Scenario, run_id: str, external: str = "", owned: bool = False) -> Plan:
    seed = loaded.seed if loaded.seed is not None else random.SystemRandom().randrange(2**32)
    cpus = usable(loaded, os.sched_getaffinity(0))
    return Plan(run_id, loaded, scenario.expand(loaded), cpus, seed, machine.raise_descriptor_limit(), external, owned)


def as_asked(arguments: argparse.Namespace) -> scenario.Scenario:
    """The scenario with what the command line says about it."""
    loaded = scenario.load(scenario.locate(arguments.scenario), tuple(DRIVERS))
    if arguments.external:
        check_address(arguments.external, arguments.owned)
        loaded = replace(loaded, subjects=tuple(dict.fromkeys((*loaded.subjects, EXTERNAL.name))))
    loaded = scenario.narrow(loaded, arguments.only)
    if arguments.full and not loaded.base:
        raise Refused("--full", loaded.path.name, "combines all its values anyway")
    if arguments.alone and not loaded.at_once:
        raise Refused("--alone", loaded.path.name, "has each cell measured alone anyway")
    loaded = replace(loaded, full=arguments.full, at_once=() if arguments.alone else loaded.at_once)
    if arguments.repeats:
        loaded = replace(loaded, repeats=arguments.repeats)
    if arguments.duration:
        loaded = replace(loaded, duration_s=arguments.duration)
    if arguments.seed is not None:
        loaded = replace(loaded, seed=arguments.seed)
    return loaded


def size(plan: Plan) -> str:
    """How much there is to do, in one line."""
    skipped = sum(1 for cell in plan.cells if plan.obstacle(cell))
    cells = f"{len(plan.cells)} cells" + (f" ({skipped} to be skipped)" if skipped else "")
    left = sum(len(cells) for _, cells in plan.left())
    rest = f", {left} rows left" if plan.done else ""
    return f"{cells}, {plan.scenario.repeats} times{rest}, about {about(plan.seconds())}"


def print_plan(plan: Plan) -> None:
    """The cells that would run, in the order of the file."""
    left = {cell for _, cells in plan.left() for cell in cells}
    company = {cell: len(group) - 1 for _, cells in reversed(plan.left()) for group in plan.groups(cells)
               for cell in group}
    for cell in filter(left.__contains__, plan.cells):
        placement, obstacle = plan.placement(cell), plan.obstacle(cell)
        fate = f"skipped: {obstacle}" if obstacle or placement is None else str(
            replace(placement, company=company[cell]))
        output.say(f"{cell.subject:<20} {scenario.cell_name(plan.scenario, cell):<36} {fate}")
    output.say(size(plan))


def make_run_directory(out: Path | None, run_id: str) -> Path:
    directory = out or RESULTS / run_id
    try:
        directory.mkdir(parents=True, exist_ok=out is not None)
        if any(directory.iterdir()):
            raise Refused(directory, "", "is there already and not empty: give another --out")
    except OSError as error:
        raise Refused(directory, "", error.strerror or str(error)) from error
    return directory


class Progress:
    """What standard error shows: one live line on a terminal, else one plain line for each finished row."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._total = len(plan.cells) * plan.scenario.repeats
        self._done = self._total - sum(len(cells) for _, cells in plan.left())
        self._live = sys.stderr.isatty()
        self._begin = time.monotonic()

    def begun(self, repeat: int, cell: Cell) -> None:
        if self._live:
            left = max(0.0, self._plan.seconds() - (time.monotonic() - self._begin))
            where = f"{cell.subject} {scenario.cell_name(self._plan.scenario, cell)}, repeat {repeat}"
            line = f"[{self._done + 1}/{self._total}] {where}, about {about(left)} left"
            output.mention(f"\r{line[:110]}\x1b[K", end="")

    def finished(self, row: record.Row) -> None:
        self._done += 1
        if not self._live:
            figures = "" if not row.get("subject_cpu_us_per_op") else f" {row['subject_cpu_us_per_op']:.1f} CPU us/op"
            case = table.bundle_names(row["case"]) or f"{row['tls_version']} {row['cert_key']} {row['reuse']}"
            why = f": {row['reason']}" if row.get("reason") else ""
            line = f"[{self._done}/{self._total}] {row['subject']}, {case}: {row['status']}{figures}{why}"
            output.mention(line)

    def clear(self) -> None:
        if self._live:
            output.mention("\r\x1b[K", end="")


def run_command(arguments: argparse.Namespace) -> int:
    if arguments.resume:
        return resume_command(arguments)
    if not arguments.scenario:
        raise Refused("run", "SCENARIO", "is missing: a name from `tlsdyno list`, or the path of a file")
    loaded = as_asked(arguments)
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{loaded.name}"
    plan = make_plan(loaded, run_id, arguments.external or "", arguments.owned)
    if arguments.dry_run:
        print_plan(plan)
        return MEASURED
    prepare(plan)
    directory = make_run_directory(arguments.out, run_id)
    keep_scenario(loaded, directory)
    begun.write(directory, plan, arguments.only)
    return measure(plan, directory, record.Recorder(directory / "results.csv"))


def resume_command(arguments: argparse.Namespace) -> int:
    """Goes on with what was asked then: nothing may be asked otherwise now."""
    directory = arguments.resume
    asked_now = [name for name in ("scenario", "only", "repeats", "duration", "seed", "full", "alone", "external",
                                   "out")
                 if getattr(arguments, name) not in (None, False, [])]
    if asked_now:
        raise Refused("--resume", asked_now[0], "was decided when the run began")
    plan = begun.read(directory, make_plan)
    if arguments.dry_run:
        print_plan(plan)
        return MEASURED
    prepare(plan)
    begun.check_machine(directory)
    recorder = record.Recorder(directory / "results.csv", resumed=True)
    article.cut(directory, record.read(directory))
    return measure(plan, directory, recorder)


def prepare(plan: Plan) -> None:
    """Refuses whatever would keep every cell from being measured."""
    check_tools()
    check_paths(build_directory(), Path(tempfile.gettempdir()))
    require_built(["proxy", "echo-backend", "loadgen", "tls-floor"])
    for cert_key in dict.fromkeys(cell.cert_key for cell in plan.cells):
        certificate(cert_key)


def measure(plan: Plan, directory: Path, recorder: record.Recorder) -> int:
    output.mention(f"{plan.scenario.title}\n{size(plan)}; results in {directory}")
    progress = Progress(plan)
    (directory / "logs").mkdir(exist_ok=True)

    def finished(row: record.Row) -> None:
        if line := row.get(ARTICLE_ROW):
            article.append(directory, line)
        recorder.write(row)
        progress.finished(row)

    try:
        run(plan, directory / "logs", finished, progress.begun)
    except Interrupted as interruption:
        progress.clear()
        output.mention(f"tlsdyno: interrupted; {len(record.read(directory))} finished rows are in "
                       f"{directory / 'results.csv'}; go on with: tlsdyno run --resume {directory}")
        return interruption.exit_status
    finally:
        progress.clear()
        recorder.close()
    output.say(shown(directory, "text") + f"Results: {directory}")
    return exit_status(record.read(directory))


def keep_scenario(loaded: scenario.Scenario, directory: Path) -> None:
    """As it was run, with the files that it names."""
    (directory / "scenario.toml").write_bytes(loaded.path.read_bytes())
    for name in loaded.beside:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes((loaded.path.parent / name).read_bytes())


def rows_and_scenario(run: Path) -> tuple[list[Mapping[str, str]], scenario.Scenario | None]:
    rows = record.read(run)
    if not rows:
        raise Refused(run, "", "has no rows")
    as_run = run / "scenario.toml"
    return rows, scenario.load(as_run, tuple(DRIVERS)) if as_run.is_file() else None


def shown(run: Path, wanted: str, cells: bool = False) -> str:
    """The tables and claims of a run. Both are those of the scenario as it was run; a results.csv by itself has
    none."""
    rows, loaded = rows_and_scenario(run)
    layouts = loaded.layouts if loaded and not cells else ()
    tables = pivot.FORMATS[wanted](layouts, rows) if layouts else table.FORMATS[wanted](rows)
    verdicts = claims.FORMATS[wanted](claims.check(loaded.claims if loaded else (), rows))
    return "\n".join(filter(None, (tables, verdicts)))


def exit_status(rows: list[Mapping[str, str]]) -> int:
    """A skipped row is no fault, but a run in which every row was skipped has measured nothing."""
    measured = [row for row in rows if row["status"] != "skipped"]
    return MEASURED if measured and all(row["stands"] for row in measured) else INVALID


def ab_command(arguments: argparse.Namespace) -> int:
    from . import ab  # with its statistics, which take a second to load

    loaded = scenario.narrow(scenario.load(scenario.locate(arguments.scenario), tuple(DRIVERS)), arguments.only)
    if arguments.seed is not None:
        loaded = replace(loaded, seed=arguments.seed)
    plan = make_plan(loaded, f"{time.strftime('%Y%m%d-%H%M%S')}-ab-{loaded.name}")
    return ab.command(arguments, plan, make_run_directory)


def compare_command(arguments: argparse.Namespace) -> int:
    from . import compare  # see ab_command

    return compare.command(arguments, make_run_directory)


def history_command(arguments: argparse.Namespace) -> int:
    from . import history  # see ab_command

    return history.command(arguments)


def list_command(_arguments: argparse.Namespace) -> int:
    status = MEASURED
    for path in sorted(SCENARIOS.glob("*.toml")):
        try:
            plan = make_plan(scenario.load(path, tuple(DRIVERS)), path.stem)
        except Refused as error:
            output.mention(f"tlsdyno: {error}")
            status = USAGE
            continue
        loaded = plan.scenario
        source = f"{loaded.source}; " if loaded.source else ""
        output.say(f"{loaded.name:<24} {loaded.title}\n{'':<24} {source}{size(plan)} here")
    return status


def table_command(arguments: argparse.Namespace) -> int:
    output.say(shown(arguments.run, arguments.format, arguments.cells).rstrip("\n"))
    return MEASURED


def plot_command(arguments: argparse.Namespace) -> int:
    rows, loaded = rows_and_scenario(arguments.run)
    beside = arguments.run if arguments.run.is_dir() else arguments.run.parent
    for path in plot.write(loaded.layouts if loaded else (), rows, arguments.out or beside / "plots"):
        output.say(str(path))
    return MEASURED


def doctor_command(_arguments: argparse.Namespace) -> int:
    findings = machine.examine()
    for finding in findings:
        mark = {"ok": "ok    ", "warn": "warn  ", "spoils": "SPOILS"}[finding.level]
        output.say(f"{mark}  {finding.what}" + (f"\n        mend: {finding.mend}" if finding.mend else ""))
    return INVALID if any(finding.level == "spoils" for finding in findings) else MEASURED


COMMANDS = {"run": run_command, "ab": ab_command, "compare": compare_command, "history": history_command,
            "list": list_command, "table": table_command, "plot": plot_command,
            "doctor": doctor_command}


def main(argv: list[str]) -> int:
    try:
        output.prepare()
        with interruptible():
            arguments = parser().parse_args(argv)
            return COMMANDS[arguments.command](arguments)
    except Refused as error:
        output.mention(f"tlsdyno: {error}")
        return USAGE
    except ModuleNotFoundError as error:
        # Only what compares needs statistics. Python itself would end with 1, which is the status of a regression.
        output.mention(f"tlsdyno: {error.name}: is not installed (scripts/install-deps gate)")
        return USAGE
    except Interrupted as interruption:
        return interruption.exit_status
    except BrokenPipeError:
        return MEASURED  # whoever read our output has seen enough
    except OSError as error:
        # A disk that is full, or a limit of this process: nothing here can mend it, and where it was met is enough.
        output.mention(f"tlsdyno: {error.filename or 'the operating system'}: {error.strerror or error}")
        return USAGE
