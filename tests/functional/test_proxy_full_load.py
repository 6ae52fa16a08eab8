"""Reloads and drains while as much comes in as there can, by every way in and out: nobody who was taken is lost."""
from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from programs import Running, make_certificate, program, running
from proxies import counters, eventually
from test_proxy_life import add_up, reload


@dataclass
class Way:
    """A proxy under test, what is behind it, and how loadgen reaches it."""
    server: Running
    target: list[str]
    log: Path

    @contextlib.contextmanager
    def load(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen([program("loadgen"), "--warmup", "0", "--json", "-", *options, *self.target],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


WAYS = ["TCP", "UNIX sockets", "--client", "--maxconn"]


@contextlib.contextmanager
def way_through(way: str, folder: Path) -> Iterator[Way]:
    certificate = str(make_certificate(folder)[2])
    front, log = "127.0.0.1:0", folder / "access.log"
    origin = ["http", "-l", "127.0.0.1:0"]
    options = ["-q", "-n", "2", "--stats", "127.0.0.1:0", "--access-log", str(log)]
    if way == "UNIX sockets":
        front, origin = str(folder / "front.sock"), ["sock", "-l", str(folder / "origin.sock")]
    elif way == "--client":
        origin = ["https", "-l", "127.0.0.1:0", "--cert", certificate]
    elif way == "--maxconn":
        options += ["--maxconn", "4"]
    options += ["--client"] if way == "--client" else [certificate]
    with running("echo-backend", *origin, "-q") as behind, \
            running("proxy", "-f", front, "-b", behind.address, *options) as server:
        target = [f"{'http' if way == '--client' else 'https'}://{server.address}/"]
        if way == "UNIX sockets":
            target = ["--unix", front, "https://localhost/"]
        yield Way(server, target, log)


def result_of(process: subprocess.Popen[str]) -> dict:
    out, errors = process.communicate(timeout=120)
    assert out, errors
    return json.loads(out)


@pytest.mark.parametrize("way", WAYS)
def test_reloads_fail_no_connection(way: str, tmp_path: Path) -> None:
    with way_through(way, tmp_path) as through, \
            through.load("-c", "40", "-d", "1700ms", "--requests-per-connection", "1") as short, \
            through.load("-c", "10", "-d", "1700ms", "--requests-per-connection", "50") as long:
        for _ in range(3):
            time.sleep(0.4)
            reload(through.server)
        for load in (short, long):
            totals = result_of(load)["totals"]
            assert sum(totals["errors"].values()) == 0, totals["errors"]
            assert totals["transactions"] > 0
        eventually(lambda: counters(through.server)["processes"] == 2, "the old generations have ended")
        eventually(lambda: counters(through.server)["connections_open"] == 0, "all are closed")
        counted = counters(through.server)
        assert counted["reloads"] == 3 and add_up(counted)
        assert counted["closed"]["worker_died"] == 0
        assert (counted["queued"] > 0) == (way == "--maxconn")
        assert through.server.errors == []


@pytest.mark.parametrize("way", WAYS)
def test_a_drain_loses_nobody_who_was_taken(way: str, tmp_path: Path) -> None:
    """Who comes too late is refused: with a socket of TCP by the system, with a UNIX socket for want of its file."""
    with way_through(way, tmp_path) as through, \
            through.load("-c", "40", "-d", "20s", "--requests-per-connection", "1") as load:
        eventually(lambda: counters(through.server)["connections_accepted"] > 500, "full load")
        through.server.process.send_signal(signal.SIGTERM)
        assert through.server.process.wait(60) == 0
        load.send_signal(signal.SIGINT)
        errors = {name for name, count in result_of(load)["totals"]["errors"].items() if count}
        assert errors <= {"connect_refused"}, errors
    closed = [line.split(" close=")[1].split()[0] for line in through.log.read_text().splitlines()]
    assert set(closed) == {"done"} and len(closed) > 500
