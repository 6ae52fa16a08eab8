"""The decision and what is said of it, on samples made up for the purpose."""
import json
import math
import random
import time
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy
import pytest
from tlsdyno_suite import ab, block, gate, gate_report, instructions
from tlsdyno_suite.block import ARMS, Block, Trial, order
from tlsdyno_suite.cell import Cell
from tlsdyno_suite.gate import Sample
from tlsdyno_suite.inference import Budget
from tlsdyno_suite.placement import Placement
from tlsdyno_suite.processes import Failed
from tlsdyno_suite.refusal import Refused

ALPHA = gate.ALPHA / 3
MARGIN = math.log(1.03)
CELL = Cell("reference", "", "ecdsa:P-256", "TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519", "never", "any", 1, 0, 0, 1,
            1, "tcp", "closed")


def noise(seed, n, deviation=0.01, shift=0.0):
    return (numpy.random.default_rng(seed).normal(0, deviation, n) + shift).tolist()


def sample(label="cell", n=12, shift=0.0, deviation=0.01, twin=None, **more):
    return Sample(label, 100.0, 100.0 * math.exp(shift), paired=noise(1, n, deviation, shift),
                  twin=noise(2, n, deviation) if twin is None else twin, **more)


def verdicts(*samples, margin=MARGIN):
    return [cell.verdict for cell in gate.judge(samples, ALPHA, margin).cells]


def test_each_verdict():
    assert verdicts(sample(shift=0.05)) == ["regression"]
    assert verdicts(sample()) == ["pass"]
    assert verdicts(sample(shift=0.02)) == ["pass"]                       # proven, and less than the threshold
    assert verdicts(sample(shift=-0.05)) == ["faster"]
    assert verdicts(sample(n=5, shift=0.05)) == ["inconclusive"]          # too few for anything to be proven
    assert verdicts(sample(deviation=0.2)) == ["inconclusive"]
    assert verdicts(sample(invalid="it failed")) == ["invalid"]


def test_noise_raises_what_counts_as_a_regression_but_not_what_passes():
    loud = noise(2, 12, 0.1)
    outcome = gate.judge([sample(shift=0.04, twin=loud)], ALPHA, MARGIN)
    (cell,) = outcome.cells
    assert cell.floor > 0.04 and cell.threshold == cell.floor and cell.verdict == "inconclusive"
    assert verdicts(sample(twin=loud)) == ["pass"]


def test_more_cells_need_more_proof():
    # Of seven blocks all slower: p is 1/128, within a third of 5 % for one cell and not for a quarter of that.
    slow = sample(n=7, shift=0.1)
    assert verdicts(slow) == ["regression"]
    assert verdicts(slow, *(sample(f"other {number}") for number in range(3)))[0] == "inconclusive"


def test_a_base_that_differs_from_itself_makes_the_cell_invalid():
    outcome = gate.judge([sample(shift=0.1, twin=noise(2, 12, 0.001, 0.05))], ALPHA, MARGIN)
    assert outcome.verdict == "invalid"
    assert outcome.cells[0].reason.startswith("A/A check: the base differs from itself by +5.1 %")
    # As long as more blocks can come, it may have been chance: but nothing is concluded meanwhile.
    early = gate.judge([sample(shift=0.1, twin=noise(2, 12, 0.001, 0.05))], ALPHA, MARGIN, is_last=False)
    assert early.verdict == "inconclusive" and not early.decided()
    # Two copies of a file always differ by something. What is less than half of the margin turns no verdict.
    assert verdicts(sample(twin=noise(2, 12, 0.001, 0.01))) == ["pass"]


def test_the_worst_verdict_is_that_of_the_whole():
    slow, spoilt, open_, good = (sample(shift=0.1), sample(invalid="it failed"), sample(deviation=0.2), sample())
    for samples, verdict, status in (
            ((good, open_, spoilt, slow), "regression", 1), ((good, open_, spoilt), "invalid", 4),
            ((good, open_), "inconclusive", 3), ((good, sample(shift=-0.1)), "pass", 0)):
        assert gate.judge(samples, ALPHA, MARGIN).verdict == verdict and gate.exit_status(verdict, None) == status
    assert (gate.exit_status("inconclusive", "pass"), gate.exit_status("inconclusive", "fail")) == (0, 1)
    assert (gate.exit_status("invalid", "pass"), gate.exit_status("regression", "pass")) == (4, 1)


def test_planning_is_done_when_more_blocks_could_change_nothing():
    assert gate.judge([sample(shift=0.1), sample(deviation=0.2)], ALPHA, MARGIN).decided()
    assert gate.judge([sample(), sample(invalid="it failed")], ALPHA, MARGIN).decided()
    assert not gate.judge([sample(), sample(deviation=0.2)], ALPHA, MARGIN).decided()


def test_instructions_are_judged_by_the_range_of_their_counts():
    def judged(base, new, margin=math.log(1.005)):
        return instructions.Counts(CELL, list(base), list(new)).judged(margin)

    assert judged((1000, 1001, 1000), (1009, 1010, 1011)).verdict == "regression"
    assert judged((1000, 1001, 1000), (1003, 1002, 1003)).verdict == "pass"
    assert judged((1000, 1001, 1000), (990, 991, 990)).verdict == "faster"
    assert judged((1000, 1001, 1000), (1004, 1000, 1009)).verdict == "inconclusive"
    loud = judged((1000, 1008, 1000), (1020, 1020, 1020))
    assert loud.verdict == "invalid" and loud.reason == "A/A check: counts of the base differ by 0.80 %"


@pytest.mark.parametrize("text", ["0", "-1", "101", "much", "nan", ""])
def test_a_threshold_that_is_none_is_refused(text):
    with pytest.raises(Refused, match="--threshold"):
        gate.parse_margin(text)


def test_statistics_cost_little():
    """Time of this process's own, so a slow machine has to be forty times slower to break it."""
    begin = time.process_time()
    for looked in ab.LOOKS:
        gate.judge([sample(f"cell {number}", n=looked) for number in range(5)], ALPHA, MARGIN)
    assert time.process_time() - begin < 2.0


def whole_run(dice, shift, deviation):
    """The verdict of a gate of four cells, of which the first is slower by `shift`; it looks until it is decided. Each
    trial has noise of its own, and one in thirty is hit by somebody else, so one block in ten."""
    blocks = ab.LOOKS[-1]
    costs = dice.normal(0, deviation, (3, 4, blocks)) + dice.choice([0, 0.3], (3, 4, blocks), p=[0.97, 0.03])
    base, new, again = costs
    new[0] += shift
    budget = Budget(gate.ALPHA, len(ab.LOOKS))
    for n in ab.LOOKS:
        paired, twin = (new - (base + again) / 2)[:, :n], (again - base)[:, :n]
        samples = [Sample(f"cell {cell}", 1.0, 1.0, paired=paired[cell], twin=twin[cell]) for cell in range(4)]
        outcome = gate.judge(samples, budget.spend(n == blocks), MARGIN, n == blocks)
        if outcome.decided():
            break
    return outcome.verdict


def test_whole_runs_find_what_is_there_and_seldom_what_is_not():
    dice, runs = numpy.random.default_rng(8), 100
    quiet = [whole_run(dice, 0.0, 0.015) for _ in range(runs)]
    assert quiet.count("regression") <= 1 and quiet.count("invalid") <= 5
    assert [whole_run(dice, math.log(1.05), 0.015) for _ in range(runs)].count("regression") >= 0.85 * runs
    assert [whole_run(dice, math.log(1.10), 0.015) for _ in range(runs)].count("regression") >= 0.95 * runs


def test_any_two_arms_of_a_block_are_mirrored():
    orders = [order(random.Random(seed)) for seed in range(50)]
    assert len({tuple(first) for first, _ in orders}) == 6 and orders[7] == order(random.Random(7))
    for first, second in orders:
        assert sorted(first) == sorted(ARMS) and second == first[::-1]


def test_what_makes_a_portion_dearer_for_all_arms_is_not_in_their_ratio():
    def block(*slower):
        costs = {"base": 100.0, "new": 110.0, "again": 100.0}
        return Block({arm: Trial(arm, [cost * each for each in slower]) for arm, cost in costs.items()}, 0, 0, 10)

    assert math.expm1(block(1.0, 1.0).paired) == pytest.approx(0.1)
    assert block(1.0, 2.5).paired == pytest.approx(block(1.0, 1.0).paired)
    assert block(1.0, 2.5).twin == pytest.approx(0)


def test_a_block_that_failed_is_measured_again(tmp_path, monkeypatch):
    made = Block({arm: Trial(arm, [100.0, 101.0], 1000.0) for arm in ARMS}, 0, 0, 10)
    fates = iter([made, Failed("it was Monday"), made, made])

    def measure_block(*_arguments):
        fate = next(fates)
        if isinstance(fate, Failed):
            raise fate
        return fate

    recorded = []
    monkeypatch.setattr(ab, "measure_block", measure_block)
    monkeypatch.setattr(ab, "LOOKS", (3,))
    plan = SimpleNamespace(seed=1, placement=lambda cell: "somewhere")
    comparison = ab.Comparison(plan, [CELL], {}, MARGIN, 60.0, lambda *row: recorded.append(row))
    outcome = comparison.run(tmp_path, tmp_path, lambda *_said: None)
    assert outcome.cells[0].estimate.n == 3 and [row[3] for row in recorded] == ["", "it was Monday", "", ""]
    assert ab.conditions(comparison)[-1].startswith("1 attempts do not count; the last one: ")


@pytest.fixture
def report():
    samples = [sample("slow | er", shift=0.1, base_rate_per_s=1000.0, new_rate_per_s=900.0), sample("same"),
               sample("loud", n=5), sample("broken", invalid="errors: <reset> 3")]
    return gate_report.Report("A gate", "run-1", "CPU us/op", gate.judge(samples, ALPHA, MARGIN), 1, {"path": "/a"},
                              {"path": "/b"}, notes=["something happened"])


def test_one_screen_for_people(report):
    lines = gate_report.text(report).splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 120
    rows = {line.split("  ")[0]: line for line in lines}
    assert "+10" in rows["slow | er"] and rows["slow | er"].endswith("REGRESSION")
    assert " ~ " in rows["same"] and rows["same"].endswith("pass")
    assert " any " in rows["loud"] and rows["loud"].endswith("inconclusive")
    assert rows["broken"].endswith("INVALID") and "broken: errors: <reset> 3" in lines
    assert "something happened" in lines and lines[-1].startswith("Verdict: REGRESSION (slow | er +10")


def test_json_holds_every_figure_and_no_infinity(report):
    data = json.loads(json.dumps(gate_report.as_data(report), allow_nan=False))
    assert (data["verdict"], data["exit_status"]) == ("regression", 1)
    slow, same, loud, broken = data["cells"]
    assert slow["change"] == pytest.approx(0.1, abs=0.02) and slow["low"] < slow["change"] < slow["high"]
    assert 0 < slow["p"] < 0.01 and slow["proven"] and not same["proven"]
    assert loud["low"] is None and loud["detectable"] is None and loud["change"] is not None
    assert broken["change"] is None and broken["reason"] == "errors: <reset> 3"


def test_junit_has_a_case_for_each_cell(report):
    suite = ElementTree.fromstring(gate_report.junit(report))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
    kinds = {case.get("name"): [child.tag for child in case if child.tag != "system-out"] for case in suite}
    assert kinds == {"slow | er": ["failure"], "same": [], "loud": ["skipped"], "broken": ["error"]}


def test_the_markdown_table_is_one(report):
    lines = gate_report.markdown(report).splitlines()
    table = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert len(table) == 6 and len({line.count("|") for line in table}) == 1
    assert lines[0].startswith("### ❌ A gate: REGRESSION") and "- something happened" in lines


@pytest.mark.parametrize("client, backend, ours_s", [(1, 1, 3.0), (0, 1, 5.0), (0, 0, 6.0)])
def test_who_shares_the_subjects_cpu_is_no_stranger_there(client, backend, ours_s):
    bench = object.__new__(block.Bench)
    bench.placement = Placement((0,), (client,), (backend,))
    bench.busy_s = {"subject": 3.0, "client": 2.0, "backend": 1.0}
    assert bench.ours_s() == ours_s
