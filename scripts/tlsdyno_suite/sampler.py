"""CPU time, steal and memory of every role while the load runs, read from outside, so that a product that knows
nothing of this suite is measured in the same way as the reference.

On loopback the kernel does the receiver's network work (softirq) in the sender's system call: a role that sends pays
for part of the receiving of its peer. All subjects are alike in this, so they compare; the split between roles is not
that of two machines.

Processes are found once a second, so one that lives for less than that may never be seen and its CPU time is in no
role's. (Reading what a parent has from children it waited for would see it, ten milliseconds coarse.) No product here
forks for a connection; a driver for one that does needs another way to be measured. """
import os
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy

from . import sessions

TICK_S = 0.02         # CPU clocks of the processes: cheap, exact to the nanosecond
MACHINE_TICK_S = 0.2  # /proc/stat counts in hundredths of a second, and reading it costs more
MEMBERS_TICK_S = 1.0  # looking for new processes means reading all of /proc; memory is read as often
SETTLING_S = 0.5      # while a program forks its workers we look for them ten times as often
USER_HZ = os.sysconf("SC_CLK_TCK")


@dataclass
class Series:
    """A counter that only grows, with the times it was read at."""

    times_ns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, time_ns: int, value: float) -> None:
        self.times_ns.append(time_ns)
        self.values.append(value)

    def growth(self, begin_ns: int, end_ns: int) -> float:
        """Between two times, interpolated between the readings around each."""
        # Relative times: nanoseconds since 1970 are more than a double holds exactly.
        times = [time_ns - begin_ns for time_ns in self.times_ns]
        first, last = numpy.interp([0, end_ns - begin_ns], times, self.values)
        return float(last - first)

    def last(self, begin_ns: int, end_ns: int) -> float | None:
        """The last reading between two times; None when there is none."""
        between = [value for time_ns, value in zip(self.times_ns, self.values) if begin_ns <= time_ns <= end_ns]
        return between[-1] if between else None

    def gap_s(self, moment_ns: int) -> float:
        """How far the readings around a moment are apart; infinite when it lies outside of them."""
        before = [time_ns for time_ns in self.times_ns if time_ns <= moment_ns]
        after = [time_ns for time_ns in self.times_ns if time_ns >= moment_ns]
        return (after[0] - before[-1]) / 1e9 if before and after else float("inf")


def process_clock(pid: int) -> int:
    """The kernel's number for the CPU clock of another process, exact to the nanosecond (see
    clock_getcpuclockid(3))."""
    return ((~pid) << 3) | 2


def read_machine() -> dict[int, tuple[float, float]]:
    """For each CPU: seconds it worked and seconds the hypervisor took from it."""
    cpus = {}
    with Path("/proc/stat").open() as stat:
        for line in stat:
            if not line.startswith("cpu"):
                break
            if line[3].isdigit():
                name, *ticks = line.split()
                user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
                cpus[int(name[3:])] = ((user + nice + system + irq + softirq) / USER_HZ, steal / USER_HZ)
    return cpus


class Sampler(threading.Thread):
    """Reads until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.roles: dict[str, int] = {}
        self.cpu_s: dict[str, Series] = {}
        self.busy_s: dict[int, Series] = {}
        self.steal_s: dict[int, Series] = {}
        self.resident_kib: dict[str, int] = {}  # of roles that are weighed
        self.own_kib: dict[str, Series] = {}    # the same, without what is a file's
        self._clocks: dict[str, dict[int, float]] = {}
        self._ended = threading.Event()

    def add(self, roles: dict[str, int], weighed: Collection[str]) -> None:
        """Before the thread starts: programs that run already, with their sessions, and those whose memory is read."""
        for role, session in roles.items():
            self._add(role, session)
        for role in weighed:
            self.own_kib[role], self.resident_kib[role] = Series(), 0
        self._read_all()

    def _add(self, role: str, session: int) -> None:
        self.cpu_s[role], self._clocks[role] = Series(), {}
        self.roles[role] = session

    def add_new(self, role: str, session: int, before_ns: int) -> None:
        """One more role, before the thread starts: a program that had not begun at that time. On a busy machine its
        window may begin before anybody here has a CPU again; that it had used no time before it began is known."""
        self._add(role, session)
        self.cpu_s[role].add(before_ns, 0.0)

    def _read_all(self) -> None:
        self._find_members()
        self._read_roles()
        self._read_machine()

    def _find_members(self) -> None:
        members = sessions.all_members(self.roles.values())
        for role, session in self.roles.items():
            for pid in members[session]:
                self._clocks[role].setdefault(pid, 0.0)

    def _read_memory(self) -> None:
        """A page table takes its time: the clocks do not wait for those of all programs."""
        for role, series in self.own_kib.items():
            resident, own = map(sum, zip((0, 0), *map(sessions.memory_kib, self._clocks[role])))
            self.resident_kib[role] = max(self.resident_kib[role], resident)
            series.add(time.time_ns(), own)
            self._read_roles()

    def _read_roles(self) -> None:
        for role, clocks in self._clocks.items():
            for pid in clocks:
                try:
                    clocks[pid] = time.clock_gettime(process_clock(pid))
                except OSError:
                    pass  # it ended: what it used stays counted
            self.cpu_s[role].add(time.time_ns(), sum(clocks.values()))

    def _read_machine(self) -> None:
        now = time.time_ns()
        for cpu, (busy, steal) in read_machine().items():
            self.busy_s.setdefault(cpu, Series()).add(now, busy)
            self.steal_s.setdefault(cpu, Series()).add(now, steal)

    def run(self) -> None:
        machine_due = members_due = 0.0
        settled = time.monotonic() + SETTLING_S
        while not self._ended.wait(TICK_S):
            now = time.monotonic()
            if now >= members_due:
                self._find_members()
                members_due = now + (MEMBERS_TICK_S if now > settled else MEMBERS_TICK_S / 10)
                if now > settled:
                    self._read_memory()
            if now >= machine_due:
                self._read_machine()
                machine_due = now + MACHINE_TICK_S
            self._read_roles()

    def stop(self) -> None:
        self._ended.set()
        self.join()
        self._read_roles()
        self._read_memory()
        self._read_machine()


TCP_COUNTERS = ("ListenOverflows", "ListenDrops", "RetransSegs", "TCPLossProbes")


def read_tcp_counters(process: str = "self") -> dict[str, int]:
    """Counters of the whole machine that tell of connections or segments lost on the way, or of the network that a
    process is in."""
    counters: dict[str, int] = {}
    for path in (Path(f"/proc/{process}/net/netstat"), Path(f"/proc/{process}/net/snmp")):
        lines = path.read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2]):
            counters.update(zip(names.split()[1:], map(int, values.split()[1:])))
    return {name: counters.get(name, 0) for name in TCP_COUNTERS}
