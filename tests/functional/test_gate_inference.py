"""The gate's statistics, held against what is known and against simulated measurements. Seeds are fixed: a test fails
because of the code, never because of the dice."""
import math

import numpy
import pytest
import scipy.stats
from tlsdyno_suite import inference

DISTRIBUTIONS = {
    "normal": lambda dice, size: dice.normal(0, 1, size),
    "long tails": lambda dice, size: dice.standard_t(2, size),
    # What a neighbour does to a paired difference: mostly nothing, now and then a lot, on either side.
    "bursts": lambda dice, size: dice.normal(0, 1, size) + dice.choice([0, -20, 20], size, p=[0.9, 0.05, 0.05]),
}


@pytest.mark.parametrize("n, least", [(4, 1 / 16), (8, 1 / 256), (12, 1 / 4096), (24, 2.0 ** -24)])
def test_the_smallest_p_is_one_of_all_signs(n, least):
    assert inference.signed_rank_p([0.1 * each for each in range(1, n + 1)]) == pytest.approx(least, rel=1e-12)


def test_p_values_are_those_of_scipy():
    dice = numpy.random.default_rng(1)
    for n in (5, 8, 13, 24):
        values = dice.normal(0.3, 1, n)
        exact = scipy.stats.wilcoxon(values, alternative="greater", mode="exact").pvalue
        assert inference.signed_rank_p(values) == pytest.approx(exact, rel=1e-9)


def test_p_with_ties_is_exact():
    # By hand: ranks 1.5, 1.5, 3, so sums 0, 1.5 (twice), 3 (twice), 4.5 (twice), 6, each with probability 1/8.
    assert inference.signed_rank_p([1, 1, 2]) == 1 / 8
    assert inference.signed_rank_p([-1, 1, 2]) == 3 / 8
    assert inference.signed_rank_p([1, 1, -2]) == 5 / 8
    assert inference.signed_rank_p([0, 0]) == 1.0
    assert inference.signed_rank_p([0, 1, 1, 2]) == 1 / 8


def test_known_estimate_and_interval():
    # Hollander and Wolfe's method by hand: of 1, 2, 3, 4, 10 the 15 averages, median 3.
    estimate = inference.one_sample([1, 2, 3, 4, 10], 1 / 32)
    assert (estimate.shift, estimate.low, estimate.high) == (3.0, 1.0, 10.0)
    assert inference.one_sample([1, 2, 3, 4, 10], 1 / 16 - 1e-9).low == 1.0
    assert inference.one_sample([1, 2, 3, 4, 10], 1 / 16).low == 1.5
    assert inference.one_sample([1, 2, 3, 4, 10], 1 / 33).low == -math.inf


def test_the_interval_clears_nothing_exactly_when_p_is_small_enough():
    dice = numpy.random.default_rng(2)
    for _ in range(300):
        values = dice.normal(0.6, 1, 10)
        estimate = inference.one_sample(values, 0.02)
        assert (estimate.low > 0) == (estimate.p <= 0.02)


def test_two_samples_are_those_of_scipy():
    assert inference.rank_sum_tails(5, 5)[:3] * 252 == pytest.approx([1, 2, 4])  # of the 252 ways
    dice = numpy.random.default_rng(3)
    for n, m in ((5, 5), (6, 9), (12, 10)):
        base, new = dice.normal(0, 1, n), dice.normal(0.5, 1, m)
        estimate = inference.two_sample(base, new, 0.03)
        exact = scipy.stats.mannwhitneyu(new, base, alternative="greater", method="exact").pvalue
        assert estimate.p == pytest.approx(exact, rel=1e-9)
        assert (estimate.low > 0) == (exact <= 0.03)
        assert estimate.shift == pytest.approx(numpy.median([b - a for a in base for b in new]))


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("n, alpha", [(8, 0.05 / 3), (12, 0.05), (24, 0.05 / 3)])
def test_intervals_cover_as_often_as_they_say(kind, n, alpha):
    dice, runs = numpy.random.default_rng(n), 1500
    samples = DISTRIBUTIONS[kind](dice, (runs, n)) + 1.0
    estimates = [inference.one_sample(sample, alpha) for sample in samples]
    # The exact level is the largest that n differences can have within alpha.
    tails = inference.signed_rank_tails(n)
    exact = tails[tails <= alpha].max()
    for missed in (sum(each.low > 1.0 for each in estimates), sum(each.high < 1.0 for each in estimates)):
        assert scipy.stats.binomtest(missed, runs, exact).pvalue > 0.001
    assert abs(numpy.median([each.shift for each in estimates]) - 1.0) < 0.05


def test_two_sample_intervals_cover_as_often_as_they_say():
    dice, runs, n, alpha = numpy.random.default_rng(4), 1500, 7, 0.025
    tails = inference.rank_sum_tails(n, n)
    exact = tails[tails <= alpha].max()
    estimates = [inference.two_sample(dice.standard_t(3, n), 0.5 + dice.standard_t(3, n), alpha) for _ in range(runs)]
    for missed in (sum(each.low > 0.5 for each in estimates), sum(each.high < 0.5 for each in estimates)):
        assert scipy.stats.binomtest(missed, runs, exact).pvalue > 0.001


def looked_at(samples, looks, alpha):
    """Whether any look at any cell finds something where there is nothing. samples: cells x blocks."""
    budget = inference.Budget(alpha, len(looks))
    lowest = {n: min(inference.holm([inference.signed_rank_p(cell[:n]) for cell in samples])) for n in looks}
    return any(lowest[n] <= budget.spend(n == looks[-1]) for n in looks)


def test_a_budget_is_spent_once():
    budget = inference.Budget(0.06, 3)
    assert [budget.spend(False), budget.spend(False), budget.spend(True)] == pytest.approx([0.02, 0.02, 0.02])
    # A run that is over early has not looked as often, and may spend the rest at once.
    budget = inference.Budget(0.06, 3)
    assert [budget.spend(False), budget.spend(True), budget.spend(True)] == pytest.approx([0.02, 0.04, 0.0])


def test_several_looks_at_several_cells_err_no_more_often_than_one():
    dice, runs, looks, alpha = numpy.random.default_rng(5), 700, (8, 12, 24), 0.05
    wrong = sum(looked_at(DISTRIBUTIONS["bursts"](dice, (4, looks[-1])), looks, alpha) for _ in range(runs))
    assert scipy.stats.binomtest(wrong, runs, alpha, alternative="greater").pvalue > 0.001
    assert wrong > 0.2 * alpha * runs  # nor is it so careful that it could find nothing

    # The same data without the two corrections: this simulation can tell the difference.
    dice = numpy.random.default_rng(5)
    naive = sum(any(inference.signed_rank_p(cell[:n]) <= alpha for cell in samples for n in looks)
                for samples in (DISTRIBUTIONS["bursts"](dice, (4, looks[-1])) for _ in range(runs)))
    assert naive > 0.2 * runs


def test_holm_by_hand():
    # 4 times the smallest, 3 times the next, and so on; never below the one before.
    assert inference.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert inference.holm([0.5, 0.9]) == [1.0, 1.0]
    assert inference.holm([]) == []


def test_holm_rejects_what_is_there_beside_what_is_not():
    """One of four cells is slower: it is found more often than with Bonferroni's share for all, others are not."""
    dice, runs, alpha = numpy.random.default_rng(6), 600, 0.05
    found = wrong = 0
    for _ in range(runs):
        samples = dice.normal(0, 1, (4, 12))
        samples[0] += 1.2
        adjusted = inference.holm([inference.signed_rank_p(cell) for cell in samples])
        found += adjusted[0] <= alpha
        wrong += min(adjusted[1:]) <= alpha
    assert found > 0.8 * runs
    assert scipy.stats.binomtest(wrong, runs, alpha, alternative="greater").pvalue > 0.001


def test_the_smallest_detectable_change_is_found_as_often_as_it_says():
    dice, runs, n, alpha, threshold = numpy.random.default_rng(7), 600, 12, 0.05 / 3, 0.03
    for deviation in (0.01, 0.06):
        quiet = (dice.normal(0, deviation, n) for _ in range(200))
        typical = numpy.median([inference.detectable(inference.one_sample(each, alpha), threshold) for each in quiet])
        estimates = [inference.one_sample(dice.normal(typical, deviation, n), alpha) for _ in range(runs)]
        found = sum(each.p <= alpha and each.shift >= threshold for each in estimates) / runs
        assert 0.7 < found < 0.9
