"""The reference proxy of this project. It takes port 0 and counts its handshakes itself."""
import os
import subprocess
from functools import cache

from ..cell import group_list
from ..programs import built
from .base import BACKLOG, SESSIONS, TICKETS, Driver, Task, can_all, cipher_list, is_modern, offers_tickets


@cache
def version() -> str | None:
    if not os.access(built("proxy"), os.X_OK):
        return "not built"  # a plan can be made without it; a run refuses to start
    try:
        result = subprocess.run([built("proxy"), "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError:
        return "unknown"  # for another kind of machine, perhaps; starting it will tell
    words = (result.stdout + result.stderr).split()
    return words[-1] if words else "unknown"


def base_command(task: Task, sessions: int, tickets: bool) -> list[str]:
    cell = task.cell
    ciphers = ["--ciphersuites", cell.cipher] if is_modern(cell) else ["--ciphers", cipher_list(cell)]
    return [
        str(built("proxy")), "-q", "-f", f"{task.address}:0", "-b", task.backend, "-n", str(cell.cores),
        "--backlog", str(BACKLOG),
        "--cpus", ",".join(map(str, task.cpus)), "-C", str(sessions), "--tickets", "on" if tickets else "off",
        "--tls-min", cell.tls_version, "--tls-max", cell.tls_version, *ciphers, "--groups", group_list(cell),
        *(["--maxconn", str(cell.maxconn)] if cell.maxconn else []),
        "--num-tickets", str(TICKETS), "--stats", task.statistics, *task.sharing, str(task.certificate),
    ]


def command(task: Task) -> list[str]:
    # Hosts that share the keys of tickets keep no sessions, so that nothing else can be what resumed.
    sessions = 0 if task.cell.sharing == "ticket-keys" else SESSIONS
    return base_command(task, sessions, offers_tickets(task.cell))


def command_no_resume(task: Task) -> list[str]:
    """As stud was in 2011: every handshake is a full one, whatever the client offers. No tickets, so what they cost
    the others is not in its figures."""
    return base_command(task, 0, False)


REFERENCE = Driver("reference", version, can_all, command, reports_address=True, has_statistics=True, farms=True)
REFERENCE_NO_RESUME = Driver(
    "reference-no-resume", version, can_all, command_no_resume, reports_address=True, has_statistics=True,
    resumes=False)
