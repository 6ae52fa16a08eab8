"""Contenders that take turns: who runs when, what is counted as whose, and that nobody is left behind."""
from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tlsdyno_suite import sessions
from tlsdyno_suite.processes import Failed, Program, crew, start
from tlsdyno_suite.turns import Contender, Ring

from programs import ROOT

# Each connection costs the server a millisecond, and is written down under the name that it says.
SERVER = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
print("listening", listener.getsockname()[1], flush=True)
log = open(sys.argv[1], "a")
while True:
    connection, _ = listener.accept()
    name = connection.recv(100)
    until = time.process_time() + 0.001
    while time.process_time() < until:
        pass
    log.write(name.decode() + "\\n")
    log.flush()
    connection.sendall(b".")
    connection.close()
"""
# Its first connections go by another name.
CLIENT = """
import socket, sys
port, name, limit, first = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
while limit:
    limit -= 1
    first -= 1
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"first" if first >= 0 else name.encode())
        connection.recv(1)
"""
# What is killed in the middle of a round.
KILLED = """
import os, pathlib, sys
sys.path.insert(0, {scripts!r})
from tlsdyno_suite.processes import crew
sys.path.insert(0, {tests!r})
from test_suite_turns import contender, serve
directory = pathlib.Path({directory!r})
with crew() as programs:
    ring, count, port = serve(directory, programs)
    for spent in ring.rounds([contender("one", port), contender("two", port)], count, 1):
        os.kill(os.getpid(), 9)
"""


def serve(directory: Path, programs: list[Program], turn_s: float = 0.4):
    log = directory / "served"
    log.touch()
    server = start("subject", [sys.executable, "-c", SERVER, str(log)], (0,), directory / "server.log")
    programs.append(server)
    deadline = time.monotonic() + 20
    while "listening" not in (said := (directory / "server.log").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return (Ring(server, (0,), turn_s, directory), lambda: (len(log.read_text().split()), 0), int(said.split()[1]))


def contender(name: str, port: int, limit: int = -1, first: int = 0) -> Contender:
    return Contender(name, [sys.executable, "-c", CLIENT, str(port), name, str(limit), str(first)])


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    with crew() as started:
        yield started


def state(pid: int) -> str:
    stat = (sessions.PROC / str(pid) / "stat").read_text()
    return stat[stat.rindex(")") + 2]


def clients(directory: Path) -> list[int]:
    """Those of this test: its port is in their command line."""
    port = (directory / "server.log").read_text().split()[1]
    found = []
    for entry in sessions.PROC.iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                if words[0] == sys.executable and port in words and state(int(entry.name)) not in "ZX":
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_one_runs_at_a_time_and_what_happens_then_is_its_own(tmp_path, programs):
    ring, count, port = serve(tmp_path, programs)
    log = tmp_path / "served"
    before: list[str] = []
    for spent in ring.rounds([contender("one", port), contender("two", port)], count, 2):
        running = clients(tmp_path)
        assert len(running) == 2 and {state(pid) for pid in running} == {"T"}
        served = log.read_text().split()
        # one, two, two, one; on a busy machine a connection may be served after the turn in which it was begun.
        mine = served[len(before):]
        assert sum(a != b for a, b in zip(mine, mine[1:])) <= 12
        for name in ("one", "two"):
            assert spent[name].ops > 0 and spent[name].client_s > 0 and spent[name].server_s > 0
        ops = sum(cost.ops for cost in spent.values())
        assert sum(cost.server_s for cost in spent.values()) > 0.0009 * (ops - 8)
        before = served
    assert not clients(tmp_path)


def test_what_only_its_first_connections_are_is_in_no_round(tmp_path, programs):
    ring, _, port = serve(tmp_path, programs, turn_s=1)
    log = tmp_path / "served"

    def count() -> tuple[int, int]:
        served = log.read_text().split()
        return len(served), served.count("first")

    (spent,) = ring.rounds([contender("one", port, first=80)], count, 1)
    assert spent["one"].ops > 0 and spent["one"].resumed == 0
    assert log.read_text().split().count("first") == 80


def test_a_life_is_paid_with_its_beginning_and_its_end(tmp_path, programs):
    ring, _, port = serve(tmp_path, programs)
    spent = ring.life([contender("one", port), contender("two", port)], 1)
    for name in ("one", "two"):
        assert spent[name].client_s > 0.005  # an interpreter starts in no less
        assert spent[name].server_s > 0
    assert not clients(tmp_path)


def test_one_that_does_not_last_is_no_figure(tmp_path, programs):
    ring, count, port = serve(tmp_path, programs)
    with pytest.raises(Failed, match="two did not"):
        list(ring.rounds([contender("one", port), contender("two", port, limit=40)], count, 50))
    assert not clients(tmp_path)


def test_stopped_contenders_do_not_outlive_a_suite_that_is_killed(tmp_path):
    script = KILLED.format(scripts=str(ROOT / "scripts"), tests=str(ROOT / "tests" / "functional"),
                           directory=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    deadline = time.monotonic() + 20
    while clients(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
