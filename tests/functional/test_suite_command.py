"""The command line: every refusal is one line with status 2 and leaves nothing behind."""
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import suite_fakes
from suite_fakes import SCENARIO, TLSDYNO
from tlsdyno_suite import machine, record
from tlsdyno_suite.cell import PARAMETERS


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
    (tmp_path / "nan.toml").write_text(SCENARIO.replace('"400ms"', "nan"))
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
    (["run", "some.toml", "--duration", "inf"], "'inf' is not a time"),
    (["run", "some.toml", "--duration", "25h"], "'25h' is longer than a day"),
    (["run", "nan.toml"], "nan.toml: load.duration: impossible value nan"),
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


def test_cells_that_will_be_skipped_are_said_before_anything_runs(place):
    (place / "nope.toml").write_text(SCENARIO.replace('"TLS_AES_128_GCM_SHA256"', '"TLS_NOPE"'))
    result = tlsdyno(place, "run", "nope.toml", "--dry-run")
    assert result.stdout.count("skipped: no cipher is called TLS_NOPE") == 2
    assert result.stdout.endswith("2 cells (2 to be skipped), 1 times, about 0 s\n")
    result = tlsdyno(place, "run", "nope.toml", "--out", "out")
    assert result.returncode == 4 and "Skipped: no cipher is called TLS_NOPE" in result.stdout


@pytest.mark.parametrize("arguments", [["list"], ["run", "some.toml", "--dry-run"], ["doctor"]], ids=" ".join)
def test_what_measures_nothing_works_before_anything_is_built(place, arguments):
    result = subprocess.run([str(TLSDYNO), *arguments], cwd=place, capture_output=True, text=True,
                            env={**os.environ, "TLSDYNO_BUILD_DIR": str(place / "nothing-here")})
    assert result.returncode in ((0, 4) if arguments == ["doctor"] else (0,))
    assert result.stdout and result.stderr == ""


def test_a_build_directory_that_no_configuration_can_name_is_refused(place):
    (place / "build").rename(place / "b$d")
    result = subprocess.run([str(TLSDYNO), "run", "some.toml", "--out", "out"], cwd=place, capture_output=True,
                            text=True, env=suite_fakes.environment(place / "b$d"))
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and not (place / "out").exists()
    assert "it holds the character '$'" in result.stderr


@pytest.fixture
def measured(place):
    """A results.csv whose table has characters beyond ASCII."""
    recorder = record.Recorder(place / "results.csv")
    row = {"run_id": "r", "scenario": "some", "subject": "reference", "stands": "all", "status": "ok",
           "requests_per_connection": 1, "subject_cpu_us_per_op": 1.0, **{name: "1" for name in PARAMETERS}}
    recorder.write({**row, "repeat": 1})
    recorder.write({**row, "repeat": 2, "subject_cpu_us_per_op": 2.0})
    recorder.close()
    return place


@pytest.mark.parametrize("redirection, reason", [
    (">/dev/full", "tlsdyno: standard output: No space left on device\n"),
    (">&-", "tlsdyno: standard output: is closed\n"),
    ("<&- >&-", "tlsdyno: standard output: is closed\n"),
])
@pytest.mark.parametrize("arguments", ["table results.csv", "list", "--help", "run some.toml --dry-run"])
def test_output_that_goes_nowhere_is_one_line(measured, redirection, reason, arguments):
    result = subprocess.run(f"{shlex.quote(str(TLSDYNO))} {arguments} {redirection}", shell=True, cwd=measured,
                            capture_output=True, text=True, env=suite_fakes.environment(measured / "build"))
    assert (result.returncode, result.stdout, result.stderr) == (2, "", reason)


def test_a_closed_output_stops_a_run_before_it_begins(place):
    result = subprocess.run(f"{shlex.quote(str(TLSDYNO))} run some.toml --out out >&-", shell=True, cwd=place,
                            capture_output=True, text=True, env=suite_fakes.environment(place / "build"))
    assert (result.returncode, result.stderr) == (2, "tlsdyno: standard output: is closed\n")
    assert not (place / "out").exists()


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_measurement_needs_no_standard_error(place, redirection):
    result = subprocess.run(f"{shlex.quote(str(TLSDYNO))} run some.toml --out out {redirection}", shell=True, cwd=place,
                            capture_output=True, text=True, env=suite_fakes.environment(place / "build"))
    assert result.returncode == 0 and result.stdout.startswith("some  ")


def test_a_reader_that_leaves_early_is_no_fault(measured):
    result = subprocess.run(f"set -o pipefail; {shlex.quote(str(TLSDYNO))} table results.csv | true", shell=True,
                            executable="/bin/bash", cwd=measured, capture_output=True, text=True,
                            env=suite_fakes.environment(measured / "build"))
    assert (result.returncode, result.stderr) == (0, "")


def test_an_encoding_without_the_characters_of_a_table_gets_others(measured):
    plain = {**suite_fakes.environment(measured / "build"), "PYTHONIOENCODING": "ascii"}
    result = subprocess.run([str(TLSDYNO), "table", "results.csv"], cwd=measured, capture_output=True, env=plain)
    assert result.returncode == 0 and result.stderr == b""
    text = result.stdout.decode("ascii")
    assert "1.50 +-33%" in text and "-" * 80 in text and "?" not in text


@pytest.mark.parametrize("name, findings", [("bbr", 1), ("cubic", 0), ("reno", 0)])
def test_doctor_warns_of_a_congestion_control_that_paces(monkeypatch, name, findings):
    real = machine.read_text
    monkeypatch.setattr(machine, "read_text",
                        lambda path: name if str(path).endswith("tcp_congestion_control") else real(path))
    found = [finding for finding in machine.examine_network() if "congestion control" in finding.what]
    assert len(found) == findings
    for finding in found:
        assert finding.level == "warn" and name in finding.what and "tcp_congestion_control=cubic" in finding.mend


def test_doctor_speaks_of_programs_and_cpus(place):
    result = tlsdyno(place, "doctor")
    assert result.returncode in (0, 4) and "haproxy" in result.stdout and "CPU" in result.stdout


def test_nothing_is_written_beside_the_sources(place):
    environment = suite_fakes.environment(place / "build")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([str(TLSDYNO), "list"], env=environment, check=True, capture_output=True)
    assert (place / "build" / "pycache").exists()


def test_the_readme_shows_what_the_committed_run_says():
    shown = subprocess.run([str(TLSDYNO), "table", str(suite_fakes.ROOT / "results" / "reference")],
                           capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.rstrip() in (suite_fakes.ROOT / "README.md").read_text()
