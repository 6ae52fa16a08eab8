"""Sessions of processes, as /proc shows them. Every program of a run leads a session of its own, so whatever it forks
is found again by the session's number, though its leader be dead."""
from collections.abc import Collection
from pathlib import Path

PROC = Path("/proc")


def all_members(wanted: Collection[int]) -> dict[int, list[int]]:
    """Living processes of each of these sessions. A zombie has stopped using CPU and holding sockets: it does not
    count."""
    found: dict[int, list[int]] = {session: [] for session in wanted}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue  # it ended between the two lines
        # The second field, the name, is in brackets and may itself hold blanks and brackets.
        state, _ppid, _pgrp, session = stat[stat.rindex(")") + 2:].split()[:4]
        if int(session) in found and state not in "ZX":
            found[int(session)].append(int(entry.name))
    return found


def members(session: int) -> list[int]:
    return all_members((session,))[session]


def start_time(pid: int) -> str:
    """In clock ticks since the machine was started; empty when there is no such process."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    return stat[stat.rindex(")") + 2:].split()[19]


def allowed_cpus(pid: int) -> set[int]:
    """CPUs that any thread of the process may run on; empty when it is gone."""
    cpus: set[int] = set()
    try:
        tasks = list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return cpus
    for task in tasks:
        try:
            status = (task / "status").read_text()
        except OSError:
            continue
        listed = status.partition("Cpus_allowed_list:")[2].split("\n", 1)[0].strip()
        for part in filter(None, listed.split(",")):
            first, _, last = part.partition("-")
            cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def memory_kib(pid: int) -> tuple[int, int]:
    """Memory of the process: all that is resident, and of that what is no file's. Proportional shares, so that what
    workers have in common counts once; where the kernel keeps those from us (another user's process), the resident set.

    What is a file's, code above all, is shared with whoever maps the same library: the share changes when another
    program starts. So growth is growth of the rest, which is shared within a family of processes only."""
    for name, all_keys, own_keys in (("smaps_rollup", ("Pss:",), ("Pss_Anon:", "Pss_Shmem:")),
                                     ("status", ("VmRSS:",), ("RssAnon:", "RssShmem:"))):
        try:
            lines = (PROC / str(pid) / name).read_text().splitlines()
        except OSError:
            continue
        values = {words[0]: int(words[1]) for line in lines if len(words := line.split()) == 3 and words[2] == "kB"}
        if values:
            return sum(values.get(key, 0) for key in all_keys), sum(values.get(key, 0) for key in own_keys)
    return 0, 0


def resident_kib(pid: int) -> int:
    return memory_kib(pid)[0]
