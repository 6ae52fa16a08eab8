"""Load that keeps coming whatever the target does, and how it begins: rate, ramp, burst."""
from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from counting_server import LIMIT_S, agrees, errors, free_port, load, response, server_context, serving, wait_for
from programs import make_certificate, program, run


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))[2]


def accounts_for_all(result: dict) -> None:
    """Whatever was due was done, failed or never begun, and everything that was done has its latencies."""
    arrivals = result["open_loop"]
    assert arrivals["due"] == arrivals["done"] + arrivals["failed"] + arrivals["never_begun"]
    latency = result["latency_us"]
    whole = "transaction" if "transactions" in result else "connection"
    assert latency[whole]["count"] == latency["service"]["count"] == arrivals["done"]
    assert latency["start_delay"]["count"] == arrivals["due"] - arrivals["never_begun"]


# ---- What the open loop is for ----


def test_a_stall_of_the_server_shows_in_the_open_loop_only(pem):
    """The server stands still for 1 s in a run of 10 s. In the open loop one in ten was to begin meanwhile, in the
    closed loop hardly any did."""
    stall = threading.Lock()
    asked = {"/open": 0, "/closed": 0}

    def answer(head: bytes, body: bytes) -> bytes:
        path = head.split()[1].decode()
        asked[path] += 1
        if path == "/open" and asked[path] == 200:
            with stall:
                time.sleep(1)
        with stall:
            return response(b"x" * 100)

    def begin(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen([program("loadgen"), "--json", "-", "-d", "10s", "--requests-per-connection", "inf",
                                 *arguments], stdout=subprocess.PIPE, text=True)
    with serving(server_context(pem), answer=answer) as server:
        processes = [begin("-c", "4", "--rate", "50", server.url + "open"), begin("-c", "1", server.url + "closed")]
        opened, closed = (json.loads(process.communicate(timeout=LIMIT_S)[0]) for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert opened["loop"] == "open" and closed["loop"] == "closed"
    assert opened["open_loop"]["due"] == 500
    accounts_for_all(opened)
    assert opened["latency_us"]["transaction"]["max"] >= 1e6
    assert opened["latency_us"]["transaction"]["p99"] >= 0.88e6  # of 500, those of the first 100 ms of the stall
    assert closed["transactions"] > 100
    assert closed["latency_us"]["transaction"]["p99"] < 0.88e6


def test_latency_counts_from_the_moment_that_was_intended(pem):
    """One connection, ten arrivals in the first second, and the first of them takes 1 s: all others are late."""
    answered = []

    def answer(head: bytes, body: bytes) -> bytes:
        if not answered:
            time.sleep(1)
        answered.append(1)
        return response()
    with serving(server_context(pem), answer=answer) as server:
        result = load("-c", 1, "--rate", 10, "-n", 10, "--requests-per-connection", "inf", server.url)
    accounts_for_all(result)
    latency = result["latency_us"]
    assert latency["transaction"]["max"] >= 1e6 and latency["ttfb"]["max"] >= 1e6 and latency["service"]["max"] >= 1e6
    assert latency["start_delay"]["max"] >= 0.9e6
    assert latency["transaction"]["mean"] >= 0.5e6  # 1 s, 0.9 s, 0.8 s ...
    assert latency["transaction"]["mean"] == pytest.approx(
        latency["start_delay"]["mean"] + latency["service"]["mean"], rel=1e-3)


def test_a_connection_that_is_an_arrival_counts_as_a_whole(pem):
    with serving(server_context(pem), answer=lambda head, body: response()) as server:
        server.on_accept = lambda connection: bool(time.sleep(0.2))  # before the handshake
        result = load("-c", 10, "--rate", 20, "-n", 10, server.url)
        only = load("-c", 10, "--rate", 20, "-n", 10, "--requests-per-connection", 0, server.url)
    accounts_for_all(result)
    assert result["latency_us"]["transaction"]["min"] >= 0.2e6
    accounts_for_all(only)
    assert only["latency_us"]["connection"]["min"] >= 0.2e6
    assert "transaction" not in only["latency_us"]


# ---- Nothing is left out ----


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("requests", [0, 1, 5, "inf"])
def test_as_many_come_as_the_rate_says(pem, requests, workers):
    with serving(server_context(pem)) as server:
        result = load("-c", 6, "-w", workers, "--rate", 60, "-d", "1s", "--requests-per-connection", requests,
                      server.url)
    agrees(result, server)
    assert not errors(result)
    assert result["duration_s"] == pytest.approx(1, abs=1e-6)
    arrivals = result["open_loop"]
    assert arrivals["arrivals"] == "fixed" and arrivals["rate_per_s"] == 60
    assert arrivals["due"] == 60
    accounts_for_all(result)
    if requests == "inf":
        assert result["totals"]["connections_opened"] == 6


def test_a_socket_that_was_reset_waits_for_its_next_connection(pem):
    """The kernel says of a socket that is connected to nobody that it has hung up, as often as it is asked."""
    with serving(server_context(pem, "TLSv1.2")) as server:
        result = load("--rate", 10, "-c", 3, "-d", "2s", "--requests-per-connection", 1, "--close", "rst", server.url)
    agrees(result, server)
    assert not errors(result)
    assert result["totals"]["connections_opened"] == result["totals"]["transactions"] == 20
    assert result["cpu"]["user_s"] + result["cpu"]["system_s"] < 0.3  # one that spins would use all of the 2 s


@pytest.mark.parametrize("how", [["-d", "10h"], ["-n", "9000000000000000000"]])
@pytest.mark.parametrize("arrivals", ["fixed", "poisson"])
def test_a_target_that_is_not_there_is_told_at_once_however_many_would_have_come(arrivals, how):
    done = run("loadgen", "--rate", "1000000", "--arrivals", arrivals, "--close", "rst", *how,
               f"http://127.0.0.1:{free_port()}/")
    assert done.returncode == 3 and "Connection refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_more_than_the_target_can_do_waits_and_is_late(pem):
    """Two connections and at least 200 ms each: 10 a second at most, where 100 are due."""
    def answer(head: bytes, body: bytes) -> bytes:
        time.sleep(0.2)
        return response()
    with serving(server_context(pem), answer=answer) as server:
        result = load("-c", 2, "--rate", 100, "-d", "1s", "--requests-per-connection", "inf", server.url)
    agrees(result, server)
    accounts_for_all(result)
    arrivals = result["open_loop"]
    assert arrivals["due"] == 100 and arrivals["failed"] == 0
    # In the time itself, and in the 2 s in which what waits may still begin.
    assert arrivals["done"] <= 10 + 20 + 2
    assert arrivals["never_begun"] >= 100 - 32
    assert arrivals["unfinished_at_end"] >= 90
    assert result["transactions"] <= 10


def test_an_arrival_that_fails_is_counted_as_one(pem):
    with serving(server_context(pem), answer=lambda head, body: response(b"", "503 Busy")) as server:
        result = load("-c", 20, "--rate", 40, "-n", 20, server.url, status=1)
    arrivals = result["open_loop"]
    assert arrivals["due"] == arrivals["failed"] == server.counts["requests"] == 20
    assert errors(result) == {"http_status": 20}


def test_random_arrivals_are_the_same_in_every_run(pem):
    with serving(server_context(pem)) as server:
        runs = [load("-c", 4, "-w", 2, "--rate", 100, "--arrivals", "poisson", "-d", "1s",
                     "--requests-per-connection", "inf", server.url)["open_loop"] for _ in range(2)]
    assert runs[0]["arrivals"] == "poisson"
    assert runs[0]["due"] == runs[1]["due"]
    assert 50 <= runs[0]["due"] <= 150  # five standard deviations


def test_an_interrupted_open_loop_tells_what_was_due_until_then(pem):
    with serving(server_context(pem)) as server:
        process = subprocess.Popen([program("loadgen"), "--json", "-", "-c", "2", "--rate", "100", "-d", "5m",
                                    server.url], stdout=subprocess.PIPE, text=True)
        wait_for(lambda: server.counts["requests"] > 20)
        process.terminate()
        result = json.loads(process.communicate(timeout=LIMIT_S)[0])
    assert process.returncode == 1 and result["interrupted"] is True
    agrees(result, server)
    accounts_for_all(result)
    assert 20 <= result["open_loop"]["due"] <= 100 * result["duration_s"] + 1


# ---- Connections that rest ----


def closes_after_the_first(connection) -> bool:
    connection.recv(65536)
    connection.sendall(response(b"x"))
    with contextlib.suppress(OSError):
        connection.unwrap().close()
    return True


def test_a_target_may_end_a_connection_that_rests(pem):
    with serving(server_context(pem)) as server:
        server.on_handshake = closes_after_the_first
        result = load("-c", 1, "--rate", 1, "-n", 3, "--requests-per-connection", "inf", server.url)
    assert result["open_loop"]["done"] == 3
    assert result["totals"]["connections_opened"] >= 3


def test_a_target_that_accepts_and_closes_is_an_error_and_not_hammered(pem):
    with serving(server_context(pem)) as server:
        server.on_handshake = lambda connection: True
        result = load("-c", 1, "--rate", 1, "-d", "1s", "--requests-per-connection", "inf", server.url, status=1)
    assert set(errors(result)) <= {"unexpected_eof", "reset"}
    assert 1 <= result["totals"]["connections_opened"] <= 12  # from 10 ms doubled to 1 s


# ---- Ramp ----


def test_the_ramp_spreads_the_beginnings_and_is_not_measured(pem):
    accepted: list[float] = []

    def note(connection) -> bool:
        accepted.append(time.time())
        return False
    with serving(server_context(pem)) as server:
        server.on_accept = note
        result = load("-c", 5, "--ramp", "1s", "--warmup", "200ms", "-d", "300ms", "--requests-per-connection", "inf",
                      server.url)
    agrees(result, server)
    assert result["connections_opened"] == 0 and result["totals"]["connections_opened"] == 5
    begun = result["started_unix_ns"] / 1e9 - 1.2
    for index, moment in enumerate(accepted):
        assert moment >= begun + index * 0.2 - 0.02  # it may be later, never earlier


def test_the_rate_rises_with_the_ramp(pem):
    with serving(server_context(pem)) as server:
        result = load("-c", 4, "--rate", 100, "--ramp", "1s", "-d", "1s", "--requests-per-connection", "inf",
                      server.url)
    agrees(result, server)
    accounts_for_all(result)
    assert result["open_loop"]["due"] == 100
    assert result["totals"]["transactions"] == 150  # the ramp has half of what the full rate would have


def test_the_series_names_the_ramp(pem, tmp_path):
    with serving(server_context(pem)) as server:
        load("-c", 1, "--ramp", "1s", "-d", "1s", "--series", tmp_path / "series", server.url)
    phases = [line.split(",")[1] for line in (tmp_path / "series").read_text().splitlines()[1:]]
    assert phases[:2] == ["ramp", "measured"]


def test_a_ramp_that_is_interrupted_ends(pem):
    with serving(server_context(pem)) as server:
        process = subprocess.Popen([program("loadgen"), "--json", "-", "-c", "100", "--ramp", "5m", server.url],
                                   stdout=subprocess.PIPE, text=True)
        wait_for(lambda: server.counts["requests"] > 0)
        process.terminate()
        result = json.loads(process.communicate(timeout=LIMIT_S)[0])
    agrees(result, server)


# ---- Burst ----


@pytest.mark.parametrize("workers", [1, 2])
def test_a_burst_is_at_the_target_all_at_once(pem, workers):
    everybody = threading.Barrier(30)

    def answer(head: bytes, body: bytes) -> bytes:
        everybody.wait(LIMIT_S)  # nobody is answered before all have asked
        return response()
    with serving(server_context(pem), answer=answer) as server:
        result = load("--burst", 30, "-w", workers, server.url)
    agrees(result, server)
    accounts_for_all(result)
    assert result["loop"] == "open"
    assert result["open_loop"] == {"arrivals": "burst", "due": 30, "done": 30, "failed": 0, "never_begun": 0,
                                   "unfinished_at_end": 0}
    assert result["transactions"] == result["connections_opened"] == result["connections"] == 30


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_warm_up_a_burst_is_of_requests_on_connections_that_rest(pem, workers):
    opened = []  # how many connections there are when a request comes

    def answer(head: bytes, body: bytes) -> bytes:
        opened.append(server.counts["connections"])
        return response()
    with serving(server_context(pem), answer=answer) as server:
        result = load("--burst", 30, "--warmup", "2s", "-w", workers, server.url)
    agrees(result, server)
    accounts_for_all(result)
    assert opened == [30] * 30, "the first request came after the last handshake"
    assert result["open_loop"] == {"arrivals": "burst", "due": 30, "done": 30, "failed": 0, "never_begun": 0,
                                   "unfinished_at_end": 0}
    assert (result["transactions"], result["connections_opened"]) == (30, 0)
    assert result["totals"]["connections_opened"] == server.counts["connections"] == 30


def test_a_burst_of_handshakes(pem):
    with serving(server_context(pem)) as server:
        result = load("--burst", 10, "--requests-per-connection", 0, server.url)
    agrees(result, server)
    accounts_for_all(result)
    assert result["handshakes_full"] == 10


def test_a_burst_tries_nothing_again(pem):
    with serving(server_context(pem), answer=lambda head, body: response(b"", "503 Busy")) as server:
        result = load("--burst", 10, server.url, status=1)
    assert errors(result) == {"http_status": 10}
    assert result["open_loop"]["failed"] == server.counts["connections"] == 10


# ---- Said, and refused ----


def test_people_are_told_which_loop_it_was(pem):
    say: Callable[..., str] = lambda *arguments: run("loadgen", "-n", "3", *arguments).stdout
    with serving(server_context(pem)) as server:
        assert "closed" in say(server.url)
        told = say("--rate", "50", server.url)
    assert "open, 50 a second, fixed arrivals" in told
    assert "3 due, 3 done, 0 failed, 0 never begun" in told


HTTPS = "https://127.0.0.1:1/"


@pytest.mark.parametrize("arguments, line", [
    (["--rate", "0"], "--rate: 0: must be a number above 0"),
    (["--rate", "-1"], "--rate: -1: must be a number above 0"),
    (["--rate", "0x10"], "--rate: 0x10: must be a number above 0"),
    (["--rate", "10/s"], "--rate: 10/s: must be a number above 0"),
    (["--rate", "inf"], "--rate: inf: must be a number above 0"),
    (["--arrivals", "fixed"], "--arrivals: fixed: is used with --rate only"),
    (["--rate", "1", "--arrivals", "often"], "--arrivals: often: must be one of fixed poisson"),
    (["--burst", "0"], "--burst: 0: must be at least 1"),
    (["--burst", "3", "-c", "3"], "--burst: cannot be combined with --connections"),
    (["--burst", "3", "-d", "1s"], "--burst: cannot be combined with --duration"),
    (["--burst", "3", "-n", "3"], "--burst: cannot be combined with --requests"),
    (["--burst", "3", "--warmup", "1s", "--requests-per-connection", "0"],
     "--warmup: there is nothing to open before a --burst of handshakes"),
    (["--burst", "3", "--ramp", "1s"], "--burst: cannot be combined with --ramp"),
    (["--burst", "3", "--rate", "1"], "--burst: cannot be combined with --rate"),
    (["--burst", "3", "--hold"], "--burst: cannot be combined with --hold"),
    (["--burst", "3", "--requests-per-connection", "2"], "--burst: 3: is one transaction a connection"),
    (["--burst", "3", "-w", "4"], "--connections: 3: fewer than the 4 workers"),
    (["--hold", "--rate", "1"], "--hold: cannot be combined with --rate"),
    (["--hold", "-n", "1"], "--hold: cannot be combined with --requests"),
    (["--hold", "--requests-per-connection", "1"], "--hold: cannot be combined with --requests-per-connection"),
    (["--hold-interval", "1s"], "--hold-interval: is used with --hold only"),
])
def test_loads_that_make_no_sense_are_refused(arguments, line):
    done = run("loadgen", *arguments, HTTPS)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"loadgen: {line}")
