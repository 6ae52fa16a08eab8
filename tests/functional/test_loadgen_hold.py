"""Connections that are kept open and must be alive."""
from __future__ import annotations

import contextlib
import threading
from collections import Counter
from pathlib import Path

import pytest

from counting_server import agrees, errors, load, read_request, reset, response, server_context, serving
from programs import make_certificate, run


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_held_connections_stay_and_are_asked_in_turn(pem, workers):
    asked: Counter[int] = Counter()

    def answer(head: bytes, body: bytes) -> bytes:
        asked[threading.get_ident()] += 1  # the thread is the connection
        return response()
    with serving(server_context(pem), answer=answer) as server:
        result = load("-c", 20, "-w", workers, "--hold", "--hold-interval", "500ms", "-d", "1500ms", server.url)
    agrees(result, server)
    assert not errors(result)
    assert result["totals"]["connections_opened"] == 20
    assert result["hold"] == {"interval_s": 0.5, "open_at_end": 20}
    assert result["open_loop"]["due"] == result["open_loop"]["done"] == 60
    assert result["totals"]["transactions"] == 20 + 60  # each when it was opened, then three times each
    assert len(asked) == 20 and min(asked.values()) >= 3  # the first rounds begin while some are still being opened
    assert result["duration_s"] == pytest.approx(1.5, abs=1e-6)


@pytest.mark.parametrize("asked,told_us", [([], 2000), (["--coalesce", "50ms"], 50000), (["--coalesce", "0"], None)])
def test_what_held_connections_answer_is_handled_in_batches(pem, asked, told_us):
    with serving(server_context(pem)) as server:
        result = load("-c", 20, "--hold", "--hold-interval", "500ms", *asked, "-d", "1500ms", server.url)
    agrees(result, server)
    assert not errors(result)
    assert result.get("coalesce_us") == told_us
    assert result["open_loop"]["due"] == result["open_loop"]["done"] == 60
    # What happens so long after an event is never seen earlier, and so it is told.
    assert result["latency_us"]["transaction"]["min"] >= (told_us or 0)


def test_the_pace_is_told_and_slow_unless_asked_for(pem):
    with serving(server_context(pem)) as server:
        result = load("-c", 3, "--hold", "-d", "300ms", server.url)
        told = run("loadgen", "-c", "3", "--hold", "-d", "300ms", server.url).stdout
    assert result["hold"] == {"interval_s": 30, "open_at_end": 3}
    assert "one transaction a connection every 30 s; 3 open at the end" in told


class Loses:
    """Treats the first connection badly when it has answered its first request."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.lock = threading.Lock()
        self.done = False

    def __call__(self, connection) -> bool:
        with self.lock:
            first, self.done = not self.done, True
        if not first:
            return False
        assert read_request(connection, b"")
        if self.how == "says so":
            connection.sendall(response(b"", "200 OK", "Connection: close"))
        else:
            connection.sendall(response())
        if self.how == "reset":
            reset(connection)
        elif self.how == "silence":
            while connection.recv(4096):
                pass
        else:
            with contextlib.suppress(OSError):
                connection.unwrap().close()
        return True


@pytest.mark.parametrize("how, error", [("closed", "unexpected_eof"), ("reset", "reset"),
                                        ("says so", "unexpected_eof")])
def test_a_lost_one_is_an_error_and_opened_again(pem, how, error):
    with serving(server_context(pem)) as server:
        server.on_handshake = Loses(how)
        result = load("-c", 5, "--hold", "-d", "1s", server.url, status=1)
    assert errors(result) == {error: 1}
    assert result["totals"]["connections_opened"] == server.counts["connections"] == 6
    assert result["hold"]["open_at_end"] == 5


def test_one_that_is_silent_is_found_out_by_asking(pem):
    with serving(server_context(pem)) as server:
        server.on_handshake = Loses("silence")
        result = load("-c", 2, "--hold", "--hold-interval", "200ms", "--timeout", "2s", "-d", "4s", server.url,
                      status=1)
    assert errors(result)["io_timeout"] == result["open_loop"]["failed"] == 1
    assert result["hold"]["open_at_end"] == 2


def test_plain_connections_can_be_held_too():
    with serving(None) as server:
        result = load("-c", 4, "--hold", "--hold-interval", "200ms", "-d", "400ms",
                      f"http://127.0.0.1:{server.port}/")
    assert result["hold"]["open_at_end"] == 4
    assert result["totals"]["transactions"] == server.counts["requests"] == 4 + 8
