"""The percentile file: what a plotter reads must be what was measured."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from counting_server import load, serving
from programs import run


def read_percentiles(text: str) -> tuple[list[tuple[float, float, int, float]], dict[str, float]]:
    """(value, share, count, 1 / (1 - share)) of each row, and the numbers below them."""
    heading, _, *lines = text.splitlines()
    assert heading.split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [(float(v), float(p), int(n), float(i))
            for v, p, n, i in (line.split() for line in lines if not line.startswith("#"))]
    numbers = {name: float(value) for line in lines if line.startswith("#[")
               for name, value in re.findall(r"([\w ]+?)\s*= +([\d.]+)", line)}
    return rows, numbers


@pytest.mark.parametrize("options", [[], ["--rate", "500", "--requests-per-connection", "inf"]])
def test_the_percentile_file_agrees_with_the_result(tmp_path, options):
    with serving(None) as server:
        result = load("-c", 4, "-w", 2, "-n", 300, "--histogram", tmp_path / "hgrm", *options,
                      f"http://127.0.0.1:{server.port}/")
    rows, numbers = read_percentiles((tmp_path / "hgrm").read_text())
    latency = result["latency_us"]["transaction"]
    assert rows == sorted(rows)
    assert [row[1] for row in rows] == sorted({row[1] for row in rows})
    assert rows[0][1] == 0 and rows[-1][1:] == (1, 300, float("inf"))
    assert rows[-1][0] == pytest.approx(latency["max"] / 1000, abs=1e-6)
    for value, share, count, inverse in rows[:-1]:
        assert count >= share * 300
        assert inverse == pytest.approx(1 / (1 - share), abs=0.01)
        if share == 0.5:
            assert value == pytest.approx(latency["p50"] / 1000, abs=1e-6)
    assert 0.5 in [row[1] for row in rows]
    assert numbers["Mean"] == pytest.approx(latency["mean"] / 1000, abs=1e-6)
    assert numbers["Max"] == pytest.approx(latency["max"] / 1000, abs=1e-6)
    assert numbers[" Total count"] == 300


def test_the_percentile_file_may_be_standard_output():
    with serving(None) as server:
        done = run("loadgen", "-c", "1", "-n", "1", "--histogram", "-", f"http://127.0.0.1:{server.port}/")
    rows, _ = read_percentiles(done.stdout)
    assert rows[-1][1:] == (1, 1, float("inf"))


def test_without_a_transaction_it_is_empty_and_still_one(tmp_path: Path):
    with serving(None, answer=lambda head, body: None) as server:
        load("-c", 1, "-n", 1, "--histogram", tmp_path / "hgrm", f"http://127.0.0.1:{server.port}/", status=1)
    rows, numbers = read_percentiles((tmp_path / "hgrm").read_text())
    assert rows == [] and numbers[" Total count"] == 0


@pytest.mark.parametrize("arguments, line", [
    (["--histogram", "/nonexistent/x", "https://127.0.0.1:1/"], "--histogram: /nonexistent/x: No such file"),
    (["--histogram", "-", "--json", "-", "https://127.0.0.1:1/"], "--histogram: -: --json writes there already"),
    (["--histogram", "x", "--requests-per-connection", "0", "https://127.0.0.1:1/"],
     "--histogram: x: there are no transactions"),
])
def test_percentile_files_that_cannot_be_are_refused(arguments, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("loadgen", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"loadgen: {line}")
