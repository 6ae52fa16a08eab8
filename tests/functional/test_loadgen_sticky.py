"""Slots that stay with one of several URLs, and what becomes of them when that takes no connections any more."""
from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from counting_server import LIMIT_S, errors, load, reset, server_context, serving
from echo_backends import Backend
from programs import make_certificate, program, run

SLOTS = 8


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))[2]


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_sessions_resume_where_they_were_made(pem, version):
    """Each server has keys of its own for its tickets: what one gave is nothing to the other."""
    with serving(server_context(pem, version)) as one, serving(server_context(pem, version)) as other:
        options = ["--reuse", "always", "-c", 4, "-n", 40, "--tls-version", version]
        stays = load(*options, "--sticky", one.url, other.url)
        connections = Counter(one=one.counts["connections"], other=other.counts["connections"])
        turns = load(*options, one.url, other.url)
    assert stays["handshakes_full"] == 4 and stays["handshakes_resumed"] == 36
    assert connections.total() == 40 and min(connections.values()) >= 2
    assert turns["handshakes_resumed"] == 0


@pytest.mark.parametrize("engine", ["light", "openssl"])
def test_a_ticket_that_nobody_looked_at_is_offered_once_more(pem, engine):
    """Of TLS 1.3, so good for one use: a target that dies takes the connections along that it has not looked at yet."""
    with serving(server_context(pem, "TLSv1.3")) as server:
        def gone(connection: socket.socket) -> bool:
            if server.counts["connections"] not in (3, 5, 6):
                return False
            connection.recv(1)
            reset(connection)
            return True

        server.on_accept = gone
        options = ["--reuse", "always", "-c", 1, "-n", 10, "--tls-version", "TLSv1.3", "--engine", engine]
        result = load(*options, server.url, status=1)
    assert errors(result) == {"reset": 3}
    # The third resumes as the fourth; of the fifth and sixth the ticket has gone with the latter.
    assert (result["handshakes_full"], result["handshakes_resumed"]) == (2, 5)


@pytest.mark.parametrize("loop, workers", [([], 2), (["--rate", "400"], 1)], ids=["closed", "open"])
def test_who_is_lost_is_left_by_all_and_its_slots_are_spread(loop, workers):
    """One of three is killed. Each of its slots may lose the connection that it had, and find it gone once; whoever
    asked it in turn would find it gone some thousand times."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Backend("http", "-l", "127.0.0.1:0")) for _ in range(3)]
        command = [program("loadgen"), "--sticky", "-c", str(3 * SLOTS), "-w", str(workers), "-d", "1s",
                   "--json", "-", *loop, *(f"http://{server.address}/whoami" for server in servers)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while connections(servers[0]) < 10:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        servers[0].process.kill()
        before = [connections(server) for server in servers[1:]]
        result = json.loads(process.communicate(timeout=LIMIT_S)[0])
        after = [connections(server) for server in servers[1:]]
    lost = {name: count for name, count in result["totals"]["errors"].items() if count}
    assert process.returncode == 1 and lost["connect_refused"] >= 1
    assert sum(lost.values()) <= 2 * SLOTS, lost
    assert all(new - old > 10 for new, old in zip(after, before)), (before, after)


def connections(server: Backend) -> int:
    """So far, the one that asks included."""
    with server.connect() as client:
        client.sendall(b"GET /whoami HTTP/1.0\r\n\r\n")
        answer = b""
        while more := client.recv(65536):
            answer += more
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["connections"])


def test_with_one_url_there_is_nothing_to_stay_with():
    done = run("loadgen", "--sticky", "http://127.0.0.1:1/")
    assert (done.returncode, done.stderr) == (2, "loadgen: --sticky: is used with several URLs only\n")
