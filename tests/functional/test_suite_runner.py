"""The runner with programs that misbehave: every fault becomes a row with its reason, and nothing is left behind."""
import csv
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import suite_fakes
from suite_fakes import SCENARIO, TLSDYNO


@pytest.fixture
def place(tmp_path):
    """A build directory of fakes, a scenario, and room for results."""
    suite_fakes.build(tmp_path / "build")
    (tmp_path / "some.toml").write_text(SCENARIO)
    return tmp_path


def start(place: Path, *options: str, **recipe: object) -> subprocess.Popen[str]:
    command = [str(TLSDYNO), "run", str(place / "some.toml"), "--out", str(place / "out"), *options]
    return subprocess.Popen(command, env=suite_fakes.environment(place / "build", **recipe), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def rows_of(place: Path) -> list[dict[str, str]]:
    with (place / "out" / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def run(place: Path, *options: str, **recipe: object) -> tuple[int, list[dict[str, str]], str]:
    """Exit status, rows, standard output."""
    program = start(place, *options, **recipe)
    out, err = program.communicate()
    assert (place / "out").exists(), err
    assert left_behind(place) == []
    return program.returncode, rows_of(place), out


def left_behind(place: Path) -> list[str]:
    """Processes, and files in the temporary directory."""
    return suite_fakes.sessions_below(place / "build") + [path.name for path in (place / "tmp").iterdir()]


def test_a_run_writes_a_row_for_each_cell_and_repeat(place):
    status, rows, out = run(place, "--repeats", "2")
    assert status == 0
    assert sorted((row["repeat"], row["reuse"]) for row in rows) == [
        ("1", "always"), ("1", "never"), ("2", "always"), ("2", "never")]
    for row in rows:
        assert row["stands"] in ("cost", "all") and row["load_tool"] == "loadgen" and row["engine"] == "fake"
        assert float(row["subject_cpu_us_per_op"]) > 0 and float(row["floor_cpu_us_per_op"]) == 100
        assert row["resumed_share"] == ("1" if row["reuse"] == "always" else "0")
        assert row["transaction_p99_us"] == "7" and row["ttfb_p99_us"] == "" and row["errors_reset"] == ""
    assert "reference 0.0.fake" in out
    assert {path.name for path in (place / "out").iterdir()} == {"results.csv", "machine.json", "scenario.toml", "logs"}


def test_dry_run_names_the_cells_and_starts_nothing(place):
    program = start(place, "--dry-run")
    out, _ = program.communicate()
    assert program.returncode == 0 and out.count("subject ") == 2 and not (place / "out").exists()


@pytest.mark.parametrize("program, role", [
    ("proxy", "subject"), ("echo-backend", "backend"), ("loadgen", "load generator")])
def test_a_program_killed_in_mid_run_fails_its_row_and_the_run_goes_on(place, program, role):
    status, rows, _ = run(place, dies=program)
    assert status == 4 and len(rows) == 2
    for row in rows:
        assert row["status"] == "failed" and row["stands"] == "" and row["subject_cpu_us_per_op"] == ""
        assert row["reason"].startswith(role)
        assert "killed by SIGKILL (last log line: I am not feeling well)" in row["reason"]


@pytest.mark.parametrize("program, role", [("proxy", "subject"), ("echo-backend", "backend")])
def test_a_program_that_does_not_start_fails_its_row(place, program, role):
    status, rows, _ = run(place, silent=program)
    assert status == 4
    assert {row["reason"] for row in rows} == {
        f"{role} did not start: ended with status 1 (last log line: it cannot be done)"}


@pytest.mark.parametrize("fault", ["stubborn", "forks"])
@pytest.mark.parametrize("program", ["proxy", "echo-backend"])
def test_a_program_that_will_not_stop_is_killed_with_all_its_children(place, fault, program):
    status, _, _ = run(place, "--only", "reuse=never", **{fault: program})
    assert status == 0


@pytest.mark.parametrize("recipe, reason", [
    ({"status": 3}, "load generator ended with status 3"),
    ({"json": "{"}, "the load generator's result cannot be read"),
    ({"json": '{"engine": "x"}'}, "the load generator's result lacks 'started_unix_ns'"),
])
def test_a_load_without_a_result_fails_its_row(place, recipe, reason):
    status, rows, _ = run(place, "--only", "reuse=never", **recipe)
    assert status == 4 and rows[0]["status"] == "failed" and rows[0]["reason"].startswith(reason)


@pytest.mark.parametrize("recipe, reuse, reason", [
    ({"counts": {"handshakes_full": 1000, "handshakes_resumed": 0}}, "always",
     "0.0 % of the handshakes were resumed, not 100.0 %"),
    ({"counts": {"handshakes_full": 998, "handshakes_resumed": 2}}, "never",
     "2 handshakes were resumed and none should be"),
    ({"server_counts": {"handshakes_full": 999}}, "never",
     "the subject counted otherwise than the client: handshakes_full 999, not 1000"),
    ({"key": "rsa:2048"}, "never", "the certificate's key was rsa:2048, not ecdsa:P-256"),
    ({"result": {"errors": {"reset": 3}}}, "never", "errors: reset 3"),
])
def test_a_row_that_is_not_what_it_claims_is_invalid_with_the_reason(place, recipe, reuse, reason):
    status, rows, out = run(place, "--only", f"reuse={reuse}", **recipe)
    assert status == 4
    assert (rows[0]["status"], rows[0]["stands"]) == ("invalid", "") and reason in rows[0]["reason"]
    assert "INVALID, left out: " in out


def test_a_load_generator_that_fills_its_core_bounds_its_row(place):
    status, rows, out = run(place, "--only", "reuse=never", "--duration", "1500ms", burns=True)
    if len(os.sched_getaffinity(0)) > 1:
        assert status == 0 and "Rate left out: " in out
    assert (rows[0]["status"], rows[0]["stands"], rows[0]["bound"]) == ("invalid", "cost", "client")
    assert "load generator was the bottleneck" in rows[0]["reason"]


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_keeps_what_it_measured_and_leaves_nothing(place, number, status):
    program = start(place, "--repeats", "50")
    while not (place / "out" / "results.csv").exists() or not rows_of(place):
        assert program.poll() is None
        time.sleep(0.05)
    program.send_signal(number)
    _, err = program.communicate()
    assert program.returncode == status
    assert 1 <= len(rows_of(place)) < 100 and all(None not in row.values() for row in rows_of(place))
    assert f"finished rows are in {place / 'out' / 'results.csv'}" in err
    assert left_behind(place) == []


@pytest.mark.timeout(120)
def test_a_runner_that_is_killed_takes_its_programs_with_it(place):
    program = start(place, "--duration", "30s")
    while not any("loadgen" in line for line in suite_fakes.sessions_below(place / "build")):
        assert program.poll() is None
        time.sleep(0.05)
    program.kill()
    program.communicate()
    while suite_fakes.sessions_below(place / "build"):
        time.sleep(0.05)
