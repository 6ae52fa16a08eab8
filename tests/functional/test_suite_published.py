"""Tables in an article's layout: published figures stand beside the cells they are of, and beside no others."""
import csv
import subprocess
import sys

import pytest
from suite_fakes import SCENARIO, TLSDYNO
from tlsdyno_suite import cli, layout, pivot, record, scenario
from tlsdyno_suite.programs import SCENARIOS
from tlsdyno_suite.refusal import Refused
from tlsdyno_suite.subjects import DRIVERS

KNOWN = tuple(DRIVERS)
TABLE = """
[table]
rows = ["reuse"]
columns = ["subject"]
value = "connections_per_s"
published = "figures.csv"
where = { table = [1] }
called = { subject = { "stud-1" = "reference" } }
without = { "hitch-0.1" = "nobody has it any more" }
"""
FIGURES = """table,subject,reuse,value,unit
1,stud-1,never,250,connections_per_s
1,hitch-0.1,never,125,connections_per_s
2,stud-1,always,99999,connections_per_s
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "figures.csv").write_text(FIGURES)
    (tmp_path / "scenario.toml").write_text(SCENARIO.replace('["reference"]', '["reference", "nginx"]') + TABLE)
    return tmp_path


def load(place) -> scenario.Scenario:
    return scenario.load(place / "scenario.toml", KNOWN)


def write(place, *changes: dict[str, object]) -> None:
    """One row for each cell of the scenario and each change that is of it."""
    recorder = record.Recorder(place / "results.csv")
    for cell in scenario.expand(load(place)):
        for change in changes:
            if all(change.get(name, getattr(cell, name)) == getattr(cell, name) for name in ("subject", "reuse")):
                recorder.write({"run_id": "r", "scenario": "some", "repeat": 1, **record.asked_row(cell),
                                "connections_per_s": 1000.0, "capacity_per_core_per_s": 1100.0, "status": "ok",
                                "stands": "all", "floor_kind": "library", **change})
    recorder.close()


def cells(text: str, part: str) -> list[str]:
    """Of all lines of this part: their cells, wherever the line breaks."""
    found = [line.split(part, 1)[1] for line in text.splitlines() if f" {part} " in line]
    return [" ".join(cell.split()) for line in found for cell in line.split("  ") if cell.strip()]


def test_todays_figure_stands_beside_the_published_one_with_their_ratio(place):
    write(place, {}, {"repeat": 2, "connections_per_s": 1020.0})
    text = cli.shown(place, "text")
    assert cells(text, "today") == ["1 010 ±1%", "1 010 ±1%", "- [1]", "1 010 ±1%", "1 010 ±1%"]
    assert cells(text, "published") == ["250", "unpublished", "125", "unpublished", "unpublished"]
    assert cells(text, "ratio") == ["x 4.04"]
    assert "[1] Not measured: nobody has it any more. hitch-0.1." in text and "99 999" not in text
    assert max(map(len, text.splitlines())) <= 120
    markdown = cli.shown(place, "markdown")
    assert "| new session each time | today | 1 010 ±1% | 1 010 ±1% | - [1] |" in markdown
    assert "|  | published | 250 | unpublished | 125 |" in markdown and "|  | ratio | x 4.04 |  |  |" in markdown


def test_a_rate_that_does_not_stand_is_estimated_from_its_cost_and_marked(place):
    write(place, {"status": "invalid", "stands": "cost", "reason": "load generator was the bottleneck"})
    text = cli.shown(place, "text")
    assert cells(text, "today")[0] == "~1 100 [1]" and cells(text, "ratio") == ["x 4.40"]
    assert "[1] Rate left out: load generator was the bottleneck. reference (x2), nginx (x2)." in text
    assert pivot.ESTIMATE in " ".join(text.split())


@pytest.mark.parametrize("status, word", [("invalid", "invalid [1]"), ("skipped", "skipped [1]"),
                                          ("failed", "FAILED [1]")])
def test_a_cell_without_a_figure_says_why(place, status, word):
    write(place, {"status": status, "stands": "", "reason": "it is so", "connections_per_s": "",
                  "capacity_per_core_per_s": ""})
    for wanted in pivot.FORMATS:
        text = cli.shown(place, wanted)
        assert word in text and "it is so. reference (x2), nginx (x2)." in text


def test_a_page_with_no_published_figure_says_so(place):
    text = (place / "scenario.toml").read_text().replace("[load]", "connections = [4, 5]\n[load]")
    (place / "scenario.toml").write_text(text.replace("connections = 4\n", ""))
    (place / "figures.csv").write_text(FIGURES.replace("table,", "connections,table,").replace("\n1,", "\n4,1,")
                                       .replace("\n2,", "\n4,2,"))
    write(place, {})
    text = cli.shown(place, "text")
    assert "5 connections; no figure was published for these" in text
    assert text.count("x 4.00") == 1 and text.count(" published  ") == 2


def test_every_cell_is_shown_when_it_is_asked_for(place):
    write(place, {})
    assert "CPU us/op" in cli.shown(place, "text", cells=True) and "today" not in cli.shown(place, "text", cells=True)


WRONG = {
    "no file": (TABLE.replace("figures", "nothing"), "No such file"),
    "no axis": (TABLE.replace('["reuse"]', '["rues"]'), "table.rows: nothing is called 'rues' (did you mean 'reuse'?)"),
    "both ways": (TABLE.replace('["subject"]', '["reuse"]'), "table.columns: 'reuse' is in rows too"),
    "no value": (TABLE.replace("connections_per_s", "speed"), "table.value: unknown value 'speed'"),
    "no column": (TABLE + 'published_value = "number"\n', "figures.csv has no column 'number'"),
    "not a number": (TABLE + 'published_value = "unit"\n', "row 2: unit is 'connections_per_s', not a number"),
    "nobody's": (TABLE.replace("hitch-0.1", "x"), "row 3 is of no cell of this scenario"),
    "two": (TABLE.replace("where = { table = [1] }\n", "").replace("stud-1", "stud-2").replace(
        "without = {", 'without = { "stud-1" = "-",'), None),
    "nothing": (TABLE + 'of = { reuse = ["sometimes"] }\n', "table.of: selects no cell"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_table_that_cannot_be_shown_is_refused_before_anything_starts(place, name):
    text, reason = WRONG[name]
    (place / "scenario.toml").write_text(SCENARIO + text)
    if reason is None:
        load(place)
        return
    with pytest.raises(Refused) as refusal:
        load(place)
    assert reason in str(refusal.value)


def test_two_published_figures_of_one_cell_are_refused(place):
    (place / "figures.csv").write_text(FIGURES + "1,stud-1,never,251,connections_per_s\n")
    with pytest.raises(Refused, match="rows 2 and 5 are both of one cell"):
        load(place)


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_each_scenario_in_the_tree_can_be_used(path):
    """Its claims and its published figures are all of cells that it has."""
    loaded = scenario.load(path, KNOWN)
    assert loaded.title and loaded.source
    assert bool(loaded.beside) == any(each.published.figures for each in loaded.layouts)


@pytest.mark.parametrize("path", sorted((SCENARIOS / "published").glob("*.csv")), ids=lambda path: path.stem)
def test_each_published_figure_says_where_it_was_read(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and {row["provenance"] for row in rows} <= {"seed", "article"}
    assert path.name in (path.parent / "README.md").read_text()


SHOW = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_a_hundred_thousand_rows_are_shown_in_half_a_gigabyte(place):
    write(place, {})
    header, *rows = (place / "results.csv").read_text().splitlines()
    names = header.split(",")
    filled = []
    for number in range(100_000 // len(rows)):
        for row in rows:
            fields = row.split(",")
            for at, name in enumerate(names):
                if name in record.FIGURES and not fields[at]:
                    fields[at] = f"{number + at / 7:.7g}"
            fields[names.index("repeat")] = str(number)
            filled.append(",".join(fields))
    (place / "results.csv").write_text("\n".join([header, *filled]) + "\n")
    for options in ([], ["--cells"]):
        command = [sys.executable, "-c", SHOW, str(TLSDYNO), "table", str(place), *options]
        assert int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < 500_000


def test_a_run_that_is_copied_elsewhere_has_its_published_figures_with_it(place, tmp_path_factory):
    """What keep_scenario leaves is all that a table needs."""
    loaded = load(place)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    cli.keep_scenario(loaded, elsewhere)
    write(place, {})
    (place / "results.csv").rename(elsewhere / "results.csv")
    assert "x 4.00" in cli.shown(elsewhere, "text")


def test_values_of_other_kinds_are_computed_from_their_columns():
    row = {"stands": "all", "received_bytes_per_s": "1e9", "transactions_per_s": "10", "cores": "2",
           "capacity_per_core_per_s": "20", "requests_per_connection": "5", "loop": "closed",
           "transaction_mean_us": "1500"}
    assert layout.VALUES["gbit_per_s"].read(row) == pytest.approx(8)
    assert layout.VALUES["gbit_per_s"].estimated(row) == pytest.approx(32)
    assert layout.VALUES["connections_per_s"].estimated(row) == pytest.approx(8)
    assert layout.VALUES["transactions_per_s"].estimated(row) == pytest.approx(40)
    assert layout.VALUES["transaction_mean_ms"].read(row) == pytest.approx(1.5)
    assert layout.VALUES["transaction_mean_ms"].estimated(row) is None
    kept = {**row, "requests_per_connection": "inf"}
    assert layout.VALUES["connections_per_s"].estimated(kept) is None
    assert layout.VALUES["transactions_per_s"].estimated({**row, "loop": "search:100ms,0.1"}) is None


MORE = """
[[table]]
title = "A tenth"
rows = ["reuse"]
columns = ["subject"]
value = "transaction_max_ms"
scale = 0.1
published = "limits.csv"
published_value = "longest"
column = { mode = "reuse" }
subject = "nginx"
"""


def test_a_file_of_other_words_is_understood(place):
    (place / "limits.csv").write_text("mode,longest\nnever,50\nalways,25\n")
    (place / "scenario.toml").write_text(SCENARIO.replace('["reference"]', '["reference", "nginx"]') + MORE)
    write(place, {"transaction_max_us": 1_000_000})
    text = cli.shown(place, "text")
    assert "A tenth: ms, longest" in text
    assert cells(text, "today") == ["100"] * 4
    assert cells(text, "published") == ["unpublished", "50.0", "unpublished", "25.0"]
    assert cells(text, "ratio") == ["x 2.00", "x 4.00"]
    (place / "scenario.toml").write_text(SCENARIO + MORE.replace("transaction_max_ms", "connections_per_s"))
    with pytest.raises(Refused, match="table.0..scale: connections_per_s may be an estimate"):
        load(place)
