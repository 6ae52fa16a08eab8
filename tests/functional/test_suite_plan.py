"""What a run is going to do: which cells, in which order, against what; and that it then does just that."""
import json
import os
import subprocess
from pathlib import Path

import pytest
import suite_fakes
from programs import running
from suite_fakes import SCENARIO, TLSDYNO
from tlsdyno_suite import cli, record, runner, scenario
from tlsdyno_suite.refusal import Refused
from tlsdyno_suite.subjects import DRIVERS, check_address

KNOWN = tuple(DRIVERS)
LAST = f"client {max(os.sched_getaffinity(0))}"
SHORT = SCENARIO.replace("400ms", "200ms").replace("100ms", "50ms")
MEASURED = (0, 4)  # on a busy machine the clocks may not be read around so short a window
BASED = SCENARIO.replace("[load]", """response_bytes = [0, 1024, 4096]
[axes.where]
near = { backend = "unix" }
far  = { backend = "tcp" }
[base]
reuse = "never"
response_bytes = 1024
[load]""")


@pytest.fixture
def place(tmp_path):
    suite_fakes.build(tmp_path / "build")
    (tmp_path / "some.toml").write_text(SHORT)
    (tmp_path / "based.toml").write_text(BASED)
    return tmp_path


def tlsdyno(place: Path, *arguments: str, **recipe: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(TLSDYNO), *arguments], cwd=place, capture_output=True, text=True,
                          env=suite_fakes.environment(place / "build", **recipe))


def test_a_dry_run_prints_exactly_the_cells_that_then_run(place):
    (place / "some.toml").write_text(SHORT.replace('["reference"]', '["reference", "stunnel-fork"]'))
    for only in ([], ["--only", "reuse=always"]):
        dry = tlsdyno(place, "run", "some.toml", "--dry-run", *only)
        *cells, total = dry.stdout.splitlines()
        planned = {(*line.split()[:2], "skipped: " in line) for line in cells}
        assert tlsdyno(place, "run", "some.toml", "--out", f"out{len(only)}{only[-1:]}", *only).returncode in MEASURED
        rows = record.read(place / f"out{len(only)}{only[-1:]}")
        assert len(rows) == len(cells) == int(total.split()[0])
        assert {(row["subject"], row["reuse"], row["status"] == "skipped") for row in rows} == planned


def test_the_order_is_random_by_the_seed_and_repeats_are_interleaved(place):
    loaded = scenario.load(place / "based.toml", KNOWN)
    orders = {}
    for seed in (1, 2):
        plan = cli.make_plan(scenario.replace(loaded, seed=seed, repeats=4), "r")
        again = cli.make_plan(scenario.replace(loaded, seed=seed, repeats=4), "r")
        rounds = plan.rounds()
        assert rounds == again.rounds() and all(sorted(map(str, each)) == sorted(map(str, plan.cells))
                                                for each in rounds)
        assert len(set(map(tuple, rounds))) > 1
        orders[seed] = rounds
    assert orders[1] != orders[2]


def test_the_seed_that_was_drawn_is_recorded_and_gives_the_order(place):
    assert tlsdyno(place, "run", "some.toml", "--repeats", "3", "--out", "out").returncode in MEASURED
    seed = json.loads((place / "out" / "machine.json").read_text())["seed"]
    loaded = scenario.replace(scenario.load(place / "some.toml", KNOWN), repeats=3)
    rounds = cli.make_plan(scenario.replace(loaded, seed=seed), "r").rounds()
    order = [runner.key(repeat, cell) for repeat, cells in enumerate(rounds, start=1) for cell in cells]
    assert order == [record.row_key(row) for row in record.read(place / "out")]
    dry = tlsdyno(place, "run", "some.toml", "--seed", "-1", "--dry-run")
    assert dry.returncode == 2 and "--seed" in dry.stderr


def test_axes_with_a_base_vary_one_at_a_time_or_all(place):
    loaded = scenario.load(place / "based.toml", KNOWN)
    cells = [(cell.reuse, cell.response_bytes, cell.backend) for cell in scenario.expand(loaded)]
    near = [("never", 0), ("never", 1024), ("never", 4096), ("always", 1024)]
    assert sorted(cells) == sorted((*pair, backend) for pair in near for backend in ("unix", "tcp"))
    assert len(scenario.expand(scenario.replace(loaded, full=True))) == 12
    narrow = scenario.narrow(loaded, ["response_bytes=4096", "where=near"])
    assert [(cell.reuse, cell.response_bytes) for cell in scenario.expand(narrow)] == [("never", 4096)]
    assert tlsdyno(place, "run", "based.toml", "--dry-run").stdout.count("subject ") == 8
    assert tlsdyno(place, "run", "based.toml", "--dry-run", "--full").stdout.count("subject ") == 12
    result = tlsdyno(place, "run", "some.toml", "--dry-run", "--full")
    assert result.returncode == 2 and "--full: some.toml: combines all its values anyway" in result.stderr


@pytest.mark.parametrize("line, reason", [
    ('speed = 1', "base.speed: no such axis (axes: reuse, response_bytes, where)"),
    ('where = "afar"', "base.where: no such value (values: near, far)")])
def test_a_base_that_is_not_there_is_refused(place, line, reason):
    (place / "based.toml").write_text(BASED.replace("[base]", f"[base]\n{line}"))
    with pytest.raises(Refused) as refusal:
        scenario.load(place / "based.toml", KNOWN)
    assert reason in str(refusal.value)


TOGETHER = BASED.replace('["reference"]', '["reference", "nginx", "stunnel-fork"]') + """
[placement]
at_once = ["subject", "reuse"]
"""


def test_cells_that_differ_only_in_what_is_at_once_are_a_group_and_beside_each_other(place):
    (place / "together.toml").write_text(TOGETHER)
    loaded = scenario.replace(scenario.load(place / "together.toml", KNOWN), full=True, seed=1, repeats=3)
    plan = cli.make_plan(loaded, "r")
    groups = plan.groups(plan.cells)
    together = [{(cell.subject, cell.reuse) for cell in group} for group in groups if len(group) > 1]
    assert together == [{(subject, reuse) for subject in ("reference", "nginx") for reuse in ("never", "always")}] * 6
    # One that is skipped is nobody's company.
    assert [group[0].subject for group in groups if len(group) == 1] == ["stunnel-fork"] * 12
    for cells in plan.rounds():
        assert sorted(map(str, cells)) == sorted(map(str, plan.cells))
        assert sorted(sorted(map(str, group)) for group in plan.groups(cells)) == \
            sorted(sorted(map(str, group)) for group in groups)
    assert plan.rounds()[0] != plan.rounds()[1]
    # An axis of bundles stands for what it sets.
    for name in ("where", "backend"):
        (place / "together.toml").write_text(TOGETHER.replace('"reuse"]\n', f'"reuse", "{name}"]\n'))
        wider = cli.make_plan(scenario.load(place / "together.toml", KNOWN), "r")
        assert max(map(len, wider.groups(wider.cells))) == 8
    (place / "together.toml").write_text(TOGETHER)
    # And all take as long as one of them.
    alone = cli.make_plan(scenario.replace(loaded, at_once=()), "r")
    assert plan.seconds() < alone.seconds() / 2
    dry = tlsdyno(place, "run", "together.toml", "--dry-run").stdout
    assert dry.count("at once with 3 more") == 8 and dry.count("at once with 1 more") == 8
    assert "at once" not in tlsdyno(place, "run", "together.toml", "--dry-run", "--alone").stdout


@pytest.mark.parametrize("change, value", [("loop", "rate:10"), ("loop", "burst"), ("load_tool", "wrk"), ("hosts", 2)])
def test_who_takes_more_than_its_share_or_is_several_is_measured_alone(place, change, value):
    (place / "together.toml").write_text(TOGETHER)
    plan = cli.make_plan(scenario.load(place / "together.toml", KNOWN), "r")
    cell = plan.cells[0]
    assert plan.has_company(cell) and not plan.has_company(scenario.replace(cell, **{change: value}))


def test_an_axis_that_is_not_there_cannot_be_at_once(place):
    (place / "together.toml").write_text(TOGETHER.replace('"reuse"]\n', '"size"]\n'))
    result = tlsdyno(place, "run", "together.toml", "--dry-run")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "placement.at_once: no axis or parameter is called 'size' (axes: reuse, response_bytes, where)" in \
        result.stderr
    result = tlsdyno(place, "run", "some.toml", "--dry-run", "--alone")
    assert result.returncode == 2 and "--alone: some.toml: has each cell measured alone anyway" in result.stderr


@pytest.mark.parametrize("address, owned, fine", [
    ("127.0.0.1:443", False, True), ("127.9.9.9:443", False, True), ("[::1]:443", False, True),
    ("localhost:443", False, True), ("192.0.2.1:443", False, False), ("192.0.2.1:443", True, True),
    ("example.org:443", False, False), ("example.org:443", True, True), ("[2001:db8::1]:443", False, False),
    ("127.0.0.1", True, False), ("127.0.0.1:", True, False), ("127.0.0.1:0", True, False), (":443", True, False),
    ("https://127.0.0.1:443", True, False), ("127.0.0.1:99999", True, False)])
def test_only_what_is_ones_own_is_loaded(address, owned, fine):
    if fine:
        check_address(address, owned)
        return
    with pytest.raises(Refused):
        check_address(address, owned)


def test_a_subject_elsewhere_has_rates_and_no_costs(place):
    result = tlsdyno(place, "run", "some.toml", "--only", "subject=external", "--external", "127.0.0.1:1", "--out",
                     "out", "--duration", "500ms")
    assert result.returncode in MEASURED, result.stderr
    for row in record.read(place / "out"):
        assert (row["bound"], row["placement"]) == ("none", LAST)
        # Other work on this machine may leave the load generator too little.
        assert row["stands"] == "all" or any(reason in row["reason"] for reason in (
            "something else used CPU", "the CPU clocks were not read", "the hypervisor took")), row["reason"]
        assert row["transactions_per_s"] and row["client_cpu_us_per_op"]
        assert not any(row[name] for name in ("subject_cpu_us_per_op", "backend_cpu_us_per_op", "subject_rss_kib",
                                              "floor_cpu_us_per_op", "floor_reason", "capacity_per_core_per_s"))
    assert "external" in result.stdout
    assert not list((place / "out" / "logs").glob("*-subject.log"))


def test_a_load_generator_without_headroom_bounds_a_subject_elsewhere(place):
    result = tlsdyno(place, "run", "some.toml", "--only", "subject=external", "--only", "reuse=never", "--external",
                     "127.0.0.1:1", "--out", "out", "--duration", "1500ms", burns="loadgen")
    row = record.read(place / "out")[0]
    assert result.returncode == 0 and (row["status"], row["stands"]) == ("invalid", "cost")
    assert any(reason in row["reason"] for reason in ("load generator was the bottleneck", "something else used CPU",
                                                      "the hypervisor took")), row["reason"]


def test_a_subject_elsewhere_needs_an_address(place):
    (place / "some.toml").write_text(SHORT.replace('["reference"]', '["external"]'))
    dry = tlsdyno(place, "run", "some.toml", "--dry-run")
    assert dry.stdout.count("skipped: no address was given (--external HOST:PORT)") == 2


def test_a_server_that_runs_already_is_measured(tmp_path, ecdsa):
    """With the built programs, against one that this project did not start for the run."""
    (tmp_path / "some.toml").write_text(SCENARIO.replace('["never", "always"]', '["never"]'))
    arguments = ["https", "-l", "127.0.0.1:0", "--cert", ecdsa]
    with running("echo-backend", *arguments) as server:
        result = subprocess.run(
            [str(TLSDYNO), "run", "some.toml", "--only", "subject=external", "--external", server.address, "--out",
             str(tmp_path / "out")], cwd=tmp_path, capture_output=True, text=True)
    row = record.read(tmp_path / "out")[0]
    assert row["status"] in ("ok", "invalid") and row["stands"], result.stderr
    assert row["negotiated_version"] == "TLSv1.3" and float(row["handshakes_full_per_s"]) > 0
