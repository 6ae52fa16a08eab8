"""Programs that outlive a runner which was killed. Each run notes the sessions that it starts in a file of its
workspace; the next run ends what is left of them before it begins."""
import contextlib
import os
import signal
import time
from pathlib import Path

from . import sessions

REGISTER = "sessions"
PATIENCE_S = 5.0   # after SIGKILL a process ends as soon as the kernel can end it
POLL_S = 0.01

_register: Path | None = None  # of the run of this process


def open_register(directory: Path | None) -> None:
    """From here on what is started is noted there; None: nowhere."""
    global _register
    _register = directory / REGISTER if directory else None


def boot_id() -> str:
    return (sessions.PROC / "sys/kernel/random/boot_id").read_text().strip()


def note(session: int) -> None:
    """To be called for each program right after it was started."""
    if _register is not None:
        with _register.open("a") as file:
            file.write(f"{session} {sessions.start_time(session)} {boot_id()}\n")


def is_ours(session: int, started: str, boot: str) -> bool:
    """Whether the number still means the session that was noted. It does as long as one process has it, for the kernel
    gives no new process the number of a living session; a leader of another time is of another one."""
    return boot == boot_id() and sessions.start_time(session) in (started, "")


def end(directory: Path) -> None:
    """Kills every process of the sessions that a dead run noted there."""
    try:
        lines = (directory / REGISTER).read_text().splitlines()
    except OSError:
        return
    # The last line may be half of one.
    noted = [(int(words[0]), words[1], words[2]) for line in lines
             if len(words := line.split()) == 3 and words[0].isdigit()]
    for session, started, boot in noted:
        deadline = time.monotonic() + PATIENCE_S
        while is_ours(session, started, boot) and (left := sessions.members(session)):
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
