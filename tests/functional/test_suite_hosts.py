"""Cells of several hosts, the whole way with the real programs: in network namespaces and on loopback addresses."""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import suite_fakes
from programs import BUILD, is_alive
from suite_fakes import TLSDYNO
from tlsdyno_suite import ab, cli, network, processes, record, scenario
from tlsdyno_suite.subjects import DRIVERS

CAN_NAMESPACE = bool(network.means()[0])
NETWORKS = [pytest.param("namespaces", marks=pytest.mark.skipif(not CAN_NAMESPACE, reason=network.means()[1] or "-")),
            "loopback"]
FARM = """
title = "hosts of a test"
[subject]
names = ["reference"]
[axes.farm]
turn   = { hosts = 2, spread = "turn", failover = "none", reuse = "every:4", loop = "closed", connections = 8 }
sticky = { hosts = 2, spread = "sticky", failover = "none", reuse = "every:4", loop = "closed", connections = 8 }
three  = { hosts = 3, spread = "turn", failover = "none", reuse = "every:4", loop = "closed", connections = 8 }
dies   = { hosts = 2, spread = "sticky", failover = "kill", reuse = "always", loop = "rate:100", connections = 50 }
full   = { hosts = 2, spread = "sticky", failover = "kill", reuse = "always", loop = "closed", connections = 40 }
share  = { hosts = 2, spread = "sticky", failover = "kill", reuse = "always", loop = "rate:10%", connections = 50 }
[axes.tls]
old = { tls_version = "TLSv1.2", cipher = "ECDHE-ECDSA-AES128-GCM-SHA256" }
new = { tls_version = "TLSv1.3", cipher = "TLS_AES_128_GCM_SHA256" }
[axes]
sharing = ["none", "unicast", "multicast", "pull", "ticket-keys"]
[load]
cert_key = "ecdsa:P-256"
duration = "400ms"
warmup = "100ms"
[placement]
network = "NETWORK"
[[table]]
title = "hosts"
rows = ["farm", "sharing"]
columns = ["tls"]
value = ["resumed", "cost"]
of = { farm = ["turn", "sticky", "three"] }
[[table]]
title = "those that are left"
rows = ["sharing"]
columns = []
value = ["target_rate_per_s", "survivor_resumed_before", "survivor_resumed_1s"]
of = { farm = ["dies", "full", "share"] }
[[claim]]
text = "with sharing all resume"
each = { sharing = ["unicast", "ticket-keys"] }
holds = "survivor_resumed(subject='reference', farm='dies', tls='old') >= 99"
[[claim]]
text = "half of them without"
within = 0.3
holds = "survivor_resumed(subject='reference', farm='dies', tls='old', sharing='none') == 50"
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A build directory of the test's own, so that what runs for it is told from what runs for others. Its path is
    short: below it are sockets, whose paths cannot be long."""
    with tempfile.TemporaryDirectory(prefix="hosts-") as name:
        (Path(name) / "build").mkdir()
        for program in ("proxy", "echo-backend", "loadgen", "tls-floor"):
            shutil.copy(BUILD / program, Path(name) / "build" / program)
        yield Path(name)


def command(place: Path, kind: str, *options: str) -> list[str]:
    (place / "some.toml").write_text(FARM.replace("NETWORK", kind))
    return [str(TLSDYNO), "run", str(place / "some.toml"), *options]


def run(place: Path, kind: str, *options: str) -> tuple[list, str]:
    """The rows, and what was printed."""
    done = subprocess.run([*command(place, kind, *options), "--out", str(place / "out")], capture_output=True,
                          text=True, env=suite_fakes.environment(place / "build"), timeout=280)
    assert done.returncode in (0, 4), done.stderr
    assert suite_fakes.sessions_below(place / "build") == [] and not list((place / "tmp").iterdir())
    return record.read(place / "out"), done.stdout


def is_sound(row: record.ReadRow) -> bool:
    """On a busy machine rates do not stand, and clocks may not be read around so short a window."""
    return bool(row["stands"]) or "clocks" in row["reason"]


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


@pytest.mark.parametrize("kind", NETWORKS)
def test_sessions_resume_elsewhere_only_where_something_is_shared(place, kind):
    sharing, tls = {"namespaces": ("none,unicast,multicast,ticket-keys", "old"),
                    "loopback": ("none,pull,multicast", "new")}[kind]
    rows, out = run(place, kind, "--only", "farm=turn", "--only", f"sharing={sharing}", "--only", f"tls={tls}")
    assert len(rows) == len(sharing.split(","))
    for row in rows:
        assert is_sound(row), row["reason"]
        assert (row["network"], row["hosts"], row["spread"]) == (kind, "2", "turn")
        share = float(row["resume_accepted_share"])
        sessions = row["sharing"] in ("unicast", "multicast", "pull")
        assert share == 0 if row["sharing"] == "none" else share > 0.5, (row["sharing"], share)
        assert bool(row["sharing_lag_us"]) == sessions
        assert bool(row["sharing_bytes_per_session"]) == (row["sharing"] != "none")
        if sessions:
            assert float(row["sharing_bytes_per_session"]) > 100 and float(row["sharing_datagrams_per_session"]) > 0
        assert row["floor_cpu_us_per_op"] == "" and float(row["subject_cpu_us_per_op"]) > 0
        assert row["survivor_resumed_share_by_second"] == ""
    assert "turn, nothing shared" in out and "% resumed" in out


@pytest.mark.parametrize("kind", NETWORKS)
def test_with_one_host_dead_the_other_resumes_what_was_shared_and_no_more(place, kind):
    """Of fifty clients that come in turn the dead one's are half for half a second, of forty at full load few."""
    farm = {"namespaces": "dies", "loopback": "full"}[kind]
    rows, out = run(place, kind, "--only", f"farm={farm}", "--only", "sharing=none,unicast", "--only", "tls=old",
                    "--duration", "1400ms")
    for row in rows:
        assert is_sound(row) and row["network"] == kind, row["reason"]
        before, *after = numbers(row["survivor_resumed_share_by_second"])
        assert before >= 0.99 and len(after) == 1
        assert min(after) >= 0.99 if row["sharing"] == "unicast" else min(after) < 1
        assert all(len(numbers(row[name])) == 2 for name in row if name.endswith("_by_second"))
        # Nothing that changes in mid-window is an average of it.
        assert row["connections_per_s"] == row["subject_cpu_us_per_op"] == ""
        assert int(row["errors_connect_refused"]) >= 1
    assert "those that are left" in out and "1st second" in out
    if not all(row["stands"] for row in rows):
        return
    # How near to a half it is depends on the machine.
    assert out.count("  holds  ") >= (farm == "dies") and out.count("hold") >= 2 * (farm == "dies")
    for form in ("text", "markdown"):
        shown = subprocess.run([str(TLSDYNO), "table", str(place / "out"), "--format", form], capture_output=True,
                               text=True)
        assert shown.returncode == 0 and "those that are left" in shown.stdout and "nothing shared" in shown.stdout
    cells = subprocess.run([str(TLSDYNO), "table", str(place / "out"), "--cells"], capture_output=True, text=True)
    assert "worst second" in cells.stdout and "2 hosts" in cells.stdout
    drawn = subprocess.run([str(TLSDYNO), "plot", str(place / "out")], capture_output=True, text=True)
    assert drawn.returncode == 0 and drawn.stdout.count(".svg") == (3 if farm == "dies" else 2)


def test_how_often_clients_come_may_follow_from_what_the_host_that_is_left_can_do(place):
    rows, out = run(place, "loopback", "--only", "farm=share", "--only", "sharing=unicast", "--only", "tls=old",
                    "--duration", "1400ms")
    row, = rows
    assert is_sound(row) and row["loop"] == "rate:10%" and int(row["target_rate_per_s"]) > 10, row["reason"]
    assert min(numbers(row["survivor_resumed_share_by_second"])) >= 0.99
    assert "asked for a second" in out
    cells = subprocess.run([str(TLSDYNO), "table", str(place / "out"), "--cells"], capture_output=True, text=True)
    assert "10 % of a closed loop's rate" in cells.stdout


def test_clients_that_stay_resume_without_sharing_on_three_hosts_none_does(place):
    rows, _ = run(place, "loopback", "--only", "farm=sticky,three", "--only", "tls=old", "--only", "sharing=none")
    for row in rows:
        assert is_sound(row), row["reason"]
        share = float(row["resume_accepted_share"])
        assert share == (1 if row["spread"] == "sticky" else 0)
    # Two are of this run already, and nothing is measured twice.
    again = subprocess.run([str(TLSDYNO), "run", "--resume", str(place / "out")], capture_output=True, text=True,
                           env=suite_fakes.environment(place / "build"))
    assert "0 rows left" in again.stderr and record.read(place / "out") and len(record.read(place / "out")) == 2


# ---- Networks ----

def networks_of(pids: list[int]) -> set[str]:
    return {os.readlink(f"/proc/{pid}/ns/net") for pid in pids}


def holders(runner: int) -> list[int]:
    """What a runner has started for its networks."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == b"sleep\0infinity\0" and (
                    f"\nPPid:\t{runner}\n" in (entry / "status").read_text()):
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not CAN_NAMESPACE, reason=network.means()[1] or "-")
def test_a_killed_runner_leaves_no_namespace_after_the_next_start(place):
    """One of them cannot even heed the kernel's SIGTERM."""
    runner = subprocess.Popen([*command(place, "namespaces", "--only", "farm=turn", "--only", "sharing=unicast"),
                               "--out", str(place / "first"), "--duration", "60s"], stderr=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, env=suite_fakes.environment(place / "build"))
    while not any("loadgen" in line for line in suite_fakes.sessions_below(place / "build")):
        assert runner.poll() is None
        time.sleep(0.05)
    held = holders(runner.pid)
    spaces = networks_of(held)
    assert len(held) == len(spaces) == 3 and os.readlink("/proc/self/ns/net") not in spaces
    os.kill(held[0], signal.SIGSTOP)
    while "\nState:\tT" not in Path(f"/proc/{held[0]}/status").read_text():
        time.sleep(0.01)  # of two signals that wait it would take the other one first
    runner.kill()
    runner.wait()
    while len([pid for pid in held if is_alive(pid)]) > 1 or "loadgen" in str(
            suite_fakes.sessions_below(place / "build")):
        time.sleep(0.05)
    assert is_alive(held[0])
    run(place, "loopback", "--only", "farm=turn", "--only", "sharing=none", "--only", "tls=old", "--duration", "100ms")
    assert not is_alive(held[0]) and not spaces & set(all_networks())


def all_networks() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                yield os.readlink(entry / "ns/net")


USER = ("unshare", "--user", "--map-root-user", "--net")
CAN_BE_ROOT = subprocess.run([*USER, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not CAN_NAMESPACE, reason=network.means()[1] or "-")
@pytest.mark.parametrize("command_", [("unshare", "--net"), USER], ids=["root", "user"])
def test_hosts_reach_each_other_and_nobody_else(tmp_path, monkeypatch, command_):
    if command_ == USER and not CAN_BE_ROOT or command_ != USER and os.geteuid() != 0:
        pytest.skip("no such namespaces here")
    monkeypatch.setattr(network, "means", lambda: (command_, ""))
    listen = "import socket; s = socket.create_server(('{}', 4433)); print('listening', flush=True); s.accept()"
    ask = "import socket; socket.create_connection(('10.77.0.2', 4433), 10)"
    with processes.crew() as programs:
        made = network.make("namespaces", 2, (min(os.sched_getaffinity(0)),), tmp_path, programs)
        assert (made.kind, made.interface, len(made.hosts), len(made.places)) == ("namespaces", "eth0", 2, 3)
        log = tmp_path / "server.log"
        server = processes.start("subject", [sys.executable, "-c", listen.format(made.hosts[1].address)],
                                 (min(os.sched_getaffinity(0)),), log, made.hosts[1].within)
        programs.append(server)
        processes.wait_until_ready(server, lambda: "listening" in log.read_text(), 60)
        assert subprocess.run([*made.hosts[0].within, sys.executable, "-c", ask]).returncode == 0
        here = subprocess.run([*made.outside.within, "ip", "-o", "-4", "address"], capture_output=True,
                              text=True).stdout
        assert "10.77.0.254/24" in here and here.count("inet") == 2  # and loopback
        spaces = networks_of([int(place.process) for place in made.places])
    assert not spaces & set(all_networks())


def test_without_namespaces_hosts_are_on_loopback_or_the_cell_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "means", lambda: ((), "ip is not installed (Debian package iproute2)"))
    assert network.kind("") == "loopback"
    made = network.make("", 2, (0,), tmp_path, [])
    assert [host.address for host in made.hosts] == ["127.0.0.1", "127.0.0.2"] and made.outside == network.HERE
    for kind, reason in (("loopback", None),
                         ("namespaces", "no network namespaces here: ip is not installed (Debian package iproute2)")):
        (tmp_path / "some.toml").write_text(FARM.replace("NETWORK", kind))
        plan = cli.make_plan(scenario.load(tmp_path / "some.toml", tuple(DRIVERS)), "r")
        assert {plan.obstacle(cell) for cell in plan.cells} == {reason}


# ---- What cannot be measured, and by whom ----

def test_what_no_farm_can_do_is_skipped_with_its_reason(tmp_path):
    text = FARM.replace("NETWORK", "loopback").replace('"reference"]', '"reference", "nginx"]')
    (tmp_path / "some.toml").write_text(text.replace("[axes.farm]", """[axes.farm]
alone  = { hosts = 1, spread = "turn", failover = "none", reuse = "always", loop = "closed", connections = 8 }
loses  = { hosts = 1, spread = "turn", failover = "kill", reuse = "always", loop = "closed", connections = 8 }
stays  = { hosts = 1, spread = "sticky", failover = "none", reuse = "always", loop = "closed", connections = 8 }
wander = { hosts = 2, spread = "turn", failover = "kill", reuse = "always", loop = "closed", connections = 8 }
burst  = { hosts = 2, spread = "turn", failover = "none", reuse = "never", loop = "burst", connections = 8 }"""))
    plan = cli.make_plan(scenario.load(tmp_path / "some.toml", tuple(DRIVERS)), "r")
    reasons = {(cell.subject, cell.case.split(";")[0][5:], cell.sharing): plan.obstacle(cell) for cell in plan.cells}
    assert reasons["reference", "turn", "unicast"] is None and reasons["reference", "alone", "none"] is None
    assert reasons["reference", "alone", "pull"] == "one host has nobody to share with (sharing = pull)"
    assert reasons["reference", "loses", "none"] == "one host leaves nobody behind (failover = kill)"
    assert reasons["reference", "stays", "none"] == "one host is the only one to stay with (spread = sticky)"
    assert "of clients that stay with theirs" in reasons["reference", "wander", "none"]
    assert "connections that come again" in reasons["reference", "burst", "none"]
    assert reasons["nginx", "turn", "none"] in ("nginx is measured as one host only", "nginx is not installed")
    cells, left_out = ab.measurable(cli.make_plan(scenario.narrow(plan.scenario, ["farm=alone,turn"]), "r"))
    assert {cell.hosts for cell in cells} == {1}
    assert any("skipped: ab measures one host" in reason for reason in left_out)


@pytest.mark.parametrize("resume_with, sharing, tls, reason", [
    ("id", "ticket-keys", "old", "hosts that share keys of tickets share no session IDs"),
    ("ticket", "unicast", "old", "hosts with sharing = unicast give no tickets before TLS 1.3"),
    ("ticket", "unicast", "new", None), ("id", "unicast", "old", None), ("ticket", "ticket-keys", "old", None)])
def test_what_clients_resume_with_is_what_is_shared(tmp_path, resume_with, sharing, tls, reason):
    (tmp_path / "some.toml").write_text(FARM.replace("NETWORK", "loopback").replace(
        "[placement]", f'resume_with = "{resume_with}"\n[placement]'))
    loaded = scenario.narrow(scenario.load(tmp_path / "some.toml", tuple(DRIVERS)),
                             ["farm=turn", f"tls={tls}", f"sharing={sharing}"])
    plan = cli.make_plan(loaded, "r")
    assert [plan.obstacle(cell) for cell in plan.cells] == [reason]
