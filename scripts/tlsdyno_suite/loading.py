"""A load that is put on a subject: begun, watched until it ends, and what was seen of it from outside."""
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import counters, sessions
from .cell import Cell
from .failover import Failover
from .loads import loadgen, wrk
from .network import HERE, Network, Place
from .placement import Placement
from .processes import Failed, Program, describe_end, last_line, start
from .sampler import Sampler, read_tcp_counters
from .scenario import Scenario
from .sharing import told
from .subjects import DRIVERS
from .verdict import Evidence

DRAIN_LIMIT_S = 15.0      # what the load may take beyond its window: connecting, the last answers, writing its result
POLL_S = 0.05
RESULT = "load.json"      # of the load generator, in the cell's directory


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
    backend: str = ""           # address of the one that was started for it

    @property
    def subjects(self) -> list[Program]:
        return [program for program in self.serving if program.role == "subject"]

    @property
    def outside(self) -> Place:
        return self.network.outside if self.network else HERE

    @property
    def statistics(self) -> list[str]:
        """Where its programs show their statistics, as far as they do."""
        return [address for program in self.subjects if (address := printed_address(program, "stats"))]

    def tcp_counters(self) -> dict[str, int]:
        places = self.network.places if self.network else (HERE,)
        read = [read_tcp_counters(place.process) for place in places]
        return {name: sum(each[name] for each in read) for name in read[0]}


def unpinned(programs: list[Program]) -> set[str]:
    """Roles of which some thread may run elsewhere than it was told."""
    return {program.role for program in programs
            if any(sessions.allowed_cpus(pid) - set(program.cpus) for pid in sessions.members(program.session))}


def check_alive(programs: list[Program]) -> None:
    for program in programs:
        if program.popen.poll() is not None:
            raise Failed(f"{program.name} died in mid-run: it {describe_end(program)}")


class Watch:
    """Over a load (or tls-floor) and what it is put on, from now until it ends."""

    def __init__(self, load: Program, others: list[Program], check_at_s: float, limit_s: float,
                 look: Callable[[float], None] | None = None) -> None:
        """`look` is called time and again; what it takes out of the others may end."""
        self._load, self._others, self._check_at_s, self._limit_s, self._look = load, others, check_at_s, limit_s, look
        self._begin = time.monotonic()
        self.strayed: set[str] = set()  # roles seen off their CPUs: once in the midst of the load, and once after it

    def goes_on(self) -> bool:
        """To be asked often. Failed when one of the others ends before the load, or when that does not end."""
        if self._load.popen.poll() is not None:
            check_alive(self._others)
            self.strayed |= unpinned(self._others)
            return False
        check_alive(self._others)
        elapsed = time.monotonic() - self._begin
        if self._look:
            self._look(elapsed)
        if elapsed > self._limit_s:
            name = {"client": "load generator", "floor": "tls-floor"}[self._load.role]
            raise Failed(f"{name} did not end within {self._limit_s:g} s")
        if elapsed > self._check_at_s:
            self.strayed |= unpinned([self._load, *self._others])
            self._check_at_s = math.inf
        return True


def watch(load: Program, others: list[Program], check_at_s: float, limit_s: float, poll_s: float = POLL_S) -> set[str]:
    """Until it ends; the roles that were seen off their CPUs."""
    watching = Watch(load, others, check_at_s, limit_s)
    while watching.goes_on():
        time.sleep(poll_s)
    return watching.strayed


class Loading:
    """One load on one site, from its preparation to what was seen."""

    def __init__(self, scenario: Scenario, cell: Cell, placement: Placement, site: Site, sampler: Sampler, prefix: str,
                 owned: bool, directory: Path, log: Path, programs: list[Program]) -> None:
        """Makes ready for `begin`: the sampler knows the programs by their names with this prefix. `owned`: the target
        need not be on this machine."""
        self._scenario, self._cell, self._placement, self._site = scenario, cell, placement, site
        self._sampler, self._prefix = sampler, prefix
        self._json_file, self._log, self._owned = directory / RESULT, log, owned
        self._programs = programs
        # wrk has no counters to compare the subject's with.
        counts = DRIVERS[cell.subject].has_statistics and cell.load_tool == "loadgen"
        self._statistics = site.statistics if counts else []
        self._counted_before = [counters.read(each) for each in self._statistics]
        self._tcp_before = site.tcp_counters()
        self._before_kib = sum(sessions.memory_kib(pid)[1] for program in site.subjects
                               for pid in sessions.members(program.session))
        sampled = {prefix + program.name: program for program in site.serving if program.role != "network"}
        self._roles = {name: program.role for name, program in sampled.items()}
        sampler.add({name: program.session for name, program in sampled.items()},
                    [name for name, role in self._roles.items() if role == "subject"])
        self._failure: Failed | None = None
        self._ended = False

    def begin(self) -> None:
        """Starts the load, not the sampler. Nothing else takes its time here, for others are to begin with it."""
        scenario, cell, serving = self._scenario, self._cell, self._site.serving
        length_s = cell.lead_s + scenario.warmup_s + scenario.duration_s
        window_s = (length_s - scenario.duration_s, length_s)
        self._failover = Failover(serving, self._statistics, window_s) if cell.fails_over else None
        before_ns = time.time_ns()
        self._load = start("client", self._command(), self._placement.client, self._log, self._site.outside.within)
        self._programs.append(self._load)
        name = self._prefix + self._load.name
        self._roles[name] = self._load.role
        self._sampler.add_new(name, self._load.session, before_ns)
        self._watch = Watch(self._load, serving, 0.05 if cell.bursts else length_s / 2, length_s + DRAIN_LIMIT_S,
                            look=self._failover.look if self._failover else None)

    def _command(self) -> list[str]:
        scenario, cell, plain = self._scenario, self._cell, DRIVERS[self._cell.subject].plain
        address, *others = self._site.addresses
        if cell.load_tool == "wrk":
            url = f"{'http' if plain else 'https'}://{address}"
            return wrk.command(cell, self._placement, url, scenario.duration_s, self._json_file)
        # What is in a network that was made for it is ours, wherever it seems to be.
        return loadgen.command(cell, self._placement, address, scenario.duration_s, scenario.warmup_s, self._json_file,
                               self._owned or self._site.network is not None, plain, others)

    def goes_on(self) -> bool:
        """To be asked often. What goes wrong is kept for whoever asks what was seen."""
        if self._ended:
            return False
        try:
            if self._watch.goes_on():
                return True
        except Failed as error:
            self._failure = error
        self._ended = True
        return False

    def seen(self) -> tuple[Evidence, int]:
        """After the end: what was seen, and the subject's memory in KiB."""
        if self._failure:
            raise self._failure
        tcp = {name: value - self._tcp_before[name] for name, value in self._site.tcp_counters().items()}
        tool = wrk if self._cell.load_tool == "wrk" else loadgen
        if self._load.popen.returncode not in tool.MEASURED:
            raise Failed(f"load generator {describe_end(self._load)}")
        try:
            plain = DRIVERS[self._cell.subject].plain
            result = wrk.read(self._json_file) if tool is wrk else loadgen.read(self._json_file, plain)
        except ValueError as error:
            raise Failed(f"{error} ({last_line(self._load.log)})") from error
        evidence = self._gather(result, tcp)
        if self._failover:
            evidence = replace(evidence, takeover=self._failover.takeover(self._sampler))
        elif self._statistics:
            after = counters.settled(self._statistics, self._counted_before, result.totals)
            evidence = replace(evidence, counted=counters.growth(self._counted_before, after),
                               hosts=tuple(map(told, self._counted_before, after)) if self._site.network else ())
        subjects = [name for name, role in self._roles.items() if role == "subject"]
        return evidence, sum(self._sampler.resident_kib[name] for name in subjects)

    def _gather(self, result: loadgen.Result, tcp: dict[str, int]) -> Evidence:
        cell, placement, sampler = self._cell, self._placement, self._sampler
        begin, end = result.started_ns, result.end_ns
        length_s = max(result.duration_s, 1e-9)
        cpus = {*placement.subject, *placement.client, *placement.backend}
        own_kib = sampler.own_kib.get(self._prefix + "subject")
        at_end_kib = own_kib.last(begin, end) if own_kib else None
        stolen_s = [series.growth(begin, end) for cpu, series in sampler.steal_s.items() if cpu in cpus]
        # wrk ends with its window, and its clock with it.
        read = [sampler.cpu_s[name] for name, role in self._roles.items() if result.tells or role != "client"]
        cpu_s = dict.fromkeys(self._roles.values(), 0.0)
        for name, role in self._roles.items():
            cpu_s[role] += sampler.cpu_s[name].growth(begin, end)
        if self._scenario.backend_beside == "within" and "backend" in cpu_s:
            cpu_s["subject"] += cpu_s.pop("backend")
        return Evidence(
            cell=cell, placement=placement, asked_s=self._scenario.duration_s, load=result,
            cpu_s=cpu_s,
            sample_gap_s=max(series.gap_s(moment) for series in read for moment in (begin, end)),
            busy={cpu: (series.growth(begin, end) + sampler.steal_s[cpu].growth(begin, end)) / length_s
                  for cpu, series in sampler.busy_s.items()},
            steal=max(stolen_s, default=0.0) / length_s,
            tcp=tcp, unpinned=tuple(sorted(self._watch.strayed)), counted=None,
            external=DRIVERS[cell.subject].external, plain=DRIVERS[cell.subject].plain,
            resumes=DRIVERS[cell.subject].resumes,
            network=self._site.network.kind if self._site.network else "",
            memory_kib=None if at_end_kib is None else (self._before_kib, at_end_kib))


def wait(loadings: list[Loading], sampler: Sampler) -> None:
    """Until all have ended. No clock is read any more then."""
    sampler.start()
    try:
        while [loading for loading in loadings if loading.goes_on()]:
            time.sleep(POLL_S)
    finally:
        sampler.stop()
