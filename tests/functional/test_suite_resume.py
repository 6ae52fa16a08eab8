"""A run that was killed: nothing of it is left after the next start, its results are whole rows, and it can go on."""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import suite_fakes
from suite_fakes import SCENARIO, TLSDYNO
from tlsdyno_suite import record, strays, workspace


MEASURED = (0, 4)  # on a busy machine the clocks may not be read around so short a window


@pytest.fixture
def place(tmp_path):
    suite_fakes.build(tmp_path / "build")
    (tmp_path / "some.toml").write_text(SCENARIO.replace("400ms", "200ms").replace("100ms", "50ms"))
    return tmp_path


@pytest.fixture(scope="module")
def a_run(tmp_path_factory) -> Path:
    """A run of one cell that has ended."""
    place = tmp_path_factory.mktemp("run")
    suite_fakes.build(place / "build")
    (place / "some.toml").write_text(SCENARIO)
    assert finish(place, "run", "some.toml", "--out", "out", "--only", "reuse=never")[0] in MEASURED
    return place


@pytest.fixture
def ended(place, a_run) -> Path:
    """A copy of it."""
    shutil.copytree(a_run / "out", place / "out")
    return place


def start(place: Path, *arguments: str, **recipe: object) -> subprocess.Popen[str]:
    return subprocess.Popen([str(TLSDYNO), *arguments], env=suite_fakes.environment(place / "build", **recipe),
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=place)


def finish(place: Path, *arguments: str, **recipe: object) -> tuple[int, str, str]:
    program = start(place, *arguments, **recipe)
    out, err = program.communicate()
    return program.returncode, out, err


def wait_for_rows(place: Path, program: subprocess.Popen[str], count: int) -> None:
    path = place / "out" / "results.csv"
    while not path.exists() or path.read_bytes().count(b"\n") <= count:
        assert program.poll() is None, program.communicate()
        time.sleep(0.02)


def keys(place: Path) -> list[tuple[str, ...]]:
    return [record.row_key(row) for row in record.read(place / "out")]


def test_a_killed_run_goes_on_where_it_was_and_ends_whole(place):
    program = start(place, "run", "some.toml", "--out", "out", "--repeats", "2", "--seed", "7")
    wait_for_rows(place, program, 1)
    program.kill()
    program.communicate()
    # What a write that was cut off leaves behind.
    with (place / "out" / "results.csv").open("ab") as file:
        file.write(b"20260101-000000-some,some,,,3,refer")
    before = keys_of_whole_lines(place)
    assert 1 <= len(before) < 4
    status, out, _ = finish(place, "run", "--resume", "out", "--dry-run")
    assert status == 0 and f"2 cells, 2 times, {4 - len(before)} rows left, about " in out
    status, out, err = finish(place, "run", "--resume", "out")
    assert status in MEASURED, err
    after = keys(place)
    assert after[:len(before)] == before and len(set(after)) == len(after) == 4
    rows = record.read(place / "out")
    assert len({row["run_id"] for row in rows}) == 1 and {row["scenario"] for row in rows} == {"some"}
    assert "4 rows" in out and (place / "out" / "results.csv").read_bytes().endswith(b"\n")
    # There is nothing left: nothing is measured, the table is shown again.
    assert finish(place, "run", "--resume", "out")[:2] == (status, out) and keys(place) == after


def keys_of_whole_lines(place: Path) -> list[tuple[str, ...]]:
    return [record.row_key(row) for row in record.read(place / "out" / "results.csv", half_line=True)]


def test_an_interrupted_run_says_how_it_goes_on(place):
    program = start(place, "run", "some.toml", "--out", "out", "--repeats", "20")
    wait_for_rows(place, program, 1)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate()
    assert "go on with: tlsdyno run --resume out" in err


def test_a_run_killed_before_its_first_row_goes_on(ended):
    for left in (b"", b"run_id,scen"):
        (ended / "out" / "results.csv").write_bytes(left)
        assert finish(ended, "run", "--resume", "out")[0] in MEASURED and len(keys(ended)) == 1
        # An address in a log of before would be nobody's.
        logs = list((ended / "out" / "logs").glob("*-subject.log"))
        assert logs and all(log.read_text().count("listening on") == 1 for log in logs)


def spoil_machine(place: Path, **values: object) -> None:
    path = place / "out" / "machine.json"
    data = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in data.items() if value is not None}))


REFUSED = {
    "a scenario": (["some.toml"], {}, "--resume: scenario: was decided when the run began"),
    "repeats": (["--repeats", "9"], {}, "--resume: repeats: was decided when the run began"),
    "another kernel": ([], {"kernel": "1.0"}, "machine.json: kernel: was 1.0 and is "),
    "another build": ([], {"programs_sha256": {}}, "machine.json: programs_sha256: was {} and is "),
    "no seed": ([], {"seed": None}, "machine.json: seed: is missing: this is not a run that can go on"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_goes_on_as_it_began_or_not_at_all(ended, name):
    options, values, reason = REFUSED[name]
    spoil_machine(ended, **values)
    before = (ended / "out" / "results.csv").read_bytes()
    status, out, err = finish(ended, "run", "--resume", "out", *options)
    assert (status, out) == (2, "") and reason in err and err.count("\n") == 1
    assert (ended / "out" / "results.csv").read_bytes() == before


def test_what_is_no_run_is_refused(place):
    status, _, err = finish(place, "run", "--resume", "nowhere")
    assert status == 2 and "machine.json: No such file or directory" in err
    (place / "out").mkdir()
    (place / "out" / "machine.json").write_text("[]")
    status, _, err = finish(place, "run", "--resume", "out")
    assert status == 2 and "run_id: is missing" in err


def test_other_columns_are_refused(ended):
    path = ended / "out" / "results.csv"
    path.write_text(path.read_text().replace("run_id,", "run_number,", 1))
    status, _, err = finish(ended, "run", "--resume", "out")
    assert status == 2 and "run_id: no such column" in err


def test_a_run_that_still_runs_is_left_alone(place):
    first = start(place, "run", "some.toml", "--out", "out")
    wait_for_rows(place, first, 1)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        status, _, err = finish(place, "run", "--resume", "out")
        assert status == 2 and "results.csv: another run is writing it" in err
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.communicate()
    assert first.returncode in MEASURED and len(keys(place)) == 2


@pytest.mark.parametrize("fault", ["stubborn", "forks"])
def test_what_a_killed_run_left_alive_is_gone_after_the_next_start(place, fault):
    """A program that does not heed the kernel's SIGTERM outlives its runner."""
    program = start(place, "run", "some.toml", "--out", "out", "--duration", "30s", **{fault: "proxy"})
    while not any("loadgen" in line for line in suite_fakes.sessions_below(place / "build")):
        assert program.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)  # the fake has to get as far as to ignore the signal
    program.kill()
    program.communicate()
    while len(left := suite_fakes.sessions_below(place / "build")) > 1:
        time.sleep(0.02)
    assert len(left) == 1 and "/proxy" in left[0]
    assert finish(place, "run", "some.toml", "--out", "other", "--only", "reuse=never")[0] in MEASURED
    assert suite_fakes.sessions_below(place / "build") == [] and not list((place / "tmp").iterdir())


def test_a_number_that_is_another_processes_now_is_left_alone(tmp_path):
    """The file of a dead run names a living session, but of another time, and of another boot."""
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        for started, boot in (("1", strays.boot_id()), (strays.sessions.start_time(other.pid), "another")):
            (tmp_path / strays.REGISTER).write_text(f"{other.pid} {started} {boot}\nhalf a li")
            strays.end(tmp_path)
            assert other.poll() is None
        (tmp_path / strays.REGISTER).write_text(
            f"{other.pid} {strays.sessions.start_time(other.pid)} {strays.boot_id()}\n")
        strays.end(tmp_path)
        assert other.wait(10) == -signal.SIGKILL
    finally:
        with contextlib.suppress(ProcessLookupError):
            other.kill()


def test_nothing_is_noted_outside_of_a_workspace(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace.tempfile, "tempdir", str(tmp_path))
    strays.note(1)
    with workspace.workspace() as directory:
        strays.note(os.getpid())
        assert (directory / strays.REGISTER).read_text().split()[0] == str(os.getpid())
    strays.note(1)
    assert list(tmp_path.iterdir()) == []
