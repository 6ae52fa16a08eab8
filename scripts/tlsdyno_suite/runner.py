"""Runs the cells of a plan one after the other and hands each finished row on. One cell: backend, subject, load,
verdict, all stopped."""
import contextlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import counters, farm, floor, network, search, sessions
from .cell import Cell, contradiction
from .certificates import certificate
from .failover import Failover
from .loads import loadgen, wrk
from .network import HERE, Network, Place
from .placement import Placement, cpu_list, place, place_external
from .port import accepts, free_port
from .processes import Failed, Program, crew, describe_end, last_line, start, stop, wait_until_ready
from .programs import built
from .record import Row, asked_row, measured_row, row_key
from .sampler import Sampler, read_tcp_counters
from .scenario import Scenario
from .sharing import told
from .subjects import DRIVERS, Driver, Task, is_loopback
from .verdict import Evidence, judge
from .workspace import workspace

READY_LIMIT_S = 10.0
PORT_TRIES = 5
DRAIN_LIMIT_S = 15.0      # what the load may take beyond its window: connecting, the last answers, writing its result
POLL_S = 0.05
OVERHEAD_S = 0.3          # starting and stopping one cell, as estimated for people
SPARE_DESCRIPTORS = 200
RESULT = "load.json"          # of the load generator, in the cell's directory
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
                         + (farm.OVERHEAD_S if cell.hosts > 1 else 0)
                         for cell in cells if not self.obstacle(cell))
            total += len(self.floor_works(cells)) * (floor.DURATION_S + OVERHEAD_S)
        return total


def printed_address(program: Program, what: str) -> str | None:
    """The ADDR of a line `what ADDR` in the program's output."""
    found = re.search(rf"^{what} on (\S+)\n", program.log.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else None


@dataclass
class Site:
    """What the load is put on, and where from."""

    addresses: tuple[str, ...]  # of the subject, or of each of its hosts
    serving: list[Program] = field(default_factory=list)  # programs of this run, hosts last; none of what runs already
    network: Network | None = None  # of several hosts

    @property
    def subjects(self) -> list[Program]:
        return [program for program in self.serving if program.role == "subject"]

    @property
    def outside(self) -> Place:
        return self.network.outside if self.network else HERE

    def tcp_counters(self) -> dict[str, int]:
        places = self.network.places if self.network else (HERE,)
        read = [read_tcp_counters(place.process) for place in places]
        return {name: sum(each[name] for each in read) for name in read[0]}


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
    farm.wait_until_met(cell, statistics_of(site), site.serving, check_alive)
    return site


def statistics_of(site: Site) -> list[str]:
    """Where its programs show their statistics, as far as they do."""
    return [address for program in site.subjects if (address := printed_address(program, "stats"))]


def unpinned(programs: list[Program]) -> set[str]:
    """Roles of which some thread may run elsewhere than it was told."""
    return {program.role for program in programs
            if any(sessions.allowed_cpus(pid) - set(program.cpus) for pid in sessions.members(program.session))}


def check_alive(programs: list[Program]) -> None:
    for program in programs:
        if program.popen.poll() is not None:
            raise Failed(f"{program.name} died in mid-run: it {describe_end(program)}")


def watch(load: Program, others: list[Program], check_at_s: float, limit_s: float, poll_s: float = POLL_S,
          look: Callable[[float], None] | None = None) -> set[str]:
    """Until the load (or tls-floor) ends. Failed when one of the others ends before it, or when it does not end.
    Returns the roles that were seen off their CPUs, looked at once in the midst of the load and once after it. `look`
    is called time and again; what it takes out of the others may end."""
    begin = time.monotonic()
    checked, strayed = False, set[str]()
    while load.popen.poll() is None:
        check_alive(others)
        elapsed = time.monotonic() - begin
        if look:
            look(elapsed)
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
           roles: dict[str, str], tcp: dict[str, int], strayed: set[str], before_kib: float) -> Evidence:
    """What was seen from outside. `roles` of the programs that were sampled, by name."""
    begin, end = result.started_ns, result.end_ns
    length_s = max(result.duration_s, 1e-9)
    cpus = {*placement.subject, *placement.client, *placement.backend}
    at_end_kib = sampler.own_kib["subject"].last(begin, end) if "subject" in sampler.own_kib else None
    stolen_s = [series.growth(begin, end) for cpu, series in sampler.steal_s.items() if cpu in cpus]
    # wrk ends with its window, and its clock with it.
    read = [series for name, series in sampler.cpu_s.items() if result.tells or name != "client"]
    cpu_s = dict.fromkeys(roles.values(), 0.0)
    for name, series in sampler.cpu_s.items():
        cpu_s[roles[name]] += series.growth(begin, end)
    if scenario.backend_beside == "within" and "backend" in cpu_s:
        cpu_s["subject"] += cpu_s.pop("backend")
    return Evidence(
        cell=cell, placement=placement, asked_s=scenario.duration_s, load=result,
        cpu_s=cpu_s,
        sample_gap_s=max(series.gap_s(moment) for series in read for moment in (begin, end)),
        busy={cpu: (series.growth(begin, end) + sampler.steal_s[cpu].growth(begin, end)) / length_s
              for cpu, series in sampler.busy_s.items()},
        steal=max(stolen_s, default=0.0) / length_s,
        tcp=tcp, unpinned=tuple(sorted(strayed)), counted=None, external=DRIVERS[cell.subject].external,
        plain=DRIVERS[cell.subject].plain,
        resumes=DRIVERS[cell.subject].resumes,
        memory_kib=None if at_end_kib is None else (before_kib, at_end_kib))


def measure(plan: Plan, cell: Cell, placement: Placement, directory: Path, logs: str,
            limit: floor.Limit) -> Row:
    """One cell, from nothing running to nothing running. `logs` is where the logs go, up to their role."""
    with crew() as programs:
        if DRIVERS[cell.subject].external:
            evidence, rss_kib = put_load(plan, cell, placement, Site((plan.external,)), programs, directory,
                                         Path(f"{logs}-client.log"))
            return measured_row(evidence, judge(evidence), rss_kib, limit)
        driver, backend = DRIVERS[cell.subject], ""
        if cell.hosts > 1:
            site = start_hosts(plan, cell, placement, directory, logs, programs)
        else:
            if not driver.origin:
                backend = start_backend(cell, placement, directory, Path(f"{logs}-backend.log"), programs)
            task = Task(cell, placement.subject, certificate(cell.cert_key), backend, 0, directory)
            address = start_subject(driver, task, Path(f"{logs}-subject.log"), programs)
            site = Site((address,), list(programs))
        try:
            put = seek if cell.searches else put_load
            evidence, rss_kib = put(plan, cell, placement, site, programs, directory, Path(f"{logs}-client.log"))
        except Failed:
            # A server that died is why whatever came after it failed.
            check_alive(site.serving)
            raise
        if cell.service_model != "none" and backend:
            evidence = replace(evidence, service_mean_ms=counters.service_mean_ms(backend))
        return {**measured_row(evidence, judge(evidence), rss_kib, limit), **article_row(cell, directory)}


def article_row(cell: Cell, directory: Path) -> Row:
    """The row that wrk's script wrote; it goes into a file of its own."""
    if cell.load_tool != "wrk":
        return {}
    try:
        return {ARTICLE_ROW: wrk.row_file(directory / RESULT).read_text().strip()}
    except OSError as error:
        raise Failed(f"wrk's script left no row: {error.strerror}") from error


def seek(plan: Plan, cell: Cell, placement: Placement, site: Site, programs: list[Program], directory: Path,
         log: Path) -> tuple[Evidence, int]:
    """As put_load, at the highest rate that meets the cell's criterion."""
    wanted = search.criterion(cell.loop)

    def at(loop: str) -> tuple[Evidence, int]:
        (directory / RESULT).unlink(missing_ok=True)
        seen = put_load(plan, replace(cell, loop=loop), placement, site, programs, directory, log)
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


def load_command(plan: Plan, cell: Cell, placement: Placement, site: Site, json_file: Path) -> list[str]:
    scenario, plain = plan.scenario, DRIVERS[cell.subject].plain
    address, *others = site.addresses
    if cell.load_tool == "wrk":
        url = f"{'http' if plain else 'https'}://{address}"
        return wrk.command(cell, placement, url, scenario.duration_s, json_file)
    # What is in a network that was made for it is ours, wherever it seems to be.
    return loadgen.command(cell, placement, address, scenario.duration_s, scenario.warmup_s, json_file,
                           plan.owned or site.network is not None, plain, others)


def put_load(plan: Plan, cell: Cell, placement: Placement, site: Site, programs: list[Program], directory: Path,
             log: Path) -> tuple[Evidence, int]:
    """Returns what was seen, and the subject's memory in KiB."""
    scenario = plan.scenario
    counts = DRIVERS[cell.subject].has_statistics and cell.load_tool == "loadgen"  # wrk has none to compare them with
    statistics = statistics_of(site) if counts else []
    before = [counters.read(each) for each in statistics]
    tcp_before = site.tcp_counters()
    json_file = directory / RESULT
    tool = wrk if cell.load_tool == "wrk" else loadgen
    length_s = cell.lead_s + scenario.warmup_s + scenario.duration_s
    before_kib = sum(sessions.memory_kib(pid)[1] for program in site.subjects
                     for pid in sessions.members(program.session))
    roles = {program.name: program.role for program in site.serving if program.role != "network"}
    sampler = Sampler({program.name: program.session for program in site.serving if program.name in roles})
    window_s = (length_s - scenario.duration_s, length_s)
    failover = Failover(site.serving, statistics, window_s) if cell.fails_over else None
    before_ns = time.time_ns()
    load = start("client", load_command(plan, cell, placement, site, json_file), placement.client, log,
                 site.outside.within)
    programs.append(load)
    roles[load.name] = load.role
    sampler.add_new(load.name, load.session, before_ns)
    sampler.start()
    try:
        strayed = watch(load, site.serving, 0.05 if cell.bursts else length_s / 2, length_s + DRAIN_LIMIT_S,
                        look=failover.look if failover else None)
    finally:
        sampler.stop()
    tcp = {name: value - tcp_before[name] for name, value in site.tcp_counters().items()}
    if load.popen.returncode not in tool.MEASURED:
        raise Failed(f"load generator {describe_end(load)}")
    try:
        result = wrk.read(json_file) if tool is wrk else loadgen.read(json_file, DRIVERS[cell.subject].plain)
    except ValueError as error:
        raise Failed(f"{error} ({last_line(load.log)})") from error
    evidence = gather(cell, placement, scenario, result, sampler, roles, tcp, strayed, before_kib)
    if failover:
        evidence = replace(evidence, takeover=failover.takeover(sampler))
    elif statistics:
        after = counters.settled(statistics, before, result.totals)
        evidence = replace(evidence, counted=counters.growth(before, after),
                           hosts=tuple(map(told, before, after)) if site.network else ())
    evidence = replace(evidence, network=site.network.kind if site.network else "")
    return evidence, sum(kib for name, kib in sampler.resident_kib.items() if roles[name] == "subject")


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
