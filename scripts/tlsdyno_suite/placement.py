"""Who runs on which CPU. The subject has the first CPUs, the client the last one, the backend sits beside one of
them."""
from dataclasses import dataclass

from .cell import Cell
from .refusal import Refused
from .scenario import Scenario


@dataclass(frozen=True)
class Placement:
    subject: tuple[int, ...]
    client: tuple[int, ...]
    backend: tuple[int, ...]
    hosts: tuple[tuple[int, ...], ...] = ()  # of several hosts of the subject: the CPUs of each
    company: int = 0  # so many other cells are measured at the same time, on the same CPUs

    @property
    def overlapped(self) -> tuple[int, ...]:
        """CPUs where the load generator and the subject fight for time: no rate measured there is the subject's."""
        return tuple(sorted(set(self.subject) & set(self.client)))

    def __str__(self) -> str:
        homes = {"subject": self.subject, "client": self.client, "backend": self.backend}
        roles = [f"{role} {cpu_list(cpus)}" for role, cpus in homes.items() if cpus]
        if self.hosts:
            each = "each" if len(set(self.hosts)) > 1 else "together"
            roles[0] += f" ({len(self.hosts)} hosts, {len(self.hosts[0])} {each})"
        beside = f"; at once with {self.company} more" if self.company else ""
        return "; ".join(roles) + ("; overlapped" if self.overlapped else "") + beside


def cpu_list(cpus: tuple[int, ...]) -> str:
    """`0-2,5`, as taskset and the C programs take it."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def usable(scenario: Scenario, available: set[int]) -> tuple[int, ...]:
    """The CPUs of the scenario, or all that this process was given; never one that it was not given."""
    if scenario.cpus is None:
        return tuple(sorted(available))
    for cpu in scenario.cpus:
        if cpu not in available:
            given = cpu_list(tuple(available))
            raise Refused(scenario.path, "placement.cpus", f"there is no CPU {cpu} for this process (it has {given})")
    return scenario.cpus


def place_external(cpus: tuple[int, ...], here: bool) -> Placement:
    """For a subject that runs already: the load generator has the last CPU, as ever, or all when it is elsewhere."""
    return Placement((), cpus[-1:] if here else cpus, ())


def place(cell: Cell, cpus: tuple[int, ...], backend_beside: str) -> Placement | None:
    """None when the cell asks for more cores than there are."""
    if cell.cores > len(cpus):
        return None
    hosts = place_hosts(cell, cpus)
    subject = tuple(dict.fromkeys(cpu for host in hosts for cpu in host)) or cpus[:cell.cores]
    client = cpus[-1:]
    if backend_beside == "within":
        return Placement(subject, client, subject, hosts)
    # One CPU for the backend also beside a subject of several: the subject's first ones stay its own as long as can be.
    return Placement(subject, client, client if backend_beside == "client" else subject[-1:], hosts)


def place_hosts(cell: Cell, cpus: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Each has CPUs of its own where that leaves one for the client, else all have the same: then their costs are
    theirs, and the rate is that of all of them on so many CPUs."""
    if cell.hosts == 1:
        return ()
    if cell.hosts * cell.cores >= len(cpus):
        return (cpus[:cell.cores],) * cell.hosts
    return tuple(cpus[number * cell.cores:(number + 1) * cell.cores] for number in range(cell.hosts))
