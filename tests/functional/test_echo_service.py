"""The service model: how long a request takes, given how many the whole server has at a time."""
import contextlib
import json
import os
import re
import signal
import time

import programs
import pytest
from echo_backends import Backend, LONG_S, ask, response_of, wait_until


def service(client):
    return json.loads(ask(client, "/whoami")[1])["service"]


def burst(backend, count):
    """So many requests at once, however slow this process is, each on a connection of its own. All are answered; when,
    in seconds, the first of them and the last."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(backend.connect()) for _ in range(count)]
        for pid in backend.workers():
            os.kill(pid, signal.SIGSTOP)
        for client in clients:
            client.sendall(b"GET /?s=1 HTTP/1.1\r\n\r\n")
        for pid in backend.workers():
            os.kill(pid, signal.SIGCONT)
        start, ends = time.monotonic(), []
        for client in clients:
            assert response_of(client)[1] == b"0"
            ends.append(time.monotonic() - start)
        return ends[0], ends[-1]


def test_a_fixed_time_is_never_shorter_and_does_not_hold_up_others():
    with Backend("http", "--service-model", "fixed:150ms") as backend, backend.connect() as client:
        for method, headers, body in ("GET", "", b""), ("POST", "Content-Length: 1\r\n", b"0"):
            start = time.monotonic()
            assert ask(client, "/?s=1", method=method, headers=headers, body=body)[1] == b"0"
            assert time.monotonic() - start > 0.149
        burst(backend, 20)
        told = service(client)
        assert told["model"] == "fixed:150ms" and told["served"] == 22 and told["in_flight"] == 0
        assert told["most_in_flight"] == 20, "one waited for the other"
        assert 150 <= told["mean_ms"] <= told["longest_ms"]
        assert told["total_ms"] == pytest.approx(22 * told["mean_ms"])


def test_the_delay_of_a_request_comes_after_its_service():
    with Backend("http", "--service-model", "fixed:50ms") as backend, backend.connect() as client:
        start = time.monotonic()
        assert ask(client, "/?s=1&t=100")[1] == b"0"
        assert time.monotonic() - start > 0.149
        assert service(client)["served"] == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_requests_slow_each_other_down_whichever_worker_has_them(workers):
    # Alone 20 ms; 40 take 1600 ms each. Had each counted what was there when it came: 550 ms on average.
    with Backend("http", "-n", workers, "--service-model", "quadratic:20ms,1") as backend, backend.connect() as client:
        for _ in range(5):
            assert ask(client, "/?s=1")[1] == b"0"
        alone = service(client)
        assert (alone["served"], alone["most_in_flight"]) == (5, 1)
        assert alone["mean_ms"] >= 20
        burst(backend, 40)
        both = service(client)
        assert (both["served"], both["in_flight"], both["most_in_flight"]) == (45, 0, 40)
        assert (both["total_ms"] - alone["total_ms"]) / 40 > 1000
        assert ask(client, "/?s=1")[1] == b"0"
        assert service(client)["total_ms"] - both["total_ms"] < 1000, "alone again, it is fast again"


def test_the_first_of_a_burst_waits_for_those_that_came_after_it():
    with Backend("http", "--service-model", "quadratic:100ms,1") as backend:
        first_s, last_s = burst(backend, 30)  # 100 ms alone, 900 ms with 29 others
        assert first_s > 0.5 and last_s > 0.5


def test_who_asks_about_the_server_is_no_load():
    with Backend("http", "--service-model", "fixed:10m") as backend, backend.connect() as client:
        assert service(client)["served"] == 0
        assert ask(client, "/?h")[0].status == 200
        assert ask(client, "/?r=1")[0].status == 400
        with backend.connect() as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\n\r\n")
            wait_until(lambda: service(client)["in_flight"] == 1)


def test_a_client_that_goes_does_not_take_its_request_with_it():
    with Backend("http", "--service-model", "fixed:400ms") as backend, backend.connect() as client:
        with backend.connect() as going:
            going.sendall(b"GET / HTTP/1.1\r\n\r\n")
            wait_until(lambda: service(client)["in_flight"] == 1)
        told = service(client)
        assert told["in_flight"] + told["served"] == 1
        wait_until(lambda: service(client)["served"] == 1)
        assert service(client)["in_flight"] == 0


def test_pipelined_requests_are_served_one_after_the_other():
    with Backend("http", "--service-model", "fixed:30ms") as backend, backend.connect() as client:
        client.sendall(b"GET /?s=1 HTTP/1.1\r\n\r\n" * 5)
        for _ in range(5):
            assert response_of(client)[1] == b"0"
        told = service(client)
        assert (told["served"], told["most_in_flight"]) == (5, 1)


def test_what_a_killed_worker_had_in_flight_does_not_slow_down_the_others():
    with Backend("http", "-n", 2, "--service-model", "fixed:10m") as backend, contextlib.ExitStack() as stack:
        ways = {}
        while len(ways) < 2:  # a connection to each worker
            client = stack.enter_context(backend.connect())
            ways.setdefault(json.loads(ask(client, "/whoami")[1])["worker_pid"], client)
        loads = {pid: 0 for pid in ways}
        for _ in range(40):
            client = stack.enter_context(backend.connect())
            loads[json.loads(ask(client, "/whoami")[1])["worker_pid"]] += 1
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert all(loads.values())
        victim, survivor = loads
        wait_until(lambda: service(ways[survivor])["in_flight"] == 40)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: service(ways[survivor])["in_flight"] == loads[survivor])
        wait_until(lambda: len(backend.workers()) == 2)
        for _ in range(20):  # its successor counts from 0
            client = stack.enter_context(backend.connect())
            assert service(client)["in_flight"] == loads[survivor]


def test_without_a_model_there_is_nothing_to_tell(backend):
    with backend.connect() as client:
        assert "service" not in json.loads(ask(client, "/whoami")[1])
    with Backend("http", "--service-model", "none") as plain, plain.connect() as client:
        assert "service" not in json.loads(ask(client, "/whoami")[1])


@pytest.mark.parametrize("model", ["", "slow", "fixed", "fixed:", "fixed:0", "fixed:x", "fixed:11m", "quadratic:9ms",
                                   "quadratic:9ms,", "quadratic:9ms,0", "quadratic:9ms,1.5", "quadratic:,100",
                                   "quadratic:9ms,100,1", "fixed:" + "9" * 40, "Fixed:1s"])
def test_a_model_that_is_none_is_refused(model):
    result = programs.run("echo-backend", "http", "--service-model", model, timeout=LONG_S)
    assert result.returncode == 2 and result.stdout == ""
    assert re.fullmatch(f"echo-backend: --service-model: {re.escape(model)}: .+\n", result.stderr)


def burst_through_proxy(certificate, *options):
    """100 requests at once through the proxy: what the server took, and the longest that a client waited."""
    with Backend("http", "--service-model", "quadratic:1ms,4") as backend:
        with programs.running("proxy", "-f", "127.0.0.1:0", "-b", backend.address, *options, certificate) as proxy:
            result = programs.run("loadgen", "--burst", "100", "--warmup", "2s", "--timeout", "1m", "--json", "-",
                                  f"https://{proxy.address}/?s=100")
        assert result.returncode == 0, result.stderr
        with backend.connect() as client:
            told = service(client)
    assert told["served"] == 100
    longest_us = json.loads(result.stdout)["latency_us"]["transaction"]["max"]
    assert longest_us > 1000 * told["longest_ms"]
    return told, longest_us / 1000


def test_a_limit_in_the_proxy_makes_a_burst_faster_for_everybody(ecdsa):
    # The arithmetic: 100 together take 2500 ms each; 10 at a time 25 ms each, and the last is done after 250 ms.
    free, longest_free_ms = burst_through_proxy(ecdsa)
    limited, longest_limited_ms = burst_through_proxy(ecdsa, "--maxconn", "10")
    assert free["most_in_flight"] > 90 and limited["most_in_flight"] == 10
    assert limited["mean_ms"] < free["mean_ms"] / 8
    assert longest_limited_ms < longest_free_ms / 2
