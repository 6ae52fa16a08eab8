"""What a handful of measurements allows to say: estimates with intervals that hold whatever the distribution, and an
error rate that survives looking more than once and at more than one cell.

All samples are logarithms of ratios or of costs, so a shift of 0.05 is a change by the factor e^0.05. One sample: the
differences of blocks, one a block. Two samples: the costs of runs made apart. """
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy
import scipy.stats

POWER = 0.8  # of the smallest detectable change: how often a change of that size would be found


@dataclass(frozen=True)
class Estimate:
    """Of a shift. `p` is one-sided: how often, if there were no shift upwards, the samples would look as if there were
    one as much as these do. Each end of the interval is missed with probability `alpha` at most."""

    n: int
    shift: float
    low: float
    high: float
    p: float
    alpha: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def error(self) -> float:
        """Standard error, from the interval: so outliers count in it no more than in the interval."""
        return self.half_width / quantile(1 - self.alpha)


def quantile(share: float) -> float:
    return float(scipy.stats.norm.ppf(share))


def convolved(sizes: Sequence[int]) -> numpy.ndarray:
    """In how many ways a subset of these sizes has each sum: index is the sum. Floats: exact to 2^53 ways, and to a
    relative 1e-15 beyond."""
    ways = numpy.zeros(sum(sizes) + 1)
    ways[0] = 1.0
    for size in sizes:
        shifted = numpy.zeros_like(ways)
        shifted[size:] = ways[:len(ways) - size]
        ways = ways + shifted
    return ways


@cache
def signed_rank_tails(n: int) -> numpy.ndarray:
    """P(W <= w) of Wilcoxon's signed-rank sum of n differences without ties, by w."""
    return numpy.cumsum(convolved(range(1, n + 1))) / 2.0 ** n


def signed_rank_p(differences: Sequence[float]) -> float:
    """One-sided p of "not shifted upwards", exact also with ties: the distribution given the ranks that there are.
    Differences of exactly nothing say nothing and are left out."""
    kept = [value for value in differences if value]
    if not kept:
        return 1.0
    doubled = numpy.rint(2 * scipy.stats.rankdata(numpy.abs(kept))).astype(int)
    ways = convolved(doubled.tolist())
    observed = int(doubled[numpy.array(kept) > 0].sum())
    return float(min(1.0, ways[observed:].sum() / 2.0 ** len(kept)))


def walsh_averages(differences: Sequence[float]) -> numpy.ndarray:
    """Of every pair, each with itself too, in order."""
    values = numpy.asarray(differences, dtype=float)
    first, second = numpy.triu_indices(len(values))
    return numpy.sort((values[first] + values[second]) / 2)


def between(ordered: numpy.ndarray, tails: numpy.ndarray, alpha: float) -> tuple[float, float]:
    """The interval that order statistics give: as many averages (or differences of pairs) are cut off at each end as
    the rank sum reaches with probability `alpha` at most. Without end where that is not even one."""
    cut = int(numpy.searchsorted(tails, alpha, side="right"))  # values of the rank sum whose tail is within alpha
    if cut == 0:
        return -math.inf, math.inf
    return float(ordered[cut - 1]), float(ordered[len(ordered) - cut])


def one_sample(differences: Sequence[float], alpha: float) -> Estimate:
    """Hodges and Lehmann's estimate, the median of the Walsh averages, with the exact signed-rank interval."""
    averages = walsh_averages(differences)
    low, high = between(averages, signed_rank_tails(len(differences)), alpha)
    return Estimate(len(differences), float(numpy.median(averages)), low, high, signed_rank_p(differences), alpha)


@cache
def rank_sum_tails(n: int, m: int) -> numpy.ndarray:
    """P(U <= u) of Mann and Whitney's U of n and m values without ties, by u."""
    # ways[k][u]: subsets of k of the values so far whose ranks exceed the lowest possible sum by u.
    ways = numpy.zeros((n + 1, n * m + 1))
    ways[0, 0] = 1.0
    for rank in range(1, n + m + 1):
        for k in range(min(n, rank), 0, -1):
            excess = rank - k
            if excess <= n * m:
                ways[k, excess:] += ways[k - 1, :n * m + 1 - excess]
    return numpy.cumsum(ways[n]) / math.comb(n + m, n)


def two_sample(base: Sequence[float], new: Sequence[float], alpha: float) -> Estimate:
    """Of what `new` is above `base`: the median of the differences of all pairs, with the exact rank-sum interval. n is
    that of the smaller sample."""
    differences = numpy.sort(numpy.subtract.outer(new, base).ravel())
    low, high = between(differences, rank_sum_tails(len(base), len(new)), alpha)
    method = "exact" if len({*base, *new}) == len(base) + len(new) else "asymptotic"  # there is none exact with ties
    p = float(scipy.stats.mannwhitneyu(new, base, alternative="greater", method=method).pvalue)
    return Estimate(min(len(base), len(new)), float(numpy.median(differences)), low, high, p, alpha)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that all of them together are wrong no more often than one alone (Holm's step-down)."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for passed, index in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        highest = max(highest, min(1.0, (len(p_values) - passed) * p_values[index]))
        adjusted[index] = highest
    return adjusted


class Budget:
    """The error that all looks together may make: each spends an equal share, the last one whatever is left. Sure
    whatever the looks have in common (Bonferroni), as long as it is not for what they saw that one of them is the last;
    what that costs in blocks is little beside what stopping early saves."""

    def __init__(self, alpha: float, looks: int) -> None:
        self._share = alpha / looks
        self._left = alpha

    def spend(self, is_last: bool) -> float:
        spent = self._left if is_last else self._share
        self._left -= spent
        return spent


def detectable(estimate: Estimate, threshold: float) -> float:
    """The smallest shift that would be called a regression in POWER of the runs like this one: its interval has to
    clear nothing, and its estimate the threshold."""
    if not math.isfinite(estimate.half_width):
        return math.inf
    found = quantile(POWER) * estimate.error
    return max(estimate.half_width, threshold) + found


def share(shift: float) -> float:
    """A shift of logarithms as a share of the base: 0.05 for 5 % more."""
    return math.expm1(shift)
