"""What spoils a row of several hosts, each provoked: in what was seen, and some of it for real."""
from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import suite_fakes
from programs import BUILD, children
from suite_fakes import SCENARIO, TLSDYNO
from tlsdyno_suite import record, scenario
from tlsdyno_suite.loads.loadgen import Result
from tlsdyno_suite.placement import Placement
from tlsdyno_suite.sampler import TCP_COUNTERS
from tlsdyno_suite.seconds import before, figures, lowest, only, second
from tlsdyno_suite.sharing import Told, told, traffic
from tlsdyno_suite.subjects import DRIVERS
from tlsdyno_suite.takeover import Span, Takeover, by_second
from tlsdyno_suite.verdict import Evidence, judge

HOST = Told(connections=5000, handshakes_full=500, peers=1, announced=500, datagrams=400, bytes=100_000, lag_us=80_000,
            lags=400, strange={})


@pytest.fixture
def sound(tmp_path: Path) -> Evidence:
    """A row of two hosts that share sessions, in which everything is as asked."""
    path = tmp_path / "some.toml"
    path.write_text(SCENARIO.replace('reuse = ["never", "always"]', 'reuse = ["every:10"]').replace(
        '"400ms"', '"2s"\nhosts = 2\nsharing = "unicast"'))
    cell, = scenario.expand(scenario.load(path, tuple(DRIVERS)))
    totals = {"handshakes_full": 1000, "handshakes_resumed": 9000, "connections_opened": 10_000, "errors": {}}
    load = Result(
        engine="light", started_ns=0, duration_s=2.0, transactions=8000, handshakes_full=800, handshakes_resumed=7200,
        resume_offered=7200, resume_refused=0, bytes_received=10**7, bytes_sent=10**6, rates={}, latency_us={},
        negotiated=[{"tls_version": cell.tls_version, "cipher": cell.cipher, "group": cell.group, "count": 8000}],
        certificates=[{"key": cell.cert_key, "chain_bytes": 500, "count": 1000}], errors={}, totals=totals,
        half_rates=(4000, 4000), body_bytes=(0, 0))
    return Evidence(
        cell=cell, placement=Placement((0,), (1,), (1,), ((0,), (0,))), asked_s=2.0, load=load,
        cpu_s={"subject": 1.98, "client": 1.2, "backend": 0.3}, sample_gap_s=0.02, busy={0: 0.99, 1: 0.8}, steal=0.0,
        tcp=dict.fromkeys(TCP_COUNTERS, 0), unpinned=(), network="namespaces", hosts=(HOST, HOST),
        counted={"handshakes_full": 1000, "handshakes_resumed": 9000, "connections_accepted": 10_000,
                 "handshakes_failed": 0})


@pytest.fixture
def bereft(sound: Evidence) -> Evidence:
    """A row in whose middle one of them died."""
    cell = replace(sound.cell, reuse="always", spread="sticky", failover="kill", connections=100)
    load = replace(sound.load, handshakes_full=0, handshakes_resumed=8000, resume_offered=8000,
                   errors={"connect_refused": 2, "reset": 40})
    takeover = Takeover(10**9, Span(0.9, 1800, 1800, 0.4), (Span(0.9, 3600, 3600, 0.9),))
    return replace(sound, cell=cell, load=load, takeover=takeover, hosts=(), counted=None)


def spoils(evidence: Evidence, reason: str) -> None:
    verdict = judge(evidence)
    assert (verdict.status, verdict.stands, verdict.reason) == ("invalid", "", reason)


def test_sound_rows_stand_in_full(sound, bereft):
    for evidence in (sound, bereft):
        assert (judge(evidence).status, judge(evidence).reason) == ("ok", "")


def test_that_sessions_were_refused_elsewhere_is_a_figure_that_they_were_not_offered_spoils(sound):
    refused = replace(sound.load, handshakes_full=4000, handshakes_resumed=4000, resume_refused=3200)
    assert judge(replace(sound, load=refused)).stands == "all"
    spoils(replace(sound, load=replace(sound.load, resume_offered=6000)),
           "75.0 % of the handshakes offered a session, not 90.0 %")


def test_a_session_that_is_resumed_though_nothing_is_shared_spoils(sound):
    alone = replace(HOST, peers=0)
    nothing = replace(sound, cell=replace(sound.cell, sharing="none"), hosts=(alone, alone))
    spoils(nothing, "9000 handshakes were resumed on a host that could not know of the session")


@pytest.mark.parametrize("changes, reason", [
    ({"connections": 4000}, "host 1 had 4000 of 9000 connections, not one in 2"),
    ({"peers": 0}, "host 1 had heard of 0 others at the end, not 1"),
    ({"peers": 2}, "host 1 had heard of 2 others at the end, not 1"),
    ({"strange": {"forged": 3, "not_ours": 1}},
     "host 1 got datagrams that no host of this farm had sent: forged 3, not_ours 1")])
def test_a_host_that_is_not_one_of_a_farm_spoils(sound, changes, reason):
    spoils(replace(sound, hosts=(replace(HOST, **changes), HOST)), reason)


def test_who_stays_with_a_host_may_be_served_faster_than_others(sound):
    sticky = replace(sound, cell=replace(sound.cell, spread="sticky"))
    assert judge(replace(sticky, hosts=(replace(HOST, connections=100), HOST))).stands == "all"
    spoils(replace(sticky, load=replace(sound.load, handshakes_resumed=4000, handshakes_full=4000)),
           "50.0 % of the handshakes were resumed, not 90.0 %: 7200 sessions were offered in 8000 handshakes")


def test_a_host_that_dies_at_another_time_or_not_at_all_spoils(bereft):
    for takeover in (None, replace(bereft.takeover, killed_ns=3 * 10**9), replace(bereft.takeover, killed_ns=-1)):
        spoils(replace(bereft, takeover=takeover), "no host was killed within the window")


def test_what_was_not_well_before_is_not_the_death_s_doing(bereft):
    spoils(replace(bereft, takeover=replace(bereft.takeover, before=Span(0.9, 1800, 1700, 0.4))),
           "94.4 % of the handshakes were resumed before the host was killed, not 99.0 %")
    spoils(replace(bereft, takeover=replace(bereft.takeover, before=Span(0.9, 0, 0, 0.4))),
           "nothing was resumed before the host was killed, not 99.0 %")


def test_clients_that_came_nowhere_spoil(bereft):
    nobody = replace(bereft.takeover, after=(Span(0.9, 3600, 3600, 0.9), Span(0.9, 0, 0, 0.0)))
    spoils(replace(bereft, takeover=nobody), "in a second after the host was killed nobody was served")
    spoils(replace(bereft, cell=replace(bereft.cell, sharing="none")),
           "no client of the host that was killed came to another")


def test_more_errors_than_a_death_makes_spoil_and_so_do_others(bereft):
    spoils(replace(bereft, load=replace(bereft.load, errors={"connect_refused": 60, "reset": 40})),
           "errors: connect_refused 60, reset 40")
    spoils(replace(bereft, load=replace(bereft.load, errors={"connect_refused": 1, "http_status": 2})),
           "errors: http_status 2")
    spoils(replace(bereft, cell=replace(bereft.cell, failover="none"), takeover=None),
           "errors: connect_refused 2, reset 40")


# ---- Figures ----

def test_what_sharing_took_is_divided_by_sessions():
    passed = traffic((HOST, HOST))
    assert (passed.datagrams_per_session, passed.bytes_per_session, passed.lag_us) == (0.8, 200, 200)
    keys_only = traffic((replace(HOST, announced=0, lags=0, datagrams=5), replace(HOST, announced=0, lags=0)))
    assert (keys_only.datagrams_per_session, keys_only.lag_us) == (405 / 1000, None)
    silent = replace(HOST, announced=0, datagrams=0, bytes=0, lags=0)
    assert set(vars(traffic((silent, silent))).values()) == {None} == set(vars(traffic(())).values())


def test_what_a_host_told_is_what_it_has_counted_since():
    shared = {"sessions_announced": 10, "datagrams_sent": 20, "bytes_sent": 3000, "lag_us_sum": 5, "lag_count": 1,
              "peers": 1, "rejected": {"forged": 0, "unproven": 3, "malformed": 2}}
    page = {"connections_accepted": 100, "handshakes_full": 50, "shared_cache": shared}
    later = {"connections_accepted": 150, "handshakes_full": 60, "shared_cache": {**shared, "datagrams_sent": 25}}
    assert told(page, later) == Told(50, 10, 1, 0, 5, 0, 0, 0, {"malformed": 2})
    alone = {"connections_accepted": 1, "handshakes_full": 1}
    assert told(alone, alone) == Told(0, 0, 0, 0, 0, 0, 0, 0, {})


def test_seconds_in_a_field(bereft):
    takeover = replace(bereft.takeover, after=(Span(1.0, 1000, 500, 0.5), Span(1.0, 0, 0, 0.1),
                                               Span(0.5, 100, 75, 0.1)))
    field = by_second(takeover, "resumed_share")
    assert field == "1 0.5 - 0.75" and by_second(takeover, "cpu_busy") == "0.444444 0.5 0.1 0.2"
    assert by_second(takeover, "cpu_us_per_op") == "222.222 500 - 1000" and by_second(None, "cpu_busy") is None
    values = figures(field)
    assert (before(values), second(1)(values), second(2)(values), second(3)(values), second(4)(values)) == (
        1, 0.5, None, 0.75, None)
    assert lowest(values) == 0.5 and only(figures("7.5")) == 7.5
    assert (only([]), before([]), second(1)([]), lowest([])) == (None,) * 4


# ---- For real, on loopback addresses ----

FARM = SCENARIO.replace('reuse = ["never", "always"]', 'reuse = ["every:4"]').replace(
    '"400ms"', '"2s"\nhosts = 2\nsharing = "unicast"') + '[placement]\nnetwork = "loopback"\n'


@pytest.fixture
def place() -> Iterator[Path]:
    """With a short path: below it are sockets, whose paths cannot be long."""
    with tempfile.TemporaryDirectory(prefix="hosts-") as name:
        (Path(name) / "build").mkdir()
        for program in ("proxy", "echo-backend", "loadgen", "tls-floor"):
            (Path(name) / "build" / program).symlink_to(BUILD / program)
        (Path(name) / "some.toml").write_text(FARM)
        yield Path(name)


def begun(place: Path) -> subprocess.Popen[str]:
    """Until the load has begun."""
    program = subprocess.Popen([str(TLSDYNO), "run", str(place / "some.toml"), "--out", str(place / "out")],
                               env=suite_fakes.environment(place / "build"), text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    while not list((place / "out" / "logs").glob("*client.log")):
        assert program.poll() is None, program.communicate()
        time.sleep(0.02)
    return program


def row_of(place: Path, program: subprocess.Popen[str]) -> record.ReadRow:
    _, errors = program.communicate(timeout=240)
    assert program.returncode == 4, errors
    row, = record.read(place / "out")
    assert list((place / "tmp").iterdir()) == []
    return row


def shared_cache_of(place: Path, host: int) -> tuple[str, int]:
    log, = (place / "out" / "logs").glob(f"*host-{host}.log")
    found = re.search(r"shared cache on (\S+):(\d+)", log.read_text())
    assert found
    return found[1], int(found[2])


def test_a_strangers_datagram_spoils_the_row(place):
    program = begun(place)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"x" * 100, shared_cache_of(place, 2))
    row = row_of(place, program)
    assert (row["status"], row["stands"]) == ("invalid", "")
    assert "host 2 got datagrams that no host of this farm had sent: not_ours 1" in row["reason"]


@pytest.mark.parametrize("victim", [1, 2])
def test_a_host_that_dies_unasked_fails_the_row(place, victim):
    program = begun(place)
    asked = "\0-U\0{}:{}\0".format(*shared_cache_of(place, victim))
    host, = [pid for pid in children(program.pid) if asked in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(host, signal.SIGKILL)
    row = row_of(place, program)
    assert row["status"] == "failed"
    assert row["reason"].startswith(f"host {victim} died in mid-run: it was killed by SIGKILL")
