"""Claims: what a scenario says of its own figures is refused where it means nothing, and else held against the rows."""
import re

import pytest
from suite_fakes import SCENARIO
from tlsdyno_suite import claims, scenario
from tlsdyno_suite.programs import SCENARIOS
from tlsdyno_suite.refusal import Refused
from tlsdyno_suite.subjects import DRIVERS

KNOWN = tuple(DRIVERS)
TWO = SCENARIO.replace('["reference"]', '["reference", "hitch", "nginx"]').replace("[load]", """
[axes.size]
small = { response_bytes = 1024, backend = "tcp" }
large = { response_bytes = 2048, backend = "unix" }
[load]""")


def claim(holds: str, more: str = "") -> str:
    return f'[[claim]]\ntext = "something"\n{more}\nholds = "{holds}"\n'


def load(tmp_path, text: str) -> scenario.Scenario:
    path = tmp_path / "some.toml"
    path.write_text(text)
    return scenario.load(path, KNOWN)


COST = "cost(subject='reference', reuse='never', size='small')"
WRONG = {
    "no figure": ("cots(subject='reference') < 1", "unknown figure 'cots' (did you mean 'cost'?)"),
    "no comparison": (COST, "a claim is one comparison"),
    "two comparisons": (f"1 < {COST} < 2", "a claim is one comparison"),
    "equality": (f"{COST} == 2", "a claim is one comparison"),
    "no expression": ("cost(", "not an expression"),
    "empty": (" ", "not an expression"),
    "code": ("__import__('os').system('true') < 1", "not a figure (character 1)"),
    "attribute": (f"{COST}.real < 1", "only figures, numbers and + - * / can be compared"),
    "name": ("reference < 1", "only figures, numbers and + - * / can be compared (character 1)"),
    "power": ("9 ** 9 < 1", "only figures, numbers and + - * / can be compared"),
    "text": ("'a' < 1", "only figures, numbers and + - * / can be compared"),
    "truth": ("True < 1", "only figures, numbers and + - * / can be compared"),
    "lambda": ("(lambda: 1)() < 1", "not a figure"),
    "stars": ("cost(**{}) < 1", "a selection is NAME='TEXT' or NAME=NUMBER"),
    "computed": ("cost(subject='a' + 'b') < 1", "a selection is NAME='TEXT' or NAME=NUMBER"),
    "positional": ("cost('reference') < 1", "cost takes selections only"),
    "best of nothing": ("best() < 1", "best takes the name of a figure"),
    "best of a call": ("best(cost()) < 1", "best takes the name of a figure"),
    "best of one": (f"best(cost, subject='hitch') < {COST}", "best is of all peers: it takes no subject (character 1)"),
    "no subject": ("cost(reuse='never', size='small') < 1", "cost of whom?"),
    "other subject": ("cost(subject='stunnel', reuse='never', size='small') < 1", "no subject 'stunnel'"),
    "no such key": ("cost(subject='reference', rues='never') < 1",
                    "nothing is selected by 'rues' (did you mean 'reuse'?)"),
    "no such cell": ("cost(subject='reference', reuse='sometimes') < 1", "no cell has reuse=sometimes"),
    "several cells": ("cost(subject='reference', reuse='never') < 1",
                      "reuse=never selects several cells: they differ in size, response_bytes, backend"),
    "equation": (f"{COST} == 1 + 1", "a claim is one comparison: <=, <, >= or >"),
    "too long": ("1 + " * 200 + "1 < 2", "longer than 500 characters"),
    "too deep": ("(" * 240 + "1" + ")" * 240 + " < 2", "not an expression"),
    "nul": ("1 < 2\\u0000", "not an expression"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_claim_that_means_nothing_is_refused_with_its_line(tmp_path, name):
    holds, reason = WRONG[name]
    text = TWO + claim(f"{COST} > 0") + claim(holds)
    line = 1 + text.count("\n", 0, text.rindex("holds ="))
    with pytest.raises(Refused) as refusal:
        load(tmp_path, text)
    said = str(refusal.value)
    assert said.startswith(f"{tmp_path / 'some.toml'}: claim[1].holds (line {line}): ") and reason in said
    assert "\n" not in said


@pytest.mark.parametrize("more, reason", [
    ('level = "wish"', r"claim\[0\]\.level: impossible value 'wish'"),
    ('txt = "a"', r"claim\[0\]\.txt: unknown key \(did you mean 'text'\?\)"),
    ('each = { reuse = [] }', r"claim\[0\]\.each\.reuse: needs at least one value"),
    ('each = { colour = ["red"] }', r"nothing is selected by 'colour'"),
    ('each = { reuse = ["never", "sometimes"] }', r"no cell has reuse=sometimes"),
])
def test_what_stands_beside_a_claim_is_checked_too(tmp_path, more, reason):
    with pytest.raises(Refused, match=reason):
        load(tmp_path, TWO + claim("cost(subject='reference', size='small') < 1", more))


def test_a_scenario_without_peers_has_no_best(tmp_path):
    with pytest.raises(Refused, match="the scenario has no peers"):
        load(tmp_path, SCENARIO + claim("best(cost, reuse='never') < 1"))


def rows(**costs: list[float]) -> list[dict[str, str]]:
    """Of full handshakes, by subject; whatever costs less than nothing does not stand."""
    return [{"case": "size=small", "subject": subject, "reuse": "never", "response_bytes": "1024", "backend": "tcp",
             "stands": "cost" if cost > 0 else "", "subject_cpu_us_per_op": str(abs(cost)),
             "floor_cpu_us_per_op": "80", "subject_idle_kib_per_connection": "", "transactions_per_s": "1000"}
            for subject, several in costs.items() for cost in several]


CHOSEN = "each = { reuse = ['never'], size = ['small'] }"


def outcome(tmp_path, holds: str, measured: list[dict[str, str]]) -> claims.Outcome:
    found = claims.check(load(tmp_path, TWO + claim(holds, CHOSEN)).claims, measured)
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("holds, verdict, figures", [
    ("cost(subject='reference') <= best(cost)", "holds", "100 <= 110 (nginx); that is 0.91 of it"),
    ("cost(subject='reference') <= 0.9 * best(cost)", "does not hold",
     "100 <= 0.9 * 110 (nginx) = 99.0; that is 1.01 of it"),
    ("cost(subject='reference') <= 1.25 * floor()", "holds", "100 <= 1.25 * 80.0 = 100; that is 1.00 of it"),
    ("cost(subject='reference') < 1.25 * floor()", "does not hold", "100 < 1.25 * 80.0 = 100; that is 1.00 of it"),
    ("cost(subject='hitch') - cost(subject='nginx') >= 9.5", "holds", "120 - 110 = 10.0 >= 9.5; that is 1.05 of it"),
    ("cost(subject='hitch') / (floor() + 40) > 0", "holds", "120 / (80.0 + 40) = 1.00 > 0"),
])
def test_figures_are_medians_of_the_rows_that_stand(tmp_path, holds, verdict, figures):
    measured = rows(reference=[90, 100, 130, -1, -2, -3], hitch=[120], nginx=[105, 115])
    found = outcome(tmp_path, holds, measured)
    assert (found.verdict, found.figures) == (verdict, figures)


@pytest.mark.parametrize("holds, reason, absent", [
    ("cost(subject='hitch') < 1", "none of its rows has one that stands", False),
    ("cost(subject='nginx') < 1", "not in this run", True),
    ("best(cost) < 1", "no cost of any peer: none of their rows has one that stands", False),
    ("best(memory) < 1", "no memory of any peer", False),
    ("best(transactions) < 1", "no transactions of any peer", False),
    ("floor() / 0 < 1", "a division by nothing", False),
])
def test_what_is_not_there_is_not_measurable(tmp_path, holds, reason, absent):
    found = outcome(tmp_path, holds, rows(reference=[100], hitch=[-1]))
    assert found.verdict == "not measurable" and reason in found.figures and found.absent is absent


def test_a_peer_of_which_nothing_stands_is_named(tmp_path):
    found = outcome(tmp_path, "cost(subject='reference') <= best(cost)", rows(reference=[100], hitch=[-1], nginx=[110]))
    assert (found.verdict, found.figures) == ("holds", "100 <= 110 (nginx; without hitch); that is 0.91 of it")


def test_a_reference_of_another_kind_is_no_peer(tmp_path):
    text = TWO.replace('"nginx"', '"reference-no-resume"') + claim("cost(subject='reference') <= best(cost)", CHOSEN)
    measured = rows(**{"reference": [100], "hitch": [120], "reference-no-resume": [50]})
    assert claims.check(load(tmp_path, text).claims, measured)[0].verdict == "holds"


def test_each_value_is_a_claim_of_its_own(tmp_path):
    text = TWO + claim("cost(subject='reference', reuse='never') <= best(cost, reuse='never')",
                       "each = { response_bytes = [1024, 2048] }\nlevel = 'must'")
    found = claims.check(load(tmp_path, text).claims, rows(reference=[100], hitch=[90]))
    assert [(one.bound, one.verdict, one.absent) for one in found] == [
        ({"response_bytes": "1024"}, "does not hold", False), ({"response_bytes": "2048"}, "not measurable", True)]
    text = claims.render_text(found)
    assert text.startswith("Claims: must: 1 do not hold.\n1 more are of cells that are not in this run.\n")
    assert "something (must)\n  does not hold   1024  100 <= 90.0 (hitch); that is 1.11 of it" in text
    assert "| something (must) | 1024 | does not hold |" in claims.render_markdown(found)
    assert claims.render_text(found[1:]) == claims.render_markdown(found[1:]) == ""


def test_what_a_call_says_goes_before_each(tmp_path):
    found = outcome(tmp_path, "cost(subject='reference', size='large') < 1", rows(reference=[100]))
    assert "size=large" in found.figures


def test_peers_claims_what_is_to_be_reached():
    """Every cell of the table that the reference is to reach, each with what it must and what it aims at."""
    loaded = scenario.load(SCENARIOS / "peers.toml", KNOWN)
    spoken_of = {value for made in loaded.claims for values in made.each.values() for value in values}
    spoken_of |= {work for made in loaded.claims for work in re.findall(r"work='([^']+)'", made.holds)}
    works = {choice.name for axis in loaded.axes for choice in axis.choices}
    over_unix = {name for name in works if name.startswith("keep-alive-unix")}
    assert works - over_unix <= spoken_of
    assert {"must", "aim"} == {made.level for made in loaded.claims}
    assert len(scenario.expand(loaded)) == 5 * len(works) == 90


@pytest.mark.parametrize("right, verdict", [(100, "holds"), (95, "holds"), (105, "holds"), (80, "does not hold"),
                                            (120, "does not hold")])
def test_an_equation_holds_within_what_it_says(tmp_path, right, verdict):
    loaded = load(tmp_path, TWO + claim(f"{COST} == {right}", "within = 0.1"))
    rows = [{"subject": "reference", "case": "size=small", "reuse": "never", "stands": "cost",
             "subject_cpu_us_per_op": "100"}]
    outcome = claims.check(loaded.claims, rows)[0]
    assert outcome.verdict == verdict and f"100 within 10 % of {right}" in outcome.figures


def test_an_equation_without_a_tolerance_and_a_tolerance_without_one_are_refused(tmp_path):
    with pytest.raises(Refused, match="a claim with `within` is one comparison: =="):
        load(tmp_path, TWO + claim(f"{COST} <= 1", "within = 0.1"))
