"""What became of hosts one of which had died."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """What those that were left did in a time."""

    seconds: float
    handshakes: int
    resumed: int
    cpu_s: float

    @property
    def resumed_share(self) -> float | None:
        return self.resumed / self.handshakes if self.handshakes else None

    @property
    def cpu_us_per_op(self) -> float | None:
        return 1e6 * self.cpu_s / self.handshakes if self.handshakes else None

    @property
    def cpu_busy(self) -> float:
        """CPUs that they filled, all together."""
        return self.cpu_s / self.seconds


@dataclass(frozen=True)
class Takeover:
    killed_ns: int
    before: Span
    after: tuple[Span, ...]  # each second; the last may be shorter


def by_second(takeover: Takeover | None, figure: str) -> str | None:
    """Of the time before and each second after, as results.csv has it."""
    if takeover is None:
        return None
    values = [getattr(span, figure) for span in (takeover.before, *takeover.after)]
    return " ".join("-" if value is None else f"{value:.6g}" for value in values)
