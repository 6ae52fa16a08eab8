"""bench-loadgen in a short form: what it measures and writes, what its exit status says, and what it refuses."""
from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from programs import BUILD, ROOT
from tlsdyno_suite.bench_loadgen import Figure

# One kind of handshake of each, and one size.
SHORT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from tlsdyno_suite import bench_loadgen
bench_loadgen.FULL, bench_loadgen.RESUMED = bench_loadgen.FULL[2:3], bench_loadgen.RESUMED[:1]
bench_loadgen.SIZES = (16384,)
sys.exit(bench_loadgen.main(sys.argv[1:]))
"""


def bench(*arguments: str, build: Path = BUILD) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SHORT, str(ROOT / "scripts"), *arguments], capture_output=True,
                          text=True, timeout=280, check=False, env={**os.environ, "TLSDYNO_BUILD_DIR": str(build)})


@pytest.mark.parametrize("arguments, line", [
    (["--rounds", "0"], "--rounds, --turn: at least 1 round of turns of 0.02 to 1 s"),
    (["--turn", "5s"], "--rounds, --turn: at least 1 round of turns of 0.02 to 1 s"),
    (["--turn", "soon"], "--turn: 'soon' is not a time"),
])
def test_what_is_refused(tmp_path: Path, arguments: list[str], line: str) -> None:
    done = bench(*arguments, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"bench-loadgen: {line}") and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_is_not_built_is_refused(tmp_path: Path) -> None:
    done = bench("--out", str(tmp_path / "out"), build=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"bench-loadgen: {tmp_path}/loadgen: is not there or not executable: run `make` first\n"


def test_the_exit_status_says_whether_all_goals_are_met(tmp_path: Path) -> None:
    """Which of them are, in so short a time, is not asked here."""
    done = bench("--rounds", "1", "--turn", "400ms", "--part", "handshakes", "--part", "keep-alive", "--out",
                 str(tmp_path / "out"))
    assert done.stderr == ""
    with (tmp_path / "out" / "figures.csv").open(newline="") as file:
        figures = list(csv.DictReader(file))
    verdicts = [row["verdict"] for row in figures]
    assert done.returncode == (1 if "NOT MET" in verdicts else 0)
    assert [row["goal"] for row in figures if row["goal"]] == [">= 10", ">= 5", "<= 0.15", "<= 0.7", ">= 1.3"]
    for row in figures:
        assert float(row["low"]) <= float(row["median"]) <= float(row["high"])
        if row["goal"]:
            relation, limit = row["goal"].split()
            value = float(row["median"])
            assert row["verdict"] == ("met" if (value >= float(limit)) == (relation == ">=") else "NOT MET"), row
            assert f"{row['goal']}  {row['verdict']}" in done.stdout
    with (tmp_path / "out" / "bench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    tools = {(row["part"], row["tool"]) for row in rows}
    assert {tool for part, tool in tools if part == "full"} == {"light", "coalesced", "reset", "openssl", "s_time"}
    assert {tool for part, tool in tools if part == "resumed + request"} == {"light", "coalesced", "openssl"}
    assert {tool for part, tool in tools if part == "keep-alive"} == {"light", "coalesced", "openssl", "wrk"}
    assert all(int(row["ops"]) > 0 and float(row["client_cpu_us_per_op"]) > 0 for row in rows)


def test_a_goal_is_a_limit() -> None:
    assert Figure("", [4, 5, 9], at_least=5).verdict == Figure("", [4, 5, 9], at_most=5).verdict == "met"
    assert Figure("", [4, 4.9, 9], at_least=5).verdict == Figure("", [4, 5.1, 9], at_most=5).verdict == "NOT MET"
    assert Figure("", [4]).met and Figure("", [4]).verdict == ""
