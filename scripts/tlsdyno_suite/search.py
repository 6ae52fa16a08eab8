"""The highest rate at which a subject still answers well: `search:MEAN,LOSS`, the largest mean response time and the
largest share of lost transactions in percent. One closed-loop window says where to look, then the rate is halved in."""
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from .loads.loadgen import Result
from .units import parse_time

PROBES = 8          # windows at most, with the first
FIRST = 0.8         # of the closed loop's rate
STEP = 1.25         # from a rate that was not too high to the next, as long as none was
NEAR_ENOUGH = 1.03  # ratio of the lowest rate that was too high to the highest that was not

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Criterion:
    mean_ms: float
    loss_percent: float

    def met(self, load: Result) -> bool:
        """The mean counts from when a transaction was to begin. One that never began, or failed, is lost."""
        counts = load.open_loop or {}
        due = counts.get("due", 0)
        lost = counts.get("never_begun", 0) + sum(load.errors.values())
        mean_us = load.latency_us.get("transaction", {}).get("mean")
        return bool(due) and mean_us is not None and mean_us < 1000 * self.mean_ms \
            and 100 * lost < self.loss_percent * due


def criterion(loop: str) -> Criterion:
    mean, _, loss = loop.partition(":")[2].partition(",")
    return Criterion(1000 * parse_time(mean), float(loss))


@dataclass(frozen=True)
class Found(Generic[Seen]):
    best: Seen | None    # at the highest rate that met the criterion
    beyond: Seen | None  # at the lowest rate above it that did not


def search(closed_per_s: float, probe: Callable[[int], tuple[Seen, bool]]) -> Found[Seen]:
    """`probe` measures at a rate and says whether the criterion was met."""
    good = 0.0
    bad: float | None = None
    best: Seen | None = None
    beyond: Seen | None = None
    rate = FIRST * closed_per_s
    for _ in range(PROBES - 1):
        seen, met = probe(max(1, round(rate)))
        if met:
            good, best = rate, seen
        else:
            bad, beyond = rate, seen
        if bad is not None and (bad < 2 or good and bad / good < NEAR_ENOUGH):
            break
        rate = STEP * good if bad is None else (good + bad) / 2
    return Found(best, beyond)
