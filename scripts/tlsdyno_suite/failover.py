"""One of several hosts dies in the middle of the window. What is looked at is those that are left: before it, and in
each second after."""
import contextlib
import os
import signal
import time
from dataclasses import dataclass

from . import counters, sessions
from .processes import Program
from .sampler import Sampler
from .takeover import Span, Takeover

SETTLED = 0.1   # of the time before the kill: when the first reading is made
AT_LEAST_S = 0.25  # a second that the window cuts short counts when so much of it is left
END_S = 0.1     # so long before the end of the window the last reading is due, for it must not come after it


@dataclass(frozen=True)
class Reading:
    time_ns: int
    handshakes: int
    resumed: int


class Failover:
    """To be asked time and again while the load runs whether there is something to do."""

    def __init__(self, serving: list[Program], statistics: list[str], window_s: tuple[float, float]) -> None:
        """The last of those that serve is the one to die, and is none of them then. `window_s`: when the window begins
        and ends, after the load has."""
        self._serving = serving
        self.left = [program for program in serving[:-1] if program.role == "subject"]
        self._statistics = statistics[:-1]
        self.readings: list[Reading] = []
        self.killed_ns = 0
        begin, end = window_s
        middle = (begin + end) / 2
        whole = range(1, int(end - END_S - middle) + 1)
        rest = end - END_S - middle - len(whole)
        self._due = [begin + SETTLED * (middle - begin), middle, *(middle + second for second in whole)]
        if rest >= AT_LEAST_S or not whole:
            self._due.append(end - END_S)

    def look(self, elapsed_s: float) -> None:
        """Reads what is due by now, and kills when it is time."""
        if len(self.readings) == len(self._due) or elapsed_s < self._due[len(self.readings)]:
            return
        pages = [counters.read(address) for address in self._statistics]
        full, resumed = (sum(page[name] for page in pages) for name in ("handshakes_full", "handshakes_resumed"))
        self.readings.append(Reading(time.time_ns(), full + resumed, resumed))
        if len(self.readings) == 2:
            self._kill()

    def _kill(self) -> None:
        """All processes of the host at once, as if it had lost its power."""
        self.killed_ns = time.time_ns()
        for pid in sessions.members(self._serving.pop().session):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def takeover(self, sampler: Sampler) -> Takeover | None:
        """None if the load ended before its time."""
        def span(one: Reading, other: Reading) -> Span:
            cpu_s = sum(sampler.cpu_s[host.name].growth(one.time_ns, other.time_ns) for host in self.left)
            return Span((other.time_ns - one.time_ns) / 1e9, other.handshakes - one.handshakes,
                        other.resumed - one.resumed, cpu_s)

        spans = [span(one, other) for one, other in zip(self.readings, self.readings[1:])]
        return Takeover(self.killed_ns, spans[0], tuple(spans[1:])) if len(spans) > 1 else None
