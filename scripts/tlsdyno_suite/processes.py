"""Programs of a run: started in a session of their own on their CPUs, watched, and always stopped."""
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import sessions, strays
from .placement import cpu_list
from .refusal import Refused

STOP_GRACE_S = 1.0   # from SIGTERM to SIGKILL: longer than any of the products needs once its connections are gone
KILL_GRACE_S = 5.0   # after SIGKILL a process ends as soon as the kernel can end it
POLL_S = 0.01


class Failed(Exception):
    """A program did not do its part: the row fails, the run goes on."""


@dataclass
class Program:
    role: str  # subject, client, backend, floor, network
    popen: subprocess.Popen[bytes]
    log: Path
    cpus: tuple[int, ...]
    name: str  # the role, or which of several in it

    @property
    def session(self) -> int:
        return self.popen.pid


def check_tools() -> None:
    for tool in ("setpriv", "taskset"):
        if not shutil.which(tool):
            raise Refused(tool, "", "is not installed (Debian package util-linux)")


started: list[Program] = []  # of the crews that there are, in order: whoever was interrupted may have lost one


def start(role: str, command: list[str], cpus: tuple[int, ...], log: Path, within: tuple[str, ...] = (),
          name: str = "") -> Program:
    """`within`: a command that becomes the one that follows it, in another network perhaps. Both outputs go to the log
    file, so that nothing waits for a reader. setpriv asks the kernel to end the program if this runner dies by a signal
    that it cannot catch: SIGTERM, because a master that is asked takes its workers with it. These two helpers replace
    code between fork and exec, which Python cannot run safely beside a thread. What the kernel was asked is forgotten
    where a program gets other rights, so it is asked within."""
    wrapped = [*within, "setpriv", "--pdeathsig", "TERM", "--", "taskset", "-c", cpu_list(cpus), *command]
    with log.open("ab") as output, undisturbed():
        popen = subprocess.Popen(
            wrapped, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
        started.append(Program(role, popen, log, cpus, name or role))
        strays.note(popen.pid)
        return started[-1]


def last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        # A progress line is many lines with only carriage returns between them; splitlines takes these too.
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return lines[-1][:200]
    return ""


def describe_end(program: Program) -> str:
    """How it ended, and what it said last."""
    status = program.popen.poll()
    if status is None:
        how = "is still running"
    elif status < 0:
        how = f"was killed by {signal.Signals(-status).name}"
    else:
        how = f"ended with status {status}"
    said = last_line(program.log)
    return how + (f" (last log line: {said})" if said else "")


def wait_until_ready(program: Program, is_ready: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not is_ready():
        if program.popen.poll() is not None:
            raise Failed(f"{program.name} did not start: {describe_end(program)}")
        if time.monotonic() > deadline:
            raise Failed(f"{program.name} was not ready after {limit_s:g} s: {describe_end(program)}")
        time.sleep(POLL_S)


def wait_gone(program: Program, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while True:
        if program.popen.poll() is not None and not sessions.members(program.session):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)


def stop(program: Program) -> None:
    """Asks the leader, then kills whatever is left of its session."""
    if program.popen.poll() is None:
        program.popen.send_signal(signal.SIGTERM)
        wait_gone(program, STOP_GRACE_S)
    deadline = time.monotonic() + KILL_GRACE_S
    while time.monotonic() < deadline:
        for pid in sessions.members(program.session):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if wait_gone(program, 0.1):
            return


@contextlib.contextmanager
def crew() -> Iterator[list[Program]]:
    """Programs put in this list are stopped at the end, the last one first: the load before what it loads. So is
    whatever else was started meanwhile and still runs."""
    programs: list[Program] = []
    before = len(started)
    try:
        yield programs
    finally:
        lost = [program for program in started[before:]
                if program not in programs and program.popen.poll() is None]
        for program in reversed([*programs, *lost]):
            stop(program)
        del started[before:]


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP came: stop everything, keep what was measured. Not an Exception, so nobody swallows
    it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_status(self) -> int:
        return 128 + self.number


class Hold:
    """While it is held an interruption waits."""

    depth = 0
    number: int | None = None  # of the signal that came meanwhile


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """An interruption that comes meanwhile is raised at the end."""
    Hold.depth += 1
    try:
        yield
    finally:
        Hold.depth -= 1
        if Hold.depth == 0 and Hold.number is not None:
            number, Hold.number = Hold.number, None
            raise Interrupted(number)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turns the first such signal into Interrupted. Later ones are ignored: they would interrupt the cleaning up. A
    signal that is ignored from the start stays so: that is how nohup and shells protect what runs in the background."""
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
               if signal.getsignal(number) is not signal.SIG_IGN]

    def interrupt(number: int, _frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        if Hold.depth:
            Hold.number = number
        else:
            raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
