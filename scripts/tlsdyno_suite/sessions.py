"""Sessions of processes, as /proc shows them. Every program of a run leads a session of its own, so whatever it forks
is found again by the session's number, though its leader be dead."""
from pathlib import Path

PROC = Path("/proc")


def members(session: int) -> list[int]:
    """Living processes of the session. A zombie has stopped using CPU and holding sockets: it does not count."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue  # it ended between the two lines
        # The second field, the name, is in brackets and may itself hold blanks and brackets.
        state, _ppid, _pgrp, its_session = stat[stat.rindex(")") + 2:].split()[:4]
        if int(its_session) == session and state not in "ZX":
            found.append(int(entry.name))
    return found


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


def resident_kib(pid: int) -> int:
    """Memory of the process. Its proportional share, so that what workers have in common counts once; where the
    kernel keeps that from us (another user's process), the resident set."""
    for name, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            for line in (PROC / str(pid) / name).read_text().splitlines():
                if line.startswith(key):
                    return int(line.split()[1])
        except OSError:
            continue
    return 0
