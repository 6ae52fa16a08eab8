"""The command line: every refusal is one line with status 2 and leaves nothing behind."""
import subprocess
from pathlib import Path

import pytest
import suite_fakes
from suite_fakes import SCENARIO, TLSDYNO


def tlsdyno(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(TLSDYNO), *arguments], cwd=cwd, capture_output=True, text=True,
                          env=suite_fakes.environment(cwd / "build"))


@pytest.fixture
def place(tmp_path):
    suite_fakes.build(tmp_path / "build")
    (tmp_path / "some.toml").write_text(SCENARIO)
    (tmp_path / "typo.toml").write_text(SCENARIO.replace("warmup", "warm_up"))
    (tmp_path / "cpu.toml").write_text(SCENARIO + "[placement]\ncpus = [0, 4095]\n")
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    return tmp_path


REFUSED = [
    ([], "COMMAND"),
    (["fly"], "invalid choice: 'fly'"),
    (["run"], "SCENARIO"),
    (["run", "no-such-scenario"], "no-such-scenario: no such scenario (known: "),
    (["run", "nowhere.toml"], "nowhere.toml: No such file or directory"),
    (["run", "typo.toml"], "typo.toml: load.warm_up: unknown key (did you mean 'warmup'?)"),
    (["run", "cpu.toml"], "cpu.toml: placement.cpus: there is no CPU 4095 for this process"),
    (["run", "empty.toml"], "empty.toml: the file is empty"),
    (["run", "some.toml", "--only", "colour=red"], "--only: colour: no such axis in some.toml (axes: subject, reuse)"),
    (["run", "some.toml", "--repeats", "0"], "'0' is not a count"),
    (["run", "some.toml", "--duration", "soon"], "'soon' is not a time"),
    (["run", "some.toml", "--duration", "0s"], "must be longer than nothing"),
    (["run", "some.toml", "--speed", "9"], "--speed"),
    (["run", "some.toml", "--out", "full"], "full: is there already and not empty"),
    (["table", "nowhere"], "nowhere: No such file or directory"),
    (["table", "some.toml"], "no such column"),
]


@pytest.mark.parametrize("arguments, reason", REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_what_cannot_be_used_is_refused_in_one_line(place, arguments, reason):
    before = sorted(place.rglob("*"))
    result = tlsdyno(place, *arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("tlsdyno: ") and result.stderr.count("\n") == 1 and reason in result.stderr
    new = set(place.rglob("*")) - set(before)
    assert not [path for path in new if place / "build" not in path.parents and path.name != "tmp"]


def test_programs_that_are_not_built_are_asked_for(place):
    (place / "build" / "loadgen").unlink()
    result = tlsdyno(place, "run", "some.toml", "--out", "out")
    assert result.returncode == 2 and "run `make` first" in result.stderr and not (place / "out").exists()


def test_list_shows_every_scenario_with_its_time(place):
    result = tlsdyno(place, "list")
    assert result.returncode == 0 and result.stderr == ""
    assert "quick " in result.stdout and "30 cells, 2 times, about " in result.stdout


def test_doctor_speaks_of_programs_and_cpus(place):
    result = tlsdyno(place, "doctor")
    assert result.returncode in (0, 4) and "haproxy" in result.stdout and "CPU" in result.stdout


def test_nothing_is_written_beside_the_sources(place):
    environment = suite_fakes.environment(place / "build")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([str(TLSDYNO), "list"], env=environment, check=True, capture_output=True)
    assert (place / "build" / "pycache").exists()
