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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import floor, sessions
from .cell import Cell, contradiction
from .certificates import certificate
from .loads import loadgen
from .placement import Placement, cpu_list, place
from .port import accepts, free_port
from .processes import Failed, Program, crew, describe_end, last_line, start, wait_until_ready
from .programs import built
from .record import Row, asked_row, measured_row
from .sampler import Sampler, read_tcp_counters
from .scenario import Scenario
from .subjects import DRIVERS, Driver, Task
from .verdict import SAME, Evidence, count_differences, judge
from .workspace import workspace

READY_LIMIT_S = 10.0
PORT_TRIES = 5
DRAIN_LIMIT_S = 15.0      # what the load may take beyond its window: connecting, the last answers, writing its result
COUNTERS_SETTLE_S = 1.0   # a server may count a connection a moment after its client has
POLL_S = 0.05
OVERHEAD_S = 0.3          # starting and stopping one cell, as estimated for people
SPARE_DESCRIPTORS = 200


@dataclass(frozen=True)
class Plan:
    run_id: str
    scenario: Scenario
    cells: list[Cell]
    cpus: tuple[int, ...]
    seed: int
    descriptors: int  # how many files a process may open

    def rounds(self) -> list[list[Cell]]:
        """The cells of each repeat in an order of its own: whatever drifts on the machine falls on all alike."""
        chooser = random.Random(self.seed)
        return [chooser.sample(self.cells, len(self.cells)) for _ in range(self.scenario.repeats)]

    def floor_works(self) -> list[floor.Work]:
        runnable = [cell for cell in self.cells if not self.obstacle(cell)]
        return list(dict.fromkeys(work for cell in runnable for work in floor.shares(cell)))

    def placement(self, cell: Cell) -> Placement | None:
        return place(cell, self.cpus, self.scenario.backend_beside)

    def obstacle(self, cell: Cell) -> str | None:
        """Why the cell cannot be measured here, or None."""
        driver = DRIVERS[cell.subject]
        if reason := contradiction(cell):
            return reason
        if self.placement(cell) is None:
            return f"needs {cell.cores} CPUs and may use {len(self.cpus)}"
        files = 2 * cell.connections + SPARE_DESCRIPTORS
        if files > self.descriptors:
            return f"needs {files} open files and may have {self.descriptors} (ulimit -Hn)"
        if driver.version() is None:
            return f"{cell.subject} is not installed"
        return driver.cannot(cell)

    def seconds(self) -> float:
        """How long it will take, about."""
        runnable = [cell for cell in self.cells if not self.obstacle(cell)]
        one = self.scenario.warmup_s + self.scenario.duration_s + OVERHEAD_S
        cells_s = len(runnable) * one + sum(cell.ramp_s for cell in runnable)
        return self.scenario.repeats * (cells_s + len(self.floor_works()) * (floor.DURATION_S + OVERHEAD_S))


def printed_address(program: Program, what: str) -> str | None:
    """The ADDR of a line `what ADDR` in the program's output."""
    found = re.search(rf"^{what} on (\S+)\n", program.log.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else None


def start_backend(cell: Cell, placement: Placement, directory: Path, log: Path, programs: list[Program]) -> str:
    """Returns its address."""
    listen = ["http", "-l", "127.0.0.1:0"] if cell.backend == "tcp" else ["sock", "-l", str(directory / "backend.sock")]
    workers = ["-n", str(len(placement.backend)), "--cpus", cpu_list(placement.backend)]
    command = [str(built("echo-backend")), *listen, *workers]
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


def read_counters(address: str) -> dict[str, int]:
    """The subject's own account of its connections. Loopback only, so no proxy of the environment may come between."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/stats.json", timeout=2) as answer:
            counters = json.load(answer)
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
    at_end_kib = sampler.own_kib["subject"].last(begin, end)
    stolen_s = [series.growth(begin, end) for cpu, series in sampler.steal_s.items() if cpu in cpus]
    return Evidence(
        cell=cell, placement=placement, asked_s=scenario.duration_s, load=result,
        cpu_s={role: series.growth(begin, end) for role, series in sampler.cpu_s.items()},
        sample_gap_s=max(series.gap_s(moment) for series in sampler.cpu_s.values() for moment in (begin, end)),
        busy={cpu: (series.growth(begin, end) + sampler.steal_s[cpu].growth(begin, end)) / length_s
              for cpu, series in sampler.busy_s.items()},
        steal=max(stolen_s, default=0.0) / length_s,
        tcp=tcp, unpinned=tuple(sorted(strayed)), counted=counted,
        memory_kib=None if at_end_kib is None else (before_kib, at_end_kib))


def measure(plan: Plan, cell: Cell, placement: Placement, directory: Path, logs: str,
            limit: floor.Limit) -> Row:
    """One cell, from nothing running to nothing running. `logs` is where the logs go, up to their role."""
    with crew() as programs:
        backend = start_backend(cell, placement, directory, Path(f"{logs}-backend.log"), programs)
        task = Task(cell, placement.subject, certificate(cell.cert_key), backend, 0, directory)
        address = start_subject(DRIVERS[cell.subject], task, Path(f"{logs}-subject.log"), programs)
        serving = [programs[0], programs[-1]]
        try:
            evidence, rss_kib = put_load(plan.scenario, cell, placement, address, serving, programs, directory,
                                         Path(f"{logs}-client.log"))
        except Failed:
            # A server that died is why whatever came after it failed.
            check_alive(serving)
            raise
        return measured_row(evidence, judge(evidence), rss_kib, limit)


def put_load(scenario: Scenario, cell: Cell, placement: Placement, address: str, serving: list[Program],
             programs: list[Program], directory: Path, log: Path) -> tuple[Evidence, int]:
    """Loads what serves at the address; returns what was seen, and the subject's memory in KiB."""
    subject = serving[1]
    statistics = printed_address(subject, "stats") if DRIVERS[cell.subject].has_statistics else None
    before = read_counters(statistics) if statistics else {}
    tcp_before = read_tcp_counters()
    json_file = directory / "load.json"
    length_s = cell.ramp_s + scenario.warmup_s + scenario.duration_s
    before_kib = sum(sessions.memory_kib(pid)[1] for pid in sessions.members(subject.session))
    command = loadgen.command(cell, placement, address, scenario.duration_s, scenario.warmup_s, json_file)
    load = start("client", command, placement.client, log)
    programs.append(load)
    sampler = Sampler({program.role: program.session for program in (*serving, load)})
    sampler.start()
    try:
        strayed = watch(load, serving, length_s / 2, length_s + DRAIN_LIMIT_S)
    finally:
        sampler.stop()
    tcp = {name: value - tcp_before[name] for name, value in read_tcp_counters().items()}
    if load.popen.returncode not in loadgen.MEASURED:
        raise Failed(f"load generator {describe_end(load)}")
    try:
        result = loadgen.read(json_file)
    except ValueError as error:
        raise Failed(f"{error} ({last_line(load.log)})") from error
    counted = settled_counters(statistics, before, result.totals) if statistics else None
    evidence = gather(cell, placement, scenario, result, sampler, tcp, strayed, counted, before_kib)
    return evidence, sampler.resident_kib["subject"]


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


def measure_floors(plan: Plan, directory: Path, logs: str) -> dict[floor.Work, float | str]:
    """The limits that the cells of one round are held against. `logs` is where the logs go, up to their number: each
    work has one of its own, or the last line of one could be another's."""
    return {work: measure_floor(work, plan.cpus, directory / "floor.json", Path(f"{logs}-{number:02d}.log"))
            for number, work in enumerate(plan.floor_works(), start=1)}


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
    """Every cell of every round. `begun` hears of each before it is measured, `finished` gets each row."""
    version = {cell.subject: DRIVERS[cell.subject].version() for cell in plan.cells}
    with workspace() as temporary, out_of_the_way(plan):
        for repeat, cells in enumerate(plan.rounds(), start=1):
            floors = measure_floors(plan, temporary, f"{logs}/floor-{repeat}")
            for number, cell in enumerate(cells, start=1):
                begun(repeat, cell)
                row: Row = {
                    "run_id": plan.run_id, "scenario": plan.scenario.name, "repeat": repeat, "load_tool": "loadgen",
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
                                           floor.limit(cell, floors)))
                    except Failed as error:
                        row.update(status="failed", reason=str(error), placement=str(placement))
                finished(row)
