"""Runs the cells of a plan, one after the other or those of a group at once, and hands each finished row on. One cell:
backend, subject, load, verdict, all stopped."""
import contextlib
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from . import counters, farm, floor, network, search
from .cell import Cell, contradiction, parameters
from .certificates import certificate
from .loading import DRAIN_LIMIT_S, RESULT, Loading, Site, check_alive, printed_address, wait, watch
from .loads import wrk
from .network import HERE, Place
from .placement import Placement, cpu_list, place, place_external
from .port import accepts, free_port
from .processes import Failed, Program, crew, describe_end, start, stop, undisturbed, wait_until_ready
from .programs import built
from .record import Row, asked_row, measured_row, row_key
from .sampler import Sampler
from .scenario import Scenario
from .subjects import DRIVERS, Driver, Task, is_loopback
from .verdict import Evidence, judge
from .workspace import workspace

READY_LIMIT_S = 10.0
PORT_TRIES = 5
OVERHEAD_S = 0.3          # starting and stopping one cell, as estimated for people
SPARE_DESCRIPTORS = 200
CLOSED_S = 2.0            # of the closed loop that says what a share of the subject's rate is
CLOSED_CONNECTIONS = 32   # of that, at most: as many keep a subject busy
ARTICLE_ROW = "article_row"   # key of a row's line for the article's own CSV; no column of results.csv


Key = tuple[str, ...]  # of a row: its repeat, and what was asked


def key(repeat: int, cell: Cell) -> Key:
    return row_key({"repeat": repeat, **asked_row(cell)})


def floor_shares(cell: Cell) -> dict[floor.Work, float]:
    driver = DRIVERS[cell.subject]
    return floor.shares(cell, driver.resumes) if has_floor(cell) else {}


def floor_limit(cell: Cell, floors: dict[floor.Work, float | str]) -> floor.Limit:
    driver = DRIVERS[cell.subject]
    return floor.limit(cell, floors, driver.resumes) if has_floor(cell) else floor.Limit(None, "", "")


def has_floor(cell: Cell) -> bool:
    """Not a subject whose CPU time is not seen, for nothing would be held against it, nor one without TLS; nor several
    hosts, whose share of full handshakes is what is to be found out."""
    driver = DRIVERS[cell.subject]
    return not driver.external and not driver.plain and cell.hosts == 1


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

    def groups(self, cells: list[Cell]) -> list[list[Cell]]:
        """Those of these cells that are measured at once, in the order of their first ones; most often each alone."""
        found: dict[tuple[object, ...], list[Cell]] = {}
        for number, cell in enumerate(cells):
            values: dict[str, object] = {"subject": cell.subject, **parameters(cell)}
            # Other CPUs, or another time to get ready in, cannot be at once, whatever the scenario names.
            apart = (cell.cores, cell.lead_s,
                     *(value for name, value in values.items() if name not in self.scenario.at_once))
            found.setdefault(apart if self.has_company(cell) else (number,), []).append(cell)
        return list(found.values())

    def has_company(self, cell: Cell) -> bool:
        """Only where each subject takes what CPU time it gets: who is asked for more than its share falls behind."""
        return bool(self.scenario.at_once) and cell.loop == "closed" and cell.hosts == 1 and \
            cell.load_tool == "loadgen" and not DRIVERS[cell.subject].external and not self.obstacle(cell)

    def rounds(self) -> list[list[Cell]]:
        """The cells of each repeat in an order of its own: whatever drifts on the machine falls on all alike. Those of
        a group are beside each other."""
        chooser = random.Random(self.seed)
        groups = self.groups(self.cells)
        return [[cell for group in chooser.sample(groups, len(groups)) for cell in chooser.sample(group, len(group))]
                for _ in range(self.scenario.repeats)]

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
        if cell.hosts > 1 and not driver.farms:
            return f"{cell.subject} is measured as one host only"
        if cell.hosts > 1 and (reason := network.obstacle(self.scenario.network)):
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
            total += sum((search.PROBES if cell.searches else 1) * one + cell.lead_s
                         + (self.scenario.warmup_s + CLOSED_S + OVERHEAD_S if cell.rate_share else 0)
                         + (farm.OVERHEAD_S if cell.hosts > 1 else 0)
                         for cell, *_ in self.groups(cells) if not self.obstacle(cell))
            total += len(self.floor_works(cells)) * (floor.DURATION_S + OVERHEAD_S)
        return total


def start_backend(cell: Cell, placement: Placement, directory: Path, log: Path, programs: list[Program],
                  where: Place = HERE) -> str:
    """Returns its address."""
    listen = (["http", "-l", f"{where.address}:0"] if cell.backend == "tcp" else
              ["sock", "-l", str(directory / "backend.sock")])
    workers = ["-n", str(len(placement.backend)), "--cpus", cpu_list(placement.backend)]
    model = ["--service-model", cell.service_model] if cell.service_model != "none" else []
    command = [str(built("echo-backend")), *listen, *workers, *model]
    program = start("backend", command, placement.backend, log, where.within)
    programs.append(program)
    wait_until_ready(program, lambda: printed_address(program, "listening") is not None, READY_LIMIT_S)
    return printed_address(program, "listening") or ""


def start_subject(driver: Driver, task: Task, log: Path, programs: list[Program], where: Place = HERE,
                  name: str = "") -> str:
    """Returns its address. Tries other ports when somebody took the one it was given."""
    if driver.reports_address:
        program = start("subject", driver.command(task), task.cpus, log, where.within, name)
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
            stop(program)
            programs.remove(program)  # whatever is in it has to live
            log.unlink()
    raise AssertionError("the loop returns or raises")


def start_hosts(plan: Plan, cell: Cell, placement: Placement, directory: Path, logs: str,
                programs: list[Program]) -> Site:
    """The backend and several hosts of the subject, each where it belongs, when they know each other."""
    joined = network.make(plan.scenario.network, cell.hosts, placement.client, directory, programs)
    backend = start_backend(cell, placement, directory, Path(f"{logs}-backend.log"), programs, joined.outside)
    before = len(programs)

    def begin(number: int, sharing: tuple[str, ...]) -> str:
        host, name = joined.hosts[number], f"host {number + 1}"
        task = Task(cell, placement.hosts[number], certificate(cell.cert_key), backend, 0, directory, host.address,
                    str(directory / f"host-{number + 1}.sock"), sharing)
        return start_subject(DRIVERS[cell.subject], task, Path(f"{logs}-{name.replace(' ', '-')}.log"), programs, host,
                             name)

    def undo() -> None:
        while len(programs) > before:
            stop(programs[-1])
            programs.pop().log.unlink()

    addresses = farm.start(cell, joined, begin, undo)
    site = Site(tuple(addresses), list(programs), joined)
    farm.wait_until_met(cell, site.statistics, site.serving, check_alive)
    return site


@dataclass(frozen=True)
class Work:
    """A cell that is to be measured."""

    cell: Cell
    placement: Placement
    directory: Path       # of its own
    logs: str             # where its logs go, up to their role
    limit: floor.Limit


Seen = tuple[Evidence, int]  # and the subject's memory in KiB
Done = TypeVar("Done")


def attempt(do: Callable[..., Done], *arguments: object) -> Done | Failed:
    """In company one that fails is no reason for the others to."""
    try:
        return do(*arguments)
    except Failed as error:
        return error


def start_site(plan: Plan, work: Work, programs: list[Program]) -> Site:
    cell, driver = work.cell, DRIVERS[work.cell.subject]
    if driver.external:
        return Site((plan.external,))
    if cell.hosts > 1:
        return start_hosts(plan, cell, work.placement, work.directory, work.logs, programs)
    backend, before = "", len(programs)
    if not driver.origin:
        backend = start_backend(cell, work.placement, work.directory, Path(f"{work.logs}-backend.log"), programs)
    task = Task(cell, work.placement.subject, certificate(cell.cert_key), backend, 0, work.directory)
    address = start_subject(driver, task, Path(f"{work.logs}-subject.log"), programs)
    return Site((address,), programs[before:], backend=backend)


def put_loads(plan: Plan, loads: list[tuple[Work, Site]], programs: list[Program]) -> list[Seen | Failed]:
    """All at once, from the start of the first to the end of the last."""
    sampler = Sampler()

    def ready(number: int, work: Work, site: Site) -> Loading:
        return Loading(plan.scenario, work.cell, work.placement, site, sampler, f"{number} " if len(loads) > 1 else "",
                       plan.owned, work.directory, Path(f"{work.logs}-client.log"), programs)

    def begin(loading: Loading) -> Loading:
        loading.begin()
        return loading

    prepared = [attempt(ready, number, *each) for number, each in enumerate(loads)]
    begun = [attempt(begin, each) if isinstance(each, Loading) else each for each in prepared]
    wait([loading for loading in begun if isinstance(loading, Loading)], sampler)
    return beside([attempt(each.seen) if isinstance(each, Loading) else each for each in begun])


def beside(seen: list[Seen | Failed]) -> list[Seen | Failed]:
    """What was seen at once, each with how much of its window was everybody's. One that failed has none."""
    windows = [(each[0].load.started_ns, each[0].load.end_ns) for each in seen if not isinstance(each, Failed)]
    if len(windows) < 2:
        return seen
    common_ns = max(0, min(end for _, end in windows) - max(begin for begin, _ in windows))

    def told(seen: Seen) -> Seen:
        evidence, rss_kib = seen
        length_ns = evidence.load.end_ns - evidence.load.started_ns
        return replace(evidence, together=common_ns / max(length_ns, 1)), rss_kib

    return [each if isinstance(each, Failed) else told(each) for each in seen]


def row_of(work: Work, site: Site, seen: Seen | Failed) -> Row:
    if isinstance(seen, Failed):
        # A server that died is why whatever came after it failed.
        check_alive(site.serving)
        raise seen
    evidence, rss_kib = seen
    if work.cell.service_model != "none" and site.backend:
        evidence = replace(evidence, service_mean_ms=counters.service_mean_ms(site.backend))
    return {**measured_row(evidence, judge(evidence), rss_kib, work.limit), **article_row(work.cell, work.directory)}


def with_rate(plan: Plan, work: Work, share: float) -> Work:
    """The same with a rate that is this share of what the subject does, as a closed loop has just found on a site of
    its own. Machines differ, and one may be half as fast again an hour later. Where a host is to die, it is what the
    others do: who plans for that asks all hosts for no more."""
    directory = work.directory / "closed"
    directory.mkdir()
    cell = replace(work.cell, loop="closed", connections=min(work.cell.connections, CLOSED_CONNECTIONS))
    closed = replace(work, cell=cell, directory=directory, logs=f"{work.logs}-closed")
    shorter = replace(plan, scenario=replace(plan.scenario, duration_s=CLOSED_S))
    with crew() as programs:
        site = start_site(shorter, closed, programs)
        if cell.fails_over:
            left = site.addresses[:-1]
            closed = replace(closed, cell=replace(cell, failover="none", spread=cell.spread if left[1:] else "turn"))
            site = replace(site, addresses=left)
        seen, = put_loads(shorter, [(closed, site)], programs)
    if isinstance(seen, Failed):
        raise seen
    done = seen[0].load.rates.get("transactions_per_s")
    if not done:
        raise Failed("nothing was answered in a closed loop")
    return replace(work, cell=work.cell.at_rate(max(1, round(share * done))))


def measure(plan: Plan, works: list[Work]) -> list[Row | Failed]:
    """Cells that belong together, from nothing running to nothing running."""
    if share := works[0].cell.rate_share:  # never in company, as no open loop is
        paced = attempt(with_rate, plan, works[0], share)
        if isinstance(paced, Failed):
            return [paced]
        works = [paced]
    with crew() as programs:
        sites = [attempt(start_site, plan, work, programs) for work in works]
        ready = [(work, site) for work, site in zip(works, sites) if isinstance(site, Site)]
        if ready and ready[0][0].cell.searches:
            sought = attempt(seek, plan, *ready[0], programs)
            seen: list[Seen | Failed] = [sought]
        else:
            seen = put_loads(plan, ready, programs)
        found = iter([attempt(row_of, work, site, what) for (work, site), what in zip(ready, seen)])
        if len(works) > 1:
            for program in programs:  # all at once: each takes a while to notice that nobody is there any more
                program.popen.terminate()
        return [site if isinstance(site, Failed) else next(found) for site in sites]


def article_row(cell: Cell, directory: Path) -> Row:
    """The row that wrk's script wrote; it goes into a file of its own."""
    if cell.load_tool != "wrk":
        return {}
    try:
        return {ARTICLE_ROW: wrk.row_file(directory / RESULT).read_text().strip()}
    except OSError as error:
        raise Failed(f"wrk's script left no row: {error.strerror}") from error


def seek(plan: Plan, work: Work, site: Site, programs: list[Program]) -> Seen:
    """What was seen at the highest rate that meets the cell's criterion."""
    wanted = search.criterion(work.cell.loop)

    def at(loop: str) -> Seen:
        (work.directory / RESULT).unlink(missing_ok=True)
        seen, = put_loads(plan, [(replace(work, cell=replace(work.cell, loop=loop)), site)], programs)
        if isinstance(seen, Failed):
            raise seen
        stop(programs.pop())  # the load generator that has ended
        return seen

    def probe(rate: int) -> tuple[Seen, bool]:
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
    return replace(shown[0], cell=work.cell, beyond=beyond, met=found.best is not None), shown[1]


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


def prepare(plan: Plan, cell: Cell, company: int, floors: dict[floor.Work, float | str], directory: Path,
            logs: str) -> tuple[Row, Work | None]:
    """The row as far as it is known before, and what is to be measured, if it can be."""
    placement, reason = plan.placement(cell), plan.obstacle(cell)
    if reason or placement is None:
        return {"status": "skipped", "reason": reason}, None
    directory.mkdir()
    # An earlier part of this run may have left logs of these names, with addresses that are nobody's now.
    for role in ("backend", "subject", "client", "host-*", "closed-*"):
        for stale in Path(logs).parent.glob(f"{Path(logs).name}-{role}.log"):
            stale.unlink()
    return {}, Work(cell, replace(placement, company=company), directory, logs, floor_limit(cell, floors))


def run_group(plan: Plan, repeat: int, first: int, group: list[Cell], floors: dict[floor.Work, float | str],
              directory: Path, logs: Path) -> list[Row]:
    """`first`: the number of the first cell in its round."""
    rows: list[Row] = []
    works: list[tuple[Row, Work]] = []
    for number, cell in enumerate(group, start=first):
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{cell.label}-{cell.subject}")
        row, work = prepare(plan, cell, len(group) - 1, floors, directory / f"{repeat}-{number}",
                            f"{logs}/{repeat}-{number:03d}-{name}")
        rows.append({"run_id": plan.run_id, "scenario": plan.scenario.name, "repeat": repeat,
                     "subject_version": DRIVERS[cell.subject].version(), **asked_row(cell), **row})
        if work:
            works.append((rows[-1], work))
    measured = measure(plan, [work for _, work in works]) if works else []
    for (row, work), seen in zip(works, measured):
        row.update(seen if not isinstance(seen, Failed) else {
            "status": "failed", "reason": str(seen), "placement": str(work.placement)})
    return rows


def run(plan: Plan, logs: Path, finished: Callable[[Row], None], begun: Callable[[int, Cell], None]) -> None:
    """Every cell of every round that is left. `begun` hears of each before it is measured, `finished` gets each row."""
    with workspace() as temporary, out_of_the_way(plan):
        for repeat, cells in plan.left():
            floors = measure_floors(plan, cells, temporary, f"{logs}/floor-{repeat}")
            number = 1
            for group in plan.groups(cells):
                for cell in group:
                    begun(repeat, cell)
                rows = run_group(plan, repeat, number, group, floors, temporary, logs)
                with undisturbed():  # what is left of a group would be measured in other company
                    for row in rows:
                        finished(row)
                number += len(group)
