"""The command line: what each subcommand does with the other modules, and its exit status."""
import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from . import claims, machine, output, record, scenario, table
from .cell import Cell
from .certificates import certificate
from .placement import usable
from .processes import Interrupted, check_tools, interruptible
from .programs import RESULTS, SCENARIOS, build_directory, require_built
from .refusal import Refused
from .runner import Plan, run
from .subjects import DRIVERS, check_paths
from .units import about, parse_length

MEASURED, USAGE, INVALID = 0, 2, 4


def time_option(text: str) -> float:
    try:
        return parse_length(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def count_option(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a count from 1 to 9999")
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
    runs.add_argument("scenario", metavar="SCENARIO", help="a name from `tlsdyno list`, or the path of a file")
    runs.add_argument("--only", metavar="AXIS=VALUE[,VALUE]", action="append", default=[],
                      help="only the cells with these values of an axis (or of subject)")
    runs.add_argument("--repeats", metavar="N", type=count_option, help="measure each cell N times")
    runs.add_argument("--duration", metavar="T", type=time_option, help="measured window of each cell (500ms, 5s, 1m)")
    runs.add_argument("--out", metavar="DIR", type=Path, help="where the results go; must not exist or be empty")
    runs.add_argument("--dry-run", action="store_true", help="print cells, placement and time; start nothing")
    commands.add_parser("list", help="the scenarios, and how long each takes here")
    tables = commands.add_parser("table", help="print the table of a run")
    tables.add_argument("run", metavar="RUN", type=Path, help="directory of a run, or its results.csv")
    tables.add_argument("--format", choices=tuple(table.FORMATS), default="text")
    gates = commands.add_parser("ab", help="two builds of the proxy in one run: has the new one got slower?")
    gates.add_argument("scenario", metavar="SCENARIO", nargs="?", default="regression",
                       help="as for run (default: regression); its closed-loop cells of the reference are gated")
    gates.add_argument("--base", metavar="PATH", type=Path, required=True,
                       help="a build directory or a proxy; or a configuration file of the proxy, or the prefix of an "
                       "OpenSSL, for the proxy that is built here")
    gates.add_argument("--new", metavar="PATH", type=Path, required=True, help="the same, of what is to be judged")
    gates.add_argument("--only", metavar="AXIS=VALUE[,VALUE]", action="append", default=[], help="as for run")
    gates.add_argument("--instructions", action="store_true",
                       help="count instructions under valgrind instead of time: the same on the noisiest machine")
    gates.add_argument("--time", metavar="T", type=time_option, default=300.0,
                       help="begin no block that would not end within this time (5m)")
    gates.add_argument("--seed", metavar="N", type=count_option, help="of the order of blocks (default: a new one)")
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
                         help="a smaller rise is let pass (3; with --instructions 0.5)")
    command.add_argument("--inconclusive", choices=("pass", "fail"),
                         help="exit with 0 (pass) or 1 (fail) instead of 3 where nothing is proven")


def make_plan(loaded: scenario.Scenario, run_id: str) -> Plan:
    seed = loaded.seed if loaded.seed is not None else random.SystemRandom().randrange(2**32)
    cpus = usable(loaded, os.sched_getaffinity(0))
    return Plan(run_id, loaded, scenario.expand(loaded), cpus, seed, machine.raise_descriptor_limit())


def as_asked(arguments: argparse.Namespace) -> scenario.Scenario:
    """The scenario with what the command line says about it."""
    loaded = scenario.narrow(scenario.load(scenario.locate(arguments.scenario), tuple(DRIVERS)), arguments.only)
    if arguments.repeats:
        loaded = replace(loaded, repeats=arguments.repeats)
    if arguments.duration:
        loaded = replace(loaded, duration_s=arguments.duration)
    return loaded


def size(plan: Plan) -> str:
    """How much there is to do, in one line."""
    skipped = sum(1 for cell in plan.cells if plan.obstacle(cell))
    cells = f"{len(plan.cells)} cells" + (f" ({skipped} to be skipped)" if skipped else "")
    return f"{cells}, {plan.scenario.repeats} times, about {about(plan.seconds())}"


def print_plan(plan: Plan) -> None:
    for cell in plan.cells:
        obstacle = plan.obstacle(cell)
        fate = f"skipped: {obstacle}" if obstacle else str(plan.placement(cell))
        output.say(f"{cell.subject:<20} {cell.label:<36} {fate}")
    output.say(size(plan))


def make_run_directory(out: Path | None, run_id: str) -> Path:
    directory = out or RESULTS / run_id
    try:
        directory.mkdir(parents=True, exist_ok=out is not None)
        if any(directory.iterdir()):
            raise Refused(directory, "", "is there already and not empty: give another --out")
        (directory / "logs").mkdir()
    except OSError as error:
        raise Refused(directory, "", error.strerror or str(error)) from error
    return directory


class Progress:
    """What standard error shows: one live line on a terminal, else one plain line for each finished row."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._total = len(plan.cells) * plan.scenario.repeats
        self._done = 0
        self._live = sys.stderr.isatty()
        self._begin = time.monotonic()

    def begun(self, repeat: int, cell: Cell) -> None:
        if self._live:
            left = max(0.0, self._plan.seconds() - (time.monotonic() - self._begin))
            where = f"{cell.subject} {cell.label}, repeat {repeat}"
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
    loaded = as_asked(arguments)
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{loaded.name}"
    plan = make_plan(loaded, run_id)
    if arguments.dry_run:
        print_plan(plan)
        return MEASURED
    check_tools()
    check_paths(build_directory(), Path(tempfile.gettempdir()))
    require_built(["proxy", "echo-backend", "loadgen", "tls-floor"])
    for cert_key in dict.fromkeys(cell.cert_key for cell in plan.cells):
        certificate(cert_key)
    directory = make_run_directory(arguments.out, run_id)
    (directory / "scenario.toml").write_bytes(loaded.path.read_bytes())
    (directory / "machine.json").write_text(json.dumps({
        "run_id": run_id, "scenario": loaded.name, "seed": plan.seed, "only": arguments.only, "repeats": loaded.repeats,
        "duration_s": loaded.duration_s, "warmup_s": loaded.warmup_s, "backend_beside": loaded.backend_beside,
        **machine.fingerprint()}, indent=2) + "\n")
    output.mention(f"{loaded.title}\n{size(plan)}; results in {directory}")

    recorder = record.Recorder(directory / "results.csv")
    progress = Progress(plan)
    rows: list[record.Row] = []

    def finished(row: record.Row) -> None:
        recorder.write(row)
        rows.append(row)
        progress.finished(row)

    try:
        run(plan, directory / "logs", finished, progress.begun)
    except Interrupted as interruption:
        progress.clear()
        output.mention(f"tlsdyno: interrupted; {len(rows)} finished rows are in {directory / 'results.csv'}")
        return interruption.exit_status
    finally:
        progress.clear()
        recorder.close()
    measured = record.read(directory)
    parts = [table.render_text(measured), claims.render_text(claims.check(loaded.claims, measured))]
    output.say("\n".join(filter(None, parts)) + f"Results: {directory}")
    return exit_status(rows)


def exit_status(rows: list[record.Row]) -> int:
    """A skipped row is no fault, but a run in which every row was skipped has measured nothing."""
    measured = [row for row in rows if row["status"] != "skipped"]
    return MEASURED if measured and all(row.get("stands") for row in measured) else INVALID


def ab_command(arguments: argparse.Namespace) -> int:
    from . import ab  # with its statistics, which take a second to load

    loaded = scenario.narrow(scenario.load(scenario.locate(arguments.scenario), tuple(DRIVERS)), arguments.only)
    if arguments.seed:
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
        output.say(f"{loaded.name:<20} {loaded.title}\n{'':<20} {source}{size(plan)} here")
    return status


def table_command(arguments: argparse.Namespace) -> int:
    rows = record.read(arguments.run)
    if not rows:
        raise Refused(arguments.run, "", "has no rows")
    # The claims are those of the scenario as it was run; a results.csv by itself has none.
    as_run = arguments.run / "scenario.toml"
    made = scenario.load(as_run, tuple(DRIVERS)).claims if as_run.is_file() else ()
    parts = [table.FORMATS[arguments.format](rows), claims.FORMATS[arguments.format](claims.check(made, rows))]
    output.say("\n".join(filter(None, parts)).rstrip("\n"))
    return MEASURED


def doctor_command(_arguments: argparse.Namespace) -> int:
    findings = machine.examine()
    for finding in findings:
        mark = {"ok": "ok    ", "warn": "warn  ", "spoils": "SPOILS"}[finding.level]
        output.say(f"{mark}  {finding.what}" + (f"\n        mend: {finding.mend}" if finding.mend else ""))
    return INVALID if any(finding.level == "spoils" for finding in findings) else MEASURED


COMMANDS = {"run": run_command, "ab": ab_command, "compare": compare_command, "history": history_command,
            "list": list_command, "table": table_command, "doctor": doctor_command}


def main(argv: list[str]) -> int:
    try:
        output.prepare()
        with interruptible():
            arguments = parser().parse_args(argv)
            return COMMANDS[arguments.command](arguments)
    except Refused as error:
        output.mention(f"tlsdyno: {error}")
        return USAGE
    except Interrupted as interruption:
        return interruption.exit_status
    except BrokenPipeError:
        return MEASURED  # whoever read our output has seen enough
    except OSError as error:
        # A disk that is full, or a limit of this process: nothing here can mend it, and where it was met is enough.
        output.mention(f"tlsdyno: {error.filename or 'the operating system'}: {error.strerror or error}")
        return USAGE
