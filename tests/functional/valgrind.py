#!/usr/bin/python3
"""The proxy under valgrind's memcheck, with connections of every kind through it: no byte is definitely lost, none is
read or written where there is none, and nothing is decided by memory that was never set. (loadgen under it:
test_hostile_servers.py.)

    valgrind.py [CONNECTIONS]      (default 10000)

OpenSSL's memory is malloc's then (TLSDYNO_PLAIN_MALLOC). A process runs some thirty times as long as without valgrind.
"""
from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from authority import Authority
from programs import Running, program, running
from proxies import backend, client_context, counters, echo, eventually, read_exactly
from soak import Hooligans

PATIENCE = ("--handshake-timeout", "5m", "--connect-timeout", "5m", "--idle-timeout", "5m")


def within(logs: Path) -> list[str]:
    return ["env", "TLSDYNO_PLAIN_MALLOC=1", "valgrind", "--leak-check=full", "--show-leak-kinds=definite",
            "--errors-for-leak-kinds=definite", "--num-callers=30", f"--log-file={logs}/%p.log"]


def load(server: Running, scheme: str, connections: int, *options: str) -> None:
    """So many connections that behave, all of which are to be served."""
    done = subprocess.run(
        [program("loadgen"), "--json", "-", "--timeout", "5m", "-c", "8", "-n", str(connections), *options,
         f"{scheme}://{server.address}/?s=20k"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    errors = {name: count for name, count in json.loads(done.stdout)["totals"]["errors"].items() if count}
    assert not errors, errors


def misbehave(server: Running, connections: int) -> None:
    """Hang-ups, resets, garbage, and answers that nobody waits for."""
    hooligans = Hooligans(server, 4)
    while sum(hooligans.visits) < connections:
        time.sleep(0.1)
    hooligans.stop()


def show_certificates(server: Running, authority: Authority, connections: int) -> None:
    good = client_context()
    good.load_cert_chain(authority.issue("a client"))
    expired = client_context()
    expired.load_cert_chain(authority.issue("an expired client", days=(-10, -1)))
    for number in range(connections):
        context = expired if number % 5 == 4 else good
        with contextlib.suppress(ssl.SSLError), socket.create_connection(server.host_port, timeout=300) as plain:
            with context.wrap_socket(plain, server_hostname=random.choice(["one.example", "two.example"])) as tls:
                tls.sendall(b"x")
                tls.recv(1)


def reload(server: Running, workers: int) -> None:
    before = counters(server)["reloads"]
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: counters(server)["reloads"] == before + 1, "it reloads")
    eventually(lambda: counters(server)["processes"] == workers, "the old workers end")


@contextlib.contextmanager
def ended_well(server: Running) -> Iterator[None]:
    yield
    eventually(lambda: counters(server)["connections_open"] == 0, "all are closed")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(300) == 0


def judge(logs: Path, processes: int) -> None:
    """So many processes ended well. Each has a log of its own; that of who shows the proxy's statistics breaks off, as
    it is killed at the end."""
    complaints = re.compile(r"Invalid |uninitialised|definitely lost in|Mismatched|Process terminating")
    whole = 0
    for log in sorted(logs.iterdir()):
        text = log.read_text()
        assert not complaints.search(text), text
        whole += "ERROR SUMMARY: 0 errors" in text
    assert whole == processes, f"{whole} of {len(list(logs.iterdir()))} processes were judged"


def serve_tls(folder: Path, logs: Path, connections: int) -> int:
    authority = Authority(folder / "authority")
    one = authority.issue("one.example", "one.example")
    two = authority.issue("two.example", "two.example", key="rsa:2048")
    with running("echo-backend", "http", "-l", "127.0.0.1:0") as origin, \
            running("proxy", "-q", "-f", "127.0.0.1:0", "-b", origin.address, "-n", "2", "--stats", "127.0.0.1:0",
                    "--maxconn", "6", "--queue-timeout", "5m", "--alpn", "http/1.1", "--ocsp",
                    str(authority.staple(one)), "-C", "50", "--access-log", str(folder / "log"), *PATIENCE, str(one),
                    str(two), within=within(logs)) as server, ended_well(server):
        alpn = ("--alpn", "http/1.1")
        load(server, "https", connections // 5, *alpn)
        load(server, "https", connections // 5, *alpn, "--tls-version", "TLSv1.2", "--reuse", "every:10",
             "--resume-with", "id")
        reload(server, 2)
        load(server, "https", connections // 5, *alpn, "--reuse", "every:10")
        load(server, "https", connections // 10, *alpn, "--tls-version", "TLSv1.2", "--reuse", "every:10",
             "--resume-with", "ticket", "--engine", "openssl")
        reload(server, 2)
        misbehave(server, connections // 5)
        return counters(server)["connections_accepted"]


def tell_of_clients(folder: Path, logs: Path, connections: int) -> int:
    """Certificates of clients, and the header that tells a backend of them."""
    authority = Authority(folder / "of-clients")

    def answer(connection: socket.socket) -> None:
        header = read_exactly(connection, 16)
        read_exactly(connection, int.from_bytes(header[14:], "big"))
        echo(connection)

    with backend(answer) as to, \
            running("proxy", "-q", "-f", "127.0.0.1:0", "-b", to, "--stats", "127.0.0.1:0", "--write-proxy=v2",
                    "--client-ca", str(authority.certificate), "--client-verify", "optional", *PATIENCE,
                    str(authority.issue("one.example", "one.example")), within=within(logs)) as server, \
            ended_well(server):
        show_certificates(server, authority, connections)
        return counters(server)["connections_accepted"]


def be_client(folder: Path, logs: Path, connections: int) -> int:
    certificate = Authority(folder / "of-backend").issue("backend", "backend.example")
    with running("echo-backend", "https", "-l", "127.0.0.1:0", "--cert", str(certificate)) as origin, \
            running("proxy", "-q", "--client", "-f", "127.0.0.1:0", "-b", origin.address, "--stats", "127.0.0.1:0",
                    "--ca", str(folder / "of-backend" / "ca.crt"), "--verify-name", "backend.example", *PATIENCE,
                    within=within(logs)) as server, ended_well(server):
        load(server, "http", connections // 10)
        reload(server, 1)
        load(server, "http", connections // 20, "--requests-per-connection", "5")
        return counters(server)["connections_accepted"]


def check(connections: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, logs = Path(name), Path(name) / "logs"
        logs.mkdir()
        accepted = (serve_tls(folder, logs, connections) + be_client(folder, logs, connections)
                    + tell_of_clients(folder, logs, max(connections // 50, 10)))
        print(f"valgrind: {accepted} connections", flush=True)
        # The master and the workers of each generation, of each of the three proxies.
        processes = (1 + 3 * 2) + (1 + 2) + (1 + 1)
        judge(logs, processes)
        print(f"valgrind: {processes} processes, no error and no definite leak", flush=True)


if __name__ == "__main__":
    check(int(sys.argv[1]) if len(sys.argv) > 1 else 10000)
