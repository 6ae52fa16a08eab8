"""The decision: from the samples of each cell to a verdict, and from the verdicts to an exit status. Whoever measures
(ab, compare, ab --instructions) only brings samples.

A cell is a REGRESSION when a rise is proven (its Holm-adjusted p is within what one look may spend) and is as large as
the threshold; a PASS when a rise of the margin is ruled out; else INCONCLUSIVE. The threshold is the margin or, where
the same build twice differed by more, that: noise raises what counts as a regression, never what counts as a pass. """
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from .inference import Estimate, detectable, holm, one_sample, share, two_sample
from .refusal import Refused

PASS, REGRESSION, USAGE, INCONCLUSIVE, INVALID = 0, 1, 2, 3, 4
VERDICTS = {"pass": PASS, "faster": PASS, "regression": REGRESSION, "inconclusive": INCONCLUSIVE, "invalid": INVALID}
# The worst is what the whole says; that something is slower is known also where something else could not be measured.
WORST_FIRST = ("regression", "invalid", "inconclusive", "pass", "faster")

ALPHA = 0.05           # of all cells and looks together: how often a run of one build against itself may see a rise
CHECK_ALPHA = 0.01     # of the check of a cell's base against itself, two-sided
# Beyond that, the two bases have to differ by this part of the margin to make a cell invalid: a machine that is quiet
# enough to show the tenths of a per cent between two copies of a file is not punished for it.
CHECK_SHARE = 1 / 2


@dataclass(frozen=True)
class Sample:
    """What was measured of a cell. Logarithms, so differences are ratios."""

    label: str
    base: float                     # typical cost of an op
    new: float
    paired: Sequence[float] = ()    # new above base, a block each
    twin: Sequence[float] = ()      # the base above the base, a block each
    apart: tuple[Sequence[float], Sequence[float]] = ((), ())  # costs of runs made apart: of base, of new
    base_rate_per_s: float | None = None
    new_rate_per_s: float | None = None
    invalid: str = ""               # why nothing may be concluded
    margin: float | None = None     # of this cell, where history knows better
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CellVerdict:
    sample: Sample
    estimate: Estimate | None
    p: float                 # adjusted for the number of cells
    margin: float            # all three as shifts of logarithms
    threshold: float
    floor: float | None      # half the interval of the base against itself; None where it was not measured twice
    detectable: float | None
    verdict: str
    reason: str

    @property
    def proven(self) -> bool:
        """Whether the interval excludes "no change"."""
        return self.estimate is not None and (self.estimate.low > 0 or self.estimate.high < 0)


@dataclass(frozen=True)
class Outcome:
    cells: tuple[CellVerdict, ...]
    alpha: float             # of one look, one-sided

    @property
    def verdict(self) -> str:
        return min((cell.verdict for cell in self.cells), key=WORST_FIRST.index)

    def decided(self) -> bool:
        """Whether more blocks could change nothing that matters."""
        return self.verdict == "regression" or all(cell.verdict != "inconclusive" for cell in self.cells)


def exit_status(verdict: str, inconclusive: str | None) -> int:
    """`inconclusive`: what to make of that, pass or fail; None leaves it as it is."""
    status = VERDICTS[verdict]
    return {"pass": PASS, "fail": REGRESSION}.get(inconclusive or "", status) if status == INCONCLUSIVE else status


def estimate_of(sample: Sample, alpha: float) -> Estimate | None:
    if sample.invalid:
        return None
    if sample.apart[0]:
        return two_sample(*sample.apart, alpha)
    return one_sample(sample.paired, alpha) if len(sample.paired) else None


def twin_differs(sample: Sample, margin: float) -> str | None:
    """Why the base against itself spoils the cell, or None."""
    check = one_sample(sample.twin, CHECK_ALPHA / 2)
    if (check.low > 0 or check.high < 0) and abs(check.shift) >= CHECK_SHARE * margin:
        return (f"A/A check: the base differs from itself by {100 * share(check.shift):+.1f} % "
                f"({100 * share(check.low):+.1f} to {100 * share(check.high):+.1f} %)")
    return None


def judge_cell(sample: Sample, estimate: Estimate | None, p: float, alpha: float, margin: float,
               is_last: bool) -> CellVerdict:
    margin = sample.margin if sample.margin is not None else margin
    floor = one_sample(sample.twin, alpha).half_width if len(sample.twin) else None
    threshold = max(margin, floor or 0.0)
    if sample.invalid or estimate is None:
        return CellVerdict(sample, estimate, p, margin, threshold, floor, None, "invalid",
                           sample.invalid or "nothing measured")
    if len(sample.twin) and (spoilt := twin_differs(sample, margin)):
        # More blocks may show that it was chance. Until then nothing is said of the new build either.
        return CellVerdict(sample, estimate, p, margin, threshold, floor, None,
                           "invalid" if is_last else "inconclusive", spoilt)
    if p <= alpha and estimate.shift >= threshold:
        verdict = "regression"
    elif estimate.high < margin:
        verdict = "faster" if estimate.high < 0 and estimate.shift <= -threshold else "pass"
    else:
        verdict = "inconclusive"
    return CellVerdict(sample, estimate, p, margin, threshold, floor, detectable(estimate, threshold), verdict, "")


def judge(samples: Sequence[Sample], alpha: float, margin: float, is_last: bool = True) -> Outcome:
    """All cells, at a look that may err in `alpha` of the runs."""
    estimates = [estimate_of(sample, alpha) for sample in samples]
    measured = [index for index, estimate in enumerate(estimates) if estimate is not None]
    adjusted = dict(zip(measured, holm([estimates[index].p for index in measured])))  # type: ignore[union-attr]
    return Outcome(tuple(
        judge_cell(sample, estimate, adjusted.get(index, 1.0), alpha, margin, is_last)
        for index, (sample, estimate) in enumerate(zip(samples, estimates))), alpha)


def log(cost: float) -> float:
    return float(numpy.log(cost))


def median(values: Sequence[float]) -> float:
    return float(numpy.median(values))


def parse_margin(text: str) -> float:
    """Of per cent, as a shift of logarithms."""
    try:
        percent = float(text.rstrip("% "))
    except ValueError:
        percent = -1.0
    if not 0 < percent <= 100:
        raise Refused("--threshold", text, "is not a number of per cent above 0 and up to 100")
    return float(numpy.log1p(percent / 100))
