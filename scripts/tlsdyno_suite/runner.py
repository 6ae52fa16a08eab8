"""Runs the cells of a plan one after the other and hands each finished row on. One cell: backend, subject, load,
verdict, all stopped."""
import contextlib
import json
import os
import random
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import floor, search, sessions
from .cell import Cell, contradiction
from .certificates import certificate
from .loads import loadgen, wrk
from .placement import Placement, cpu_list, place, place_external
from .port import accepts, free_port
from .processes import Failed, Program, crew, describe_end, last_line, start, stop, wait_until_ready
from .programs import built
from .record import Row, asked_row, measured_row, row_key
from .sampler import Sampler, read_tcp_counters
from .scenario import Scenario
from .subjects import DRIVERS, Driver, Task, is_loopback
from .verdict import SAME, Evidence, count_differences, judge
from .workspace import workspace

READY_LIMIT_S = 10.0
PORT_TRIES = 5
DRAIN_LIMIT_S = 15.0      # what the load may take beyond its window: connecting, the last answers, writing its result
COUNTERS_SETTLE_S = 1.0   # a server may count a connection a moment after its client has
POLL_S = 0.05
OVERHEAD_S = 0.3          # starting and stopping one cell, as estimated for people
SPARE_DESCRIPTORS = 200
RESULT = "load.json"          # of the load generator, in the cell's directory
ARTICLE_ROW = "article_row"   # key of a row's line for the article's own CSV; no column of results.csv


Key = tuple[str, ...]  # of a row: its repeat, and what was asked


def key(repeat: int, cell: Cell) -> Key:
    return row_key({"repeat": repeat, **asked_row(cell)})


def floor_shares(cell: Cell) -> dict[floor.Work, float]:
    """None of a subject whose CPU time is not seen, for nothing would be held against them, nor of one without TLS."""
    driver = DRIVERS[cell.subject]
    return {} if driver.external or driver.plain else floor.shares(cell, driver.resumes)


def floor_limit(cell: Cell, floors: dict[floor.Work, float | str]) -> floor.Limit:
    driver = DRIVERS[cell.subject]
    return floor.Limit(None, "", "") if driver.external or driver.plain else floor.limit(cell, floors, driver.resumes)


@dataclass(frozen=True)
class Plan:
    run_id: str
    scenario: Scenario
    cells: list[Cell]
    cpus: tuple[int, ...]
    seed: int
    descriptors: int  # how many files a process may open
    external: str = ""   # address of the subject that is not started here
    owned: bool = False  # which need not be on this machine
    done: frozenset[Key] = frozenset()  # what an earlier part of this run has measured

    def rounds(self) -> list[list[Cell]]:
        """The cells of each repeat in an order of its own: whatever drifts on the machine falls on all alike."""
        chooser = random.Random(self.seed)
        return [chooser.sample(self.cells, len(self.cells)) for _ in range(self.scenario.repeats)]

    def left(self) -> list[tuple[int, list[Cell]]]:
        """The repeats, and of each the cells that are still to be measured."""
        rounds = [(repeat, [cell for cell in cells if key(repeat, cell) not in self.done])
                  for repeat, cells in enumerate(self.rounds(), start=1)]
        return [(repeat, cells) for repeat, cells in rounds if cells]

    def floor_works(self, cells: list[Cell]) -> list[floor.Work]:
        return list(dict.fromkeys(work for cell in cells if not self.obstacle(cell) for work in floor_shares(cell)))

    def placement(self, cell: Cell) -> Placement | None:
        if DRIVERS[cell.subject].external:
            return place_external(self.cpus, is_loopback(self.external))
        return place(cell, self.cpus, self.scenario.backend_beside)

    def obstacle(self, cell: Cell) -> str | None:
        """Why the cell cannot be measured here, or None."""
        driver = DRIVERS[cell.subject]
        if reason := contradiction(cell):
            return reason
        if driver.external and not self.external:
            return "no address was given (--external HOST:PORT)"
        if self.placement(cell) is None:
            return f"needs {cell.cores} CPUs and may use {len(self.cpus)}"
        if cell.load_tool == "wrk" and (reason := wrk.missing()):
            return reason
        if cell.load_tool == "wrk" and driver.external:
            return "wrk does not ask whose the target is"
        files = 2 * cell.connections + SPARE_DESCRIPTORS
        if files > self.descriptors:
            return f"needs {files} open files and may have {self.descriptors} (ulimit -Hn)"
        if driver.version() is None:
            return f"{cell.subject} is not installed"
        return driver.cannot(cell)

    def seconds(self) -> float:
        """How long it will take, about."""
        one = self.scenario.warmup_s + self.scenario.duration_s + OVERHEAD_S
        total = 0.0
        for _, cells in self.left():
            total += sum((search.PROBES if cell.searches else 1) * one + cell.ramp_s
                         for cell in cells if not self.obstacle(cell))
            total += len(self.floor_works(cells)) * (floor.DURATION_S + OVERHEAD_S)
        return total


def printed_address(program: Program, what: str) -> str | None:
    """The ADDR of a line `what ADDR` in the program's output."""
    found = re.search(rf"^{what} on (\S+)\n", program.log.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else None


def start_backend(cell: Cell, placement: Placement, directory: Path, log: Path, programs: list[Program]) -> str:
    """Returns its address."""
    listen = ["http", "-l", "127.0.0.1:0"] if cell.backend == "tcp" else ["sock", "-l", str(directory / "backend.sock")]
    workers = ["-n", str(len(placement.backend)), "--cpus", cpu_list(placement.backend)]
    model = ["--service-model", cell.service_model] if cell.service_model != "none" else []
    command = [str(built("echo-backend")), *listen, *workers, *model]
    program = start("backend", command, placement.backend, log)
    programs.append(program)
    wait_until_ready(program, lambda: printed_address(program, "listening") is not None, READY_LIMIT_S)
    return printed_address(program, "listening") or ""


def start_subject(driver: Driver, task: Task, log: Path, programs: list[Program]) -> str:
    """Returns its address. Tries other ports when somebody took the one it was given."""
    if driver.reports_address:
        program = start("subject", driver.command(task), task.cpus, log)
        programs.append(program)
        wait_until_ready(program, lambda: printed_address(program, "listening") is not None, READY_LIMIT_S)
        return printed_address(program, "listening") or ""
    for attempt in range(PORT_TRIES):
        port = free_port()
        task = Task(task.cell, task.cpus, task.certificate, task.backend, port, task.directory)
        program = start("subject", driver.command(task), task.cpus, log)
        programs.append(program)
        try:
            wait_until_ready(program, lambda: accepts(port), READY_LIMIT_S)
            return f"127.0.0.1:{port}"
        except Failed:
            in_use = re.search("in use", log.read_text(errors="replace"), re.IGNORECASE)
            if not in_use or attempt == PORT_TRIES - 1:
                raise
    raise AssertionError("the loop returns or raises")


def fetch(url: str) -> Any:
    """A JSON object. Loopback only, so no proxy of the environment may come between."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=2) as answer:
        return json.load(answer)


def service_mean_ms(backend: str) -> float:
    """Of every request so far, from its beginning to its end in the backend itself."""
    try:
        return float(fetch(f"http://{backend}/whoami")["service"]["mean_ms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"backend's account of its requests at {backend} cannot be read: {error}") from error


def read_counters(address: str) -> dict[str, int]:
    """The subject's own account of its connections."""
    try:
        counters = fetch(f"http://{address}/stats.json")
        return {name: int(counters[name]) for name in (*SAME, "handshakes_failed")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"subject's statistics at {address} cannot be read: {error}") from error


def settled_counters(address: str, before: dict[str, int], totals: dict[str, Any]) -> dict[str, int]:
    """Growth of the counters; waits a moment for the server to have counted what the client has."""
    deadline = time.monotonic() + COUNTERS_SETTLE_S
    while True:
        growth = {name: value - before[name] for name, value in read_counters(address).items()}
        if not count_differences(growth, totals, 0) or time.monotonic() > deadline:
            return growth
        time.sleep(POLL_S)


def unpinned(programs: list[Program]) -> set[str]:
    """Roles of which some thread may run elsewhere than it was told."""
    return {program.role for program in programs
            if any(sessions.allowed_cpus(pid) - set(program.cpus) for pid in sessions.members(program.session))}


def check_alive(programs: list[Program]) -> None:
    for program in programs:
        if program.popen.poll() is not None:
            raise Failed(f"{program.role} died in mid-run: it {describe_end(program)}")


def watch(load: Program, others: list[Program], check_at_s: float, limit_s: float,
          poll_s: float = POLL_S) -> set[str]:
    """Until the load (or tls-floor) ends. Failed when one of the others ends before it, or when it does not end.
    Returns the roles that were seen off their CPUs, looked at once in the midst of the load and once after it."""
    begin = time.monotonic()
    checked, strayed = False, set[str]()
    while load.popen.poll() is None:
        check_alive(others)
        elapsed = time.monotonic() - begin
        if elapsed > limit_s:
            name = {"client": "load generator", "floor": "tls-floor"}[load.role]
            raise Failed(f"{name} did not end within {limit_s:g} s")
        if not checked and elapsed > check_at_s:
            strayed |= unpinned([load, *others])
            checked = True
        time.sleep(poll_s)
    check_alive(others)
    return strayed | unpinned(others)


def gather(cell: Cell, placement: Placement, scenario: Scenario, result: loadgen.Result, sampler: Sampler,
           tcp: dict[str, int], strayed: set[str], counted: dict[str, int] | None, before_kib: float) -> Evidence:
    begin, end = result.started_ns, result.end_ns
    length_s = max(result.duration_s, 1e-9)
    cpus = {*placement.subject, *placement.client, *placement.backend}
    at_end_kib = sampler.own_kib["subject"].last(begin, end) if "subject" in sampler.own_kib else None
    stolen_s = [series.growth(begin, end) for cpu, series in sampler.steal_s.items() if cpu in cpus]
    # wrk ends with its window, and its clock with it.
    read = [series for role, series in sampler.cpu_s.items() if result.tells or role != "client"]
    cpu_s = {role: series.growth(begin, end) for role, series in sampler.cpu_s.items()}
    if scenario.backend_beside == "within" and "backend" in cpu_s:
        cpu_s["subject"] += cpu_s.pop("backend")
    return Evidence(
        cell=cell, placement=placement, asked_s=scenario.duration_s, load=result,
        cpu_s=cpu_s,
        sample_gap_s=max(series.gap_s(moment) for series in read for moment in (begin, end)),
        busy={cpu: (series.growth(begin, end) + sampler.steal_s[cpu].growth(begin, end)) / length_s
              for cpu, series in sampler.busy_s.items()},
        steal=max(stolen_s, default=0.0) / length_s,
        tcp=tcp, unpinned=tuple(sorted(strayed)), counted=counted, external=DRIVERS[cell.subject].external,
        plain=DRIVERS[cell.subject].plain,
        resumes=DRIVERS[cell.subject].resumes,
        memory_kib=None if at_end_kib is None else (before_kib, at_end_kib))


def measure(plan: Plan, cell: Cell, placement: Placement, directory: Path, logs: str,
            limit: floor.Limit) -> Row:
    """One cell, from nothing running to nothing running. `logs` is where the logs go, up to their role."""
    with crew() as programs:
        if DRIVERS[cell.subject].external:
            evidence, rss_kib = put_load(plan, cell, placement, plan.external, [], programs, directory,
                                         Path(f"{logs}-client.log"))
            return measured_row(evidence, judge(evidence), rss_kib, limit)
        driver = DRIVERS[cell.subject]
        backend = "" if driver.origin else start_backend(cell, placement, directory, Path(f"{logs}-backend.log"),
                                                         programs)
        task = Task(cell, placement.subject, certificate(cell.cert_key), backend, 0, directory)
        address = start_subject(driver, task, Path(f"{logs}-subject.log"), programs)
        serving = list(programs)
        try:
            put = seek if cell.searches else put_load
            evidence, rss_kib = put(plan, cell, placement, address, serving, programs, directory,
                                    Path(f"{logs}-client.log"))
        except Failed:
            # A server that died is why whatever came after it failed.
            check_alive(serving)
            raise
        if cell.service_model != "none" and backend:
            evidence = replace(evidence, service_mean_ms=service_mean_ms(backend))
        return {**measured_row(evidence, judge(evidence), rss_kib, limit), **article_row(cell, directory)}


def article_row(cell: Cell, directory: Path) -> Row:
    """The row that wrk's script wrote; it goes into a file of its own."""
    if cell.load_tool != "wrk":
        return {}
    try:
        return {ARTICLE_ROW: wrk.row_file(directory / RESULT).read_text().strip()}
    except OSError as error:
        raise Failed(f"wrk's script left no row: {error.strerror}") from error


def seek(plan: Plan, cell: Cell, placement: Placement, address: str, serving: list[Program], programs: list[Program],
         directory: Path, log: Path) -> tuple[Evidence, int]:
    """As put_load, at the highest rate that meets the cell's criterion."""
    wanted = search.criterion(cell.loop)

    def at(loop: str) -> tuple[Evidence, int]:
        (directory / RESULT).unlink(missing_ok=True)
        seen = put_load(plan, replace(cell, loop=loop), placement, address, serving, programs, directory, log)
        stop(programs.pop())  # the load generator that has ended
        return seen

    def probe(rate: int) -> tuple[tuple[Evidence, int], bool]:
        seen = at(f"rate:{rate}")
        return seen, wanted.met(seen[0].load)

    closed = at("closed")[0].load.rates.get("transactions_per_s")
    if not closed:
        raise Failed("nothing was answered")
    found = search.search(closed, probe)
    # Where none was answered well, the row is of the lowest that was tried.
    shown = found.best or found.beyond
    assert shown is not None  # at least one was tried
    beyond = found.beyond[0] if found.beyond else None
    return replace(shown[0], cell=cell, beyond=beyond, met=found.best is not None), shown[1]


def load_command(plan: Plan, cell: Cell, placement: Placement, address: str, json_file: Path) -> list[str]:
    scenario, plain = plan.scenario, DRIVERS[cell.subject].plain
    if cell.load_tool == "wrk":
        url = f"{'http' if plain else 'https'}://{address}"
        return wrk.command(cell, placement, url, scenario.duration_s, json_file)
    return loadgen.command(cell, placement, address, scenario.duration_s, scenario.warmup_s, json_file, plan.owned,
                           plain)


def put_load(plan: Plan, cell: Cell, placement: Placement, address: str, serving: list[Program],
             programs: list[Program], directory: Path, log: Path) -> tuple[Evidence, int]:
    """Loads what serves at the address: programs of this run, the subject last, or none of them. Returns what was seen,
    and the subject's memory in KiB."""
    scenario = plan.scenario
    counts = DRIVERS[cell.subject].has_statistics and cell.load_tool == "loadgen"  # wrk has none to compare them with
    statistics = printed_address(serving[-1], "stats") if counts else None
    before = read_counters(statistics) if statistics else {}
    tcp_before = read_tcp_counters()
    json_file = directory / RESULT
    tool = wrk if cell.load_tool == "wrk" else loadgen
    length_s = cell.ramp_s + scenario.warmup_s + scenario.duration_s
    before_kib = sum(sessions.memory_kib(pid)[1] for program in serving[-1:]
                     for pid in sessions.members(program.session))
    sampler = Sampler({program.role: program.session for program in serving})
    before_ns = time.time_ns()
    load = start("client", load_command(plan, cell, placement, address, json_file), placement.client, log)
    programs.append(load)
    sampler.add_new(load.role, load.session, before_ns)
    sampler.start()
    try:
        strayed = watch(load, serving, 0.05 if cell.bursts else length_s / 2, length_s + DRAIN_LIMIT_S)
    finally:
        sampler.stop()
    tcp = {name: value - tcp_before[name] for name, value in read_tcp_counters().items()}
    if load.popen.returncode not in tool.MEASURED:
        raise Failed(f"load generator {describe_end(load)}")
    try:
        result = wrk.read(json_file) if tool is wrk else loadgen.read(json_file, DRIVERS[cell.subject].plain)
    except ValueError as error:
        raise Failed(f"{error} ({last_line(load.log)})") from error
    counted = settled_counters(statistics, before, result.totals) if statistics else None
    evidence = gather(cell, placement, scenario, result, sampler, tcp, strayed, counted, before_kib)
    return evidence, sampler.resident_kib.get("subject", 0)


def measure_floor(work: floor.Work, cpus: tuple[int, ...], json_file: Path, log: Path) -> float | str:
    """CPU microseconds per op, or why there is no such figure."""
    try:
        with crew() as programs:
            program = start("floor", floor.command(work, cpus, json_file), floor.placement(work, cpus), log)
            programs.append(program)
            watch(program, [], 0, floor.DURATION_S + DRAIN_LIMIT_S)
            if program.popen.returncode != 0:
                return f"tls-floor {describe_end(program)}"
        return floor.read(json_file)
    except (Failed, ValueError) as error:
        return str(error)
    finally:
        json_file.unlink(missing_ok=True)


def measure_floors(plan: Plan, cells: list[Cell], directory: Path, logs: str) -> dict[floor.Work, float | str]:
    """The limits that these cells of one round are held against. `logs` is where the logs go, up to their number: each
    work has one of its own, or the last line of one could be another's."""
    return {work: measure_floor(work, plan.cpus, directory / "floor.json", Path(f"{logs}-{number:02d}.log"))
            for number, work in enumerate(plan.floor_works(cells), start=1)}


@contextlib.contextmanager
def out_of_the_way(plan: Plan) -> Iterator[None]:
    """The runner itself reads clocks beside the load generator, never on the subject's CPUs as long as there are
    others."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {plan.cpus[-1]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def run(plan: Plan, logs: Path, finished: Callable[[Row], None], begun: Callable[[int, Cell], None]) -> None:
    """Every cell of every round that is left. `begun` hears of each before it is measured, `finished` gets each row."""
    version = {cell.subject: DRIVERS[cell.subject].version() for cell in plan.cells}
    with workspace() as temporary, out_of_the_way(plan):
        for repeat, cells in plan.left():
            floors = measure_floors(plan, cells, temporary, f"{logs}/floor-{repeat}")
            for number, cell in enumerate(cells, start=1):
                begun(repeat, cell)
                row: Row = {
                    "run_id": plan.run_id, "scenario": plan.scenario.name, "repeat": repeat,
                    "subject_version": version[cell.subject], **asked_row(cell)}
                name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{cell.label}-{cell.subject}")
                directory = temporary / f"{repeat}-{number}"
                directory.mkdir()
                placement, reason = plan.placement(cell), plan.obstacle(cell)
                if reason or placement is None:
                    row.update(status="skipped", reason=reason)
                else:
                    try:
                        row.update(measure(plan, cell, placement, directory, f"{logs}/{repeat}-{number:03d}-{name}",
                                           floor_limit(cell, floors)))
                    except Failed as error:
                        row.update(status="failed", reason=str(error), placement=str(placement))
                finished(row)
