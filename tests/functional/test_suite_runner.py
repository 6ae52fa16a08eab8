"""The runner with programs that misbehave: every fault becomes a row with its reason, and nothing is left behind."""
import csv
import os
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import suite_fakes
from suite_fakes import SCENARIO, TLSDYNO
from tlsdyno_suite import cli, runner, sampler, scenario
from tlsdyno_suite.subjects import DRIVERS


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
        cost = float(row["subject_cpu_us_per_op"])
        assert cost > 0 and float(row["floor_cpu_us_per_op"]) == 100 and row["floor_reason"] == ""
        assert float(row["efficiency"]) == pytest.approx(100 / cost, rel=1e-5)
        assert float(row["capacity_per_core_per_s"]) == pytest.approx(1e6 / cost, rel=1e-5)
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
    status, rows, _ = run(place, "--only", "reuse=never", **{fault: program})
    assert status in (0, 4) and rows[0]["status"] != "failed"  # on a busy machine the clocks may not be read in time


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
    ({"server_counts": {"handshakes_failed": 2}}, "never",
     "the subject counted otherwise than the client: handshakes_failed 2, not 0"),
    ({"server_counts": {"connections_accepted": 1001}}, "always",
     "the subject counted otherwise than the client: connections_accepted 1001, not 1000"),
    ({"result": {"certificates": [{"key": "ecdsa:P-256", "count": 999}, {"key": "rsa:2048", "count": 1}]}}, "never",
     "the certificate's key was rsa:2048, not ecdsa:P-256"),
    ({"result": {"certificates": []}}, "never", "the load generator does not say whose certificate it saw"),
    ({"result": {"errors": {"reset": 3}}}, "never", "errors: reset 3"),
])
def test_a_row_that_is_not_what_it_claims_is_invalid_with_the_reason(place, recipe, reuse, reason):
    status, rows, out = run(place, "--only", f"reuse={reuse}", **recipe)
    assert status == 4
    assert (rows[0]["status"], rows[0]["stands"]) == ("invalid", "") and reason in rows[0]["reason"]
    assert "INVALID, left out: " in out


ARRIVALS = {"due": 100, "done": 90, "failed": 0, "never_begun": 0, "unfinished_at_end": 0}
KEPT = SCENARIO.replace('reuse = ["never", "always"]', 'reuse = ["never"]') + 'requests_per_connection = "inf"\n'


@pytest.mark.parametrize("counts, reason", [
    ({"never_begun": 10}, "10 of 100 that were due never began"),
    ({"unfinished_at_end": 7}, "7 of 100 that were due were unfinished when the time was over"),
])
def test_an_open_loop_that_the_subject_did_not_follow_is_invalid(place, counts, reason):
    (place / "some.toml").write_text(KEPT + 'loop = "rate:250"\n')
    status, rows, _ = run(place, result={"open_loop": {**ARRIVALS, **counts}})
    assert status == 4 and (rows[0]["status"], rows[0]["stands"]) == ("invalid", "") and reason in rows[0]["reason"]
    assert (rows[0]["loop"], rows[0]["target_rate_per_s"]) == ("rate:250", "250")


def test_a_rate_may_be_a_share_of_what_a_closed_loop_does(place):
    """Of the thousand that the fake one does in the two seconds of that, a fifth is a hundred a second."""
    (place / "some.toml").write_text(KEPT + 'loop = "rate:20%"\n')
    _, rows, _ = run(place, result={"open_loop": ARRIVALS})
    assert len(rows) == 1 and rows[0]["stands"], rows[0]["reason"]
    assert rows[0]["loop"] == "rate:20%" and 30 <= int(rows[0]["target_rate_per_s"]) <= 100


def test_of_a_closed_loop_that_did_nothing_there_is_no_share(place):
    (place / "some.toml").write_text(KEPT + 'loop = "rate:20%"\n')
    status, rows, _ = run(place, result={"rates": {}})
    assert status == 4 and (rows[0]["status"], rows[0]["target_rate_per_s"]) == ("failed", "")
    assert rows[0]["reason"] == "nothing was answered in a closed loop"


def test_held_connections_have_memory_and_neither_cost_nor_rate_nor_floor(place):
    (place / "some.toml").write_text(KEPT + 'loop = "hold"\n')
    status, rows, out = run(place, "--duration", "1500ms", result={"open_loop": ARRIVALS, "hold": {"open_at_end": 4}})
    row = rows[0]
    assert status == 0 and (row["status"], row["stands"]) == ("ok", "all"), row["reason"]
    assert abs(float(row["subject_idle_kib_per_connection"])) < 1000 and float(row["subject_rss_kib"]) > 1000
    assert not any(row[name] for name in ("subject_cpu_us_per_op", "transactions_per_s", "floor_cpu_us_per_op",
                                          "floor_reason", "floor_kind", "capacity_per_core_per_s", "target_rate_per_s"))
    assert "KiB/connection" in out and "CPU us/op" not in out and "No floor" not in out


def test_a_held_connection_that_is_gone_at_the_end_spoils_the_row(place):
    (place / "some.toml").write_text(KEPT + 'loop = "hold"\n')
    status, rows, _ = run(place, "--duration", "1500ms", result={"open_loop": ARRIVALS, "hold": {"open_at_end": 3}})
    assert status == 4 and "3 of 4 connections were open at the end" in rows[0]["reason"]


def test_claims_are_printed_after_the_table_and_again_from_the_results(place):
    (place / "some.toml").write_text(SCENARIO + """
[[claim]]
text = "it costs something"
each = { reuse = ["never", "always"] }
holds = "cost(subject='reference') > 0"
[[claim]]
text = "nobody is cheaper than nothing"
level = "aim"
holds = "cost(subject='reference', reuse='never') <= 0 * floor(reuse='always')"
""")
    status, _, out = run(place, "--only", "reuse=never")
    assert status == 0  # a claim that does not hold is a result, not a fault
    assert "Claims: 1 hold.\n2 more are of cells that are not in this run.\nit costs something\n  holds" in out
    again = subprocess.run([str(TLSDYNO), "table", str(place / "out")], capture_output=True, text=True)
    assert again.stdout.rstrip() in out and "it costs something" in again.stdout
    alone = subprocess.run([str(TLSDYNO), "table", str(place / "out" / "results.csv")], capture_output=True, text=True)
    assert "it costs something" not in alone.stdout and alone.returncode == 0


TOGETHER = SCENARIO + '[placement]\nat_once = ["reuse"]\n'


def test_cells_at_once_share_the_cpus_at_the_same_time(place):
    """Each fake load fills a CPU by itself, and they have one."""
    (place / "some.toml").write_text(TOGETHER)
    status, rows, out = run(place, "--duration", "2s", burns="loadgen")
    assert status in (0, 4) and len(rows) == 2 and "measured at once with 1 more" in " ".join(out.split())
    for row in rows:
        assert row["placement"].endswith("; at once with 1 more") and "measured at once with 1 more" in row["reason"]
        assert float(row["client_cpu_busy"]) > 0
    assert sum(float(row["client_cpu_busy"]) for row in rows) < 1.2
    # The rates are of all, and so is nothing else: each has its own counts and its own cost.
    assert sorted(row["resumed_share"] for row in rows) == ["0", "1"]


@pytest.mark.parametrize("program, role", [
    ("proxy", "subject"), ("echo-backend", "backend"), ("loadgen", "load generator")])
def test_one_that_dies_in_company_fails_its_row_alone(place, program, role):
    (place / "some.toml").write_text(TOGETHER)
    status, rows, _ = run(place, "--duration", "1s", dies=program, once=True)
    assert status == 4
    dead, alive = sorted(rows, key=lambda row: row["status"] != "failed")
    assert dead["status"] == "failed" and dead["reason"].startswith(role) and "feeling well" in dead["reason"]
    assert alive["status"] == "invalid" and "measured at once with 1 more" in alive["reason"]
    assert float(alive["subject_cpu_us_per_op"]) > 0


def test_windows_that_hardly_met_were_not_at_once(place):
    (place / "some.toml").write_text(TOGETHER)
    status, rows, _ = run(place, "--duration", "1s", only="never", late_s=0.9)
    assert status == 4 and len(rows) == 2
    for row in rows:
        assert (row["status"], row["stands"]) == ("invalid", "")
        assert "% of the window was that of the others who were to be measured at once" in row["reason"]


def test_a_load_generator_that_fills_its_core_bounds_its_row(place):
    status, rows, out = run(place, "--only", "reuse=never", "--duration", "1500ms", burns="loadgen")
    if len(os.sched_getaffinity(0)) > 1:
        assert status == 0 and "Rate left out: " in out
    assert (rows[0]["status"], rows[0]["stands"]) == ("invalid", "cost")
    if "something else used CPU" not in rows[0]["reason"]:  # where other work kept the fake from filling it
        assert rows[0]["bound"] == "client" and "load generator was the bottleneck" in rows[0]["reason"]


@pytest.mark.parametrize("program, role", [("proxy", "subject"), ("echo-backend", "backend"), ("loadgen", "client")])
def test_the_cpu_time_of_each_role_is_its_own(place, program, role):
    _, rows, _ = run(place, "--only", "reuse=never", "--duration", "1s", burns=program)
    cost = {each: float(rows[0][f"{each}_cpu_us_per_op"]) for each in ("subject", "client", "backend")}
    assert max(cost, key=lambda each: cost[each]) == role
    busy = {each: float(rows[0][f"{each}_cpu_busy"]) for each in cost}
    assert max(busy, key=lambda each: busy[each]) == role


@pytest.mark.parametrize("program, role", [("proxy", "subject"), ("echo-backend", "backend")])
def test_cpu_time_from_before_the_window_is_not_in_the_row(place, program, role):
    """The fake uses a second of CPU time before it listens, and next to nothing after."""
    _, rows, _ = run(place, "--only", "reuse=never", burns_before=program)
    assert 1000 * float(rows[0][f"{role}_cpu_us_per_op"]) < 500_000


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one CPU nobody can leave it")
@pytest.mark.parametrize("program, role", [("proxy", "subject"), ("echo-backend", "backend"), ("loadgen", "client")])
def test_a_program_that_leaves_its_cpus_in_mid_run_spoils_the_row(place, program, role):
    # Long enough for the fake to have begun when it is looked at, halfway.
    _, rows, _ = run(place, "--only", "reuse=never", "--duration", "4s", strays=program)
    assert (rows[0]["status"], rows[0]["stands"]) == ("invalid", "")
    assert f"not on its CPUs: {role}" in rows[0]["reason"]


def test_time_that_the_hypervisor_took_spoils_the_rate(place, monkeypatch):
    """What the kernel says of steal comes in through the sampler's reader."""
    for name, value in suite_fakes.environment(place / "build").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(place / "tmp"))
    real = sampler.read_machine

    def half_stolen():
        return {cpu: (busy, time.monotonic() / 2) for cpu, (busy, _) in real().items()}

    monkeypatch.setattr(sampler, "read_machine", half_stolen)
    loaded = scenario.narrow(scenario.load(place / "some.toml", tuple(DRIVERS)), ["reuse=never"])
    (place / "logs").mkdir()
    rows: list[dict[str, object]] = []
    runner.run(cli.make_plan(loaded, "some"), place / "logs", rows.append, lambda *_: None)
    late = "the CPU clocks were not read" in str(rows[0]["reason"])
    assert (rows[0]["status"], rows[0]["stands"]) == ("invalid", "" if late else "cost")
    assert "the hypervisor took 5" in str(rows[0]["reason"]) and 0.4 < float(str(rows[0]["steal"])) < 0.6
    assert left_behind(place) == []


def test_a_floor_that_cannot_be_measured_is_said_in_row_and_table(place):
    status, rows, out = run(place, silent="tls-floor")
    reason = "tls-floor ended with status 1 (last log line: it cannot be done)"
    assert status == 0
    for row in rows:
        assert (row["floor_cpu_us_per_op"], row["efficiency"], row["floor_reason"]) == ("", "", reason)
        assert row["stands"] and "floor" not in row["reason"]
    assert f"No floor: {reason}." in " ".join(out.split())


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


def wait_for_a_row(place: Path, program: subprocess.Popen[str]) -> None:
    while not (place / "out" / "results.csv").exists() or not rows_of(place):
        assert program.poll() is None, program.communicate()
        time.sleep(0.05)


def test_a_hangup_that_was_ignored_from_the_start_stops_nothing(place):
    command = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", str(TLSDYNO), "run", str(place / "some.toml"),
               "--out", str(place / "out")]
    program = subprocess.Popen(command, env=suite_fakes.environment(place / "build"), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_a_row(place, program)
    program.send_signal(signal.SIGHUP)
    _, err = program.communicate()
    assert program.returncode == 0 and len(rows_of(place)) == 2, err


def test_a_full_disk_ends_the_run_in_one_line_and_keeps_whole_rows(place):
    program = start(place, "--repeats", "50")
    wait_for_a_row(place, program)
    size = (place / "out" / "results.csv").stat().st_size
    _, hard = resource.prlimit(program.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (size + 10, hard))
    _, err = program.communicate()
    # A row may have been written between the two lines above; then the next one finds the disk full.
    assert program.returncode == 2
    assert err.splitlines()[-1] == f"tlsdyno: {place / 'out' / 'results.csv'}: File too large"
    assert "Traceback" not in err
    assert rows_of(place) and all(None not in row.values() for row in rows_of(place))
    assert (place / "out" / "results.csv").read_bytes().endswith(b"\n")
    assert left_behind(place) == []


@pytest.mark.timeout(120)
def test_a_runner_that_is_killed_takes_its_programs_with_it_and_the_next_run_sweeps(place):
    program = start(place, "--duration", "30s")
    while not any("loadgen" in line for line in suite_fakes.sessions_below(place / "build")):
        assert program.poll() is None
        time.sleep(0.05)
    (place / "tmp" / "tlsdyno-of-somebody-else").mkdir()
    program.kill()
    program.communicate()
    while suite_fakes.sessions_below(place / "build"):
        time.sleep(0.05)
    stale = [path for path in (place / "tmp").iterdir() if (path / "pid").exists()]
    assert [(path / "pid").read_text() for path in stale] == [f"{program.pid}\n"]
    (place / "out").rename(place / "out-of-the-first")
    start(place, "--only", "reuse=never").communicate()
    assert left_behind(place) == ["tlsdyno-of-somebody-else"]


def test_a_run_leaves_the_files_of_a_living_one_alone(place):
    first = start(place)
    while not list((place / "tmp").glob("tlsdyno-*/pid")):
        assert first.poll() is None
        time.sleep(0.05)
    second = subprocess.run([str(TLSDYNO), "run", str(place / "some.toml"), "--only", "reuse=never", "--out",
                             str(place / "other")], env=suite_fakes.environment(place / "build"), capture_output=True)
    assert second.returncode in (0, 4)
    _, err = first.communicate()
    assert "Traceback" not in err and len(rows_of(place)) == 2
    assert left_behind(place) == []
