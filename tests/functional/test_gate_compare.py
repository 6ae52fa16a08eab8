"""`tlsdyno compare` and `tlsdyno history`: files that are as they should be, and every way in which they are not."""
import json
import math
import os
import subprocess
from pathlib import Path

import numpy
import pytest
from suite_fakes import TLSDYNO
from tlsdyno_suite import cli, history, record
from tlsdyno_suite.cell import PARAMETERS

MACHINE = {"cpu_model": "a CPU", "kernel": "6.1", "openssl": "3.0", "cpus_available": "0-1",
           "sysctl": {"net.core.somaxconn": "4096"}}
CASES = ("work=full", "work=resumed")


def write_run(directory: Path, scale: float = 1.0, repeats: int = 6, cases: tuple[str, ...] = CASES, seed: int = 1,
              machine: dict | None = None, **columns: object) -> Path:
    """A run with a cost of 100 and 10 us, times `scale`, with 1 % of noise."""
    directory.mkdir(parents=True, exist_ok=True)
    dice = numpy.random.default_rng(seed)
    recorder = record.Recorder(directory / "results.csv")
    for repeat in range(1, repeats + 1):
        for number, case in enumerate(cases):
            recorder.write({
                "run_id": directory.name, "scenario": "made", "case": case, "repeat": repeat, "subject": "reference",
                **{name: "1" for name in PARAMETERS}, "placement": "subject 0; client 1", "status": "ok",
                "stands": "all", "connections_per_s": 5000.0, "loop": "closed",
                "subject_cpu_us_per_op": scale * math.exp(dice.normal(0, 0.01)) * (100.0, 10.0)[number], **columns})
    recorder.close()
    (directory / "machine.json").write_text(json.dumps(MACHINE if machine is None else machine))
    return directory / "results.csv"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "base", seed=1)
    return tmp_path


def tlsdyno(capsys, *arguments: str) -> tuple[int, str, str]:
    status = cli.main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_each_exit_status(place, capsys):
    write_run(place / "same", seed=2)
    write_run(place / "slow", 1.1, seed=3)
    write_run(place / "loud", seed=4)
    text = (place / "loud" / "results.csv").read_text().splitlines()
    column = record.COLUMNS.index("subject_cpu_us_per_op")
    for number, factor in enumerate((0.5, 0.5, 2.0, 2.0, 0.6, 0.6, 1.7, 1.7, 0.5, 0.5, 2.0, 2.0), start=1):
        fields = text[number].split(",")
        fields[column] = str(float(fields[column]) * factor)
        text[number] = ",".join(fields)
    (place / "loud" / "results.csv").write_text("\n".join(text) + "\n")
    write_run(place / "spoilt", status="invalid", stands="", reason="errors: reset 7")

    status, out, _ = tlsdyno(capsys, "compare", "base/results.csv", "same/results.csv")
    assert status == 0 and "cannot be told from a change of the code" in out
    status, out, _ = tlsdyno(capsys, "compare", "base", "slow", "--out", "reports")
    assert status == 1 and "REGRESSION (reference full +" in out
    assert json.loads((place / "reports" / "report.json").read_text())["exit_status"] == 1
    assert {path.name for path in (place / "reports").iterdir()} >= {"report.txt", "junit.xml", "comment.md"}
    assert tlsdyno(capsys, "compare", "base", "slow", "--threshold", "20")[0] == 0
    status, out, _ = tlsdyno(capsys, "compare", "base", "loud")
    assert status == 3 and "inconclusive" in out
    assert tlsdyno(capsys, "compare", "base", "loud", "--inconclusive", "fail")[0] == 1
    assert tlsdyno(capsys, "compare", "base", "loud", "--inconclusive", "pass")[0] == 0
    status, out, _ = tlsdyno(capsys, "compare", "base", "spoilt")
    assert status == 4 and "0 of 6 rows stand in spoilt/results.csv: errors: reset 7" in out


def change(path: Path, row: int, old: str, new: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    assert old in lines[row - 1]
    lines[row - 1] = lines[row - 1].replace(old, new, 1)
    path.write_text("".join(lines))


def new(place: Path, **more: object) -> Path:
    return write_run(place / "new", seed=9, **more)  # type: ignore[arg-type]


def truncate(path: Path) -> None:
    path.write_text(path.read_text()[:-40])


def twice(path: Path) -> None:
    """The last row."""
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[-1])


DAMAGE = {
    "empty": (lambda place: new(place).write_text(""), "new/results.csv: the file is empty"),
    "only a head": (lambda place: new(place, repeats=0), "new/results.csv: has no rows"),
    "another file": (lambda place: new(place).write_text("a,b\n1,2\n"), "new/results.csv: run_id: no such column"),
    "cut off": (lambda place: truncate(new(place)), "new/results.csv: row 13: has not as many fields"),
    "no text": (lambda place: new(place).write_bytes(b"\xff\xfe\x00"), "new/results.csv: not a CSV file"),
    "no number": (lambda place: change(new(place), 5, "5000", "5e3x"),
                  "new/results.csv: row 5: connections_per_s: '5e3x' is no such figure"),
    "infinite": (lambda place: change(new(place), 4, "5000", "inf"),
                 "new/results.csv: row 4: connections_per_s: 'inf' is no such figure"),
    "no status": (lambda place: change(new(place), 3, ",ok,", ",fine,"), "new/results.csv: row 3: status: 'fine'"),
    "stands for nothing": (lambda place: change(new(place), 3, ",all,", ",some,"),
                           "new/results.csv: row 3: stands: 'some'"),
    "twice the same": (lambda place: twice(new(place)),
                       "new/results.csv: row 14: is the same cell and repeat as row 13"),
    "less than nothing": (lambda place: change(new(place), 4, "5000", "-5000"),
                          "new/results.csv: row 4: connections_per_s: '-5000' is no such figure"),
    "fewer cells": (lambda place: new(place, cases=CASES[:1]),
                    "new/results.csv: has no cell `reference resumed`, which row 3 of base/results.csv has"),
    "another matrix": (lambda place: new(place, cases=("work=full", "work=other")),
                       "new/results.csv: has no cell `reference resumed`, which row 3 of base/results.csv has"),
    "another parameter": (lambda place: new(place, connections="2"), "the runs have different matrices"),
    "too few repeats": (lambda place: new(place, repeats=4),
                        "new/results.csv: row 8: cell `reference full` ends after 4 repeats and 5 are needed"),
    "another CPU": (lambda place: new(place, machine={**MACHINE, "cpu_model": "its successor"}),
                    "new/machine.json: cpu_model: its successor, and a CPU where the base was measured: another"),
    "another setting": (lambda place: new(place, machine={**MACHINE, "sysctl": {"net.core.somaxconn": "128"}}),
                        "new/machine.json: sysctl.net.core.somaxconn: 128, and 4096 where the base was measured"),
    "no machine": (lambda place: (new(place).parent / "machine.json").unlink(),
                   "new/machine.json: No such file or directory: where results.csv was measured is not known"),
    "no JSON": (lambda place: (new(place).parent / "machine.json").write_text("{"), "new/machine.json: is not JSON"),
    "other CPUs": (lambda place: change(new(place), 6, "subject 0; client 1", "subject 1; client 0"),
                   "new/results.csv: row 6: placement: subject 1; client 0, and subject 0; client 1 in the base"),
    "another network": (lambda place: (write_run(place / "hosts", seed=1, network="namespaces"),
                                       (place / "hosts" / "results.csv").replace(place / "base" / "results.csv"),
                                       new(place, network="loopback")),
                        "new/results.csv: row 2: network: loopback, and namespaces in the base"),
    "nothing": (lambda place: None, "new/results.csv: No such file or directory"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_cannot_be_compared_is_refused_with_file_and_row(place, capsys, kind):
    damage, reason = DAMAGE[kind]
    damage(place)
    status, out, err = tlsdyno(capsys, "compare", "base/results.csv", "new/results.csv", "--out", "reports")
    assert status == 2 and out == "" and not (place / "reports").exists()
    assert err.startswith("tlsdyno: ") and err.count("\n") == 1 and reason in err


@pytest.mark.parametrize("kind", ["another CPU", "no machine", "other CPUs"])
def test_other_machines_are_compared_by_force_only_and_it_says_so(place, capsys, kind):
    DAMAGE[kind][0](place)
    status, out, _ = tlsdyno(capsys, "compare", "base/results.csv", "new/results.csv", "--force")
    assert status == 0 and (kind == "other CPUs" or "compared by force: " in out)


@pytest.mark.parametrize("command", [("ab", "--base", "a", "--new", "b"), ("compare", "a", "b"), ("history", "h.csv")],
                         ids=["ab", "compare", "history"])
def test_without_statistics_nothing_is_a_regression(place, command):
    """What Python makes of a module that is not there ends with 1."""
    (place / "scipy.py").write_text("raise ModuleNotFoundError('No module', name='scipy')\n")
    done = subprocess.run([str(TLSDYNO), *command], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(place)})
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "tlsdyno: scipy: is not installed (scripts/install-deps gate)\n"


@pytest.mark.parametrize("kind, reason", [
    ({"loop": "hold"}, "connections that rest"), ({"loop": "burst"}, "a burst is over"),
    ({"failover": "kill"}, "a window in which a host dies")], ids=["hold", "burst", "failover"])
def test_a_cell_that_has_no_cost_by_its_nature_is_left_out(place, capsys, kind, reason):
    """Its rows are valid, and its latencies or its memory stand: that there is no cost spoils nothing."""
    for name in ("one", "other"):
        lines = write_run(place / name, cases=("work=full",)).read_text()
        more = write_run(place / "more", cases=("work=costless",), subject_cpu_us_per_op=None, **kind).read_text()
        (place / name / "results.csv").write_text(lines + more.partition("\n")[2])
        (place / "more" / "results.csv").unlink()
    status, out, _ = tlsdyno(capsys, "compare", "one", "other")
    assert status == 0 and f"reference costless left out: {reason}" in out


def write_history(path: Path, costs: list[float], cell: str = "full") -> Path:
    rows = [f"run-{number:03d},{cell},{cost:.6g},5,c{number}" for number, cost in enumerate(costs)]
    path.write_text("\n".join([",".join(history.COLUMNS), *rows]) + "\n")
    return path


def steps(*levels: tuple[int, float], seed: int = 1, noise: float = 0.01) -> list[float]:
    dice = numpy.random.default_rng(seed)
    return [100 * level * math.exp(dice.normal(0, noise)) for count, level in levels for _ in range(count)]


def test_change_points_are_found_where_they_are(place):
    path = write_history(place / "h.csv", steps((15, 1.0), (12, 1.05), (8, 1.0)))
    first, second = history.changes(history.read(path))
    assert abs(first.index - 15) <= 1 and abs(second.index - 27) <= 1
    assert math.expm1(first.shift) == pytest.approx(0.05, abs=0.01) and second.shift < 0
    assert not first.is_open and not second.is_open  # the second took the first back


def test_noise_has_no_change_points(place):
    found = sum(len(history.changes(history.read(write_history(place / "h.csv", steps((50, 1.0), seed=seed)))))
                for seed in range(20))
    assert found == 0


def test_a_change_too_small_to_matter_is_not_reported(place):
    path = write_history(place / "h.csv", steps((25, 1.0), (25, 1.01), noise=0.001))
    assert history.changes(history.read(path)) == []


def test_the_creep_that_no_gate_sees_is_seen(place, capsys):
    """Seven steps of 1 %, each below what a gate of 3 % lets pass."""
    path = write_history(place / "h.csv", steps(*((6, 1.01 ** step) for step in range(8)), noise=0.005))
    status, out, _ = tlsdyno(capsys, "history", "h.csv", "--plot", "h.svg")
    assert status == 1 and "RISE full: " in out and "commit c" in out
    assert (place / "h.svg").read_text().startswith("<?xml") and path.exists()
    # What a run cost can be accepted.
    status, out, _ = tlsdyno(capsys, "history", "h.csv", "--since", "run-042")
    assert status == 0 and "RISE" not in out
    status, _, err = tlsdyno(capsys, "history", "h.csv", "--since", "never")
    assert status == 2 and err == "tlsdyno: h.csv: --since: has no run never\n"


def test_runs_are_appended_once_and_nothing_is_rewritten(place, capsys):
    write_run(place / "next", 1.02, seed=5)
    assert tlsdyno(capsys, "history", "h.csv", "--add", "base", "--commit", "abc")[0] == 0
    before = (place / "h.csv").read_text()
    assert len(history.read(place / "h.csv")) == 2 and before.splitlines()[1].endswith(",6,abc")
    status, _, err = tlsdyno(capsys, "history", "h.csv", "--add", "base", "next/results.csv")
    after = (place / "h.csv").read_text()
    assert status == 0 and "2 rows added" in err and after.startswith(before) and len(after.splitlines()) == 5


def test_a_run_of_ab_is_appended_with_what_its_new_build_cost(place, capsys):
    (place / "gate").mkdir()
    (place / "gate" / "report.json").write_text(json.dumps({"run_id": "r", "unit": "CPU us/op", "cells": [
        {"cell": "full", "new": 105.5, "n": 8, "verdict": "pass"},
        {"cell": "resumed", "new": 0.0, "n": 0, "verdict": "invalid"}]}))
    assert tlsdyno(capsys, "history", "h.csv", "--add", "gate")[0] == 0
    (entry,) = history.read(place / "h.csv")
    assert (entry.run_id, entry.cell, entry.cost_us) == ("r", "full", 105.5)


def test_instructions_are_no_microseconds(place, capsys):
    (place / "gate").mkdir()
    (place / "gate" / "report.json").write_text(json.dumps({"run_id": "r", "unit": "instructions/op", "cells": [
        {"cell": "full", "new": 1.5e6, "n": 3, "verdict": "pass"}]}))
    status, _, err = tlsdyno(capsys, "history", "h.csv", "--add", "gate")
    assert status == 2 and not (place / "h.csv").exists()
    assert err == "tlsdyno: gate/report.json: unit: instructions/op, and a history is of CPU us/op\n"


def test_thresholds_come_from_history_where_there_is_enough(place, capsys):
    write_run(place / "slow", 1.06, seed=3)
    assert tlsdyno(capsys, "compare", "base", "slow")[0] == 1
    write_history(place / "h.csv", steps((30, 1.0), noise=0.05), "reference full")
    with (place / "h.csv").open("a") as file:
        file.write("".join(f"run-{number},reference resumed,10,5,\n" for number in range(9)))
    status, out, _ = tlsdyno(capsys, "compare", "base", "slow", "--history", "h.csv")
    verdicts = {line.split("  ")[0]: line.split()[-1] for line in out.splitlines() if line.startswith("reference ")}
    assert verdicts["reference full"] != "REGRESSION"      # its runs differ by as much without any reason
    assert verdicts["reference resumed"] == "REGRESSION"   # nine runs are not enough to know
    assert status == 1 and "reference full: its runs usually differ by up to " in out


DAMAGED = [
    ("", "h.csv: the file is empty"),
    ("a,b\n", "h.csv: row 1: is not the head of a history"),
    (",".join(history.COLUMNS) + "\n", "h.csv: has no rows"),
    (",".join(history.COLUMNS) + "\nr,c,100,5,\nr,c,100\n", "h.csv: row 3: has not as many fields"),
    (",".join(history.COLUMNS) + "\nr,c,100,5,\nr,c,0,5,\n", "h.csv: row 3: cpu_us_per_op: '0' is no cost"),
    (",".join(history.COLUMNS) + "\nr,c,nan,5,\n", "h.csv: row 2: cpu_us_per_op: 'nan' is no cost"),
]


@pytest.mark.parametrize("content, reason", DAMAGED)
def test_a_damaged_history_is_refused_with_its_row(place, capsys, content, reason):
    (place / "h.csv").write_text(content)
    for more in ((), ("--add", "base")) if "has no rows" not in reason else ((),):
        status, out, err = tlsdyno(capsys, "history", "h.csv", *more)
        assert status == 2 and out == "" and err.count("\n") == 1 and reason in err
        assert (place / "h.csv").read_text() == content


def test_nothing_is_added_to_a_history_that_is_cut_off(place, capsys):
    write_history(place / "h.csv", [100.0, 101.0])
    cut = (place / "h.csv").read_text()[:-1]
    for content in (cut, cut.splitlines()[0]):
        (place / "h.csv").write_text(content)
        status, out, err = tlsdyno(capsys, "history", "h.csv", "--add", "base")
        assert status == 2 and out == "" and "h.csv: row " in err and "is cut off: there is no end of line" in err
        assert (place / "h.csv").read_text() == content


def test_what_cannot_be_added_leaves_the_history_as_it_was(place, capsys):
    write_run(place / "spoilt", status="invalid", stands="")
    for run, reason in (("spoilt", "has no cell whose cost stands"), ("nowhere", "No such file")):
        status, _, err = tlsdyno(capsys, "history", "h.csv", "--add", "base", run)
        assert status == 2 and reason in err and not (place / "h.csv").exists()
    write_history(place / "h.csv", [100.0])
    status, _, err = tlsdyno(capsys, "history", "h.csv", "--plot", "nowhere/plot.svg")
    assert status == 2 and "--plot" in err and err.count("\n") == 1
