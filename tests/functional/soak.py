#!/usr/bin/python3
"""The proxy at full load for a long time, with clients that hang up in the middle, reloads, and workers that are
killed: memory stays flat, every connection is counted once, no descriptor and no process is left.

    soak.py [SECONDS]      (default 600)

Half of the time nothing but clients comes and goes: the memory of the workers is watched. In the other half the
configuration is reloaded every second or so and workers are killed: that of the master is. Loopback only.
"""
from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from programs import BUILD, Running, children, is_alive, make_certificate, program, running
from proxies import client_context, counters, descriptors, eventually, resident_kib

# What a process may grow by after its warm-up: the allocator's arenas and pools settle within it. In ten minutes a
# worker has a hundred thousand connections and more, so that a leak of ten bytes in each shows.
GROWTH_SHARE, GROWTH_KIB = 0.05, 1024
WARM_UP_SHARE = 0.3


class Hooligans:
    """Clients that go away whenever they like, without a word."""

    def __init__(self, server: Running, count: int) -> None:
        self.server = server
        self.context = client_context()
        self.visits = [0] * count
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(count)]
        for thread in self.threads:
            thread.start()

    def _visit(self, chance: random.Random) -> None:
        with socket.create_connection(self.server.host_port, timeout=10) as plain:
            if chance.random() < 0.5:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            way = chance.randrange(4)
            if way == 0:
                return
            if way == 1:
                plain.sendall(chance.choice([b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02", chance.randbytes(500)]))
                return
            with self.context.wrap_socket(plain) as tls:
                request = b"GET /?s=1m HTTP/1.1\r\nHost: x\r\n\r\n"
                tls.sendall(request if way == 3 else request[:chance.randrange(1, len(request))])
                if way == 3:
                    tls.recv(chance.randrange(1, 100_000))

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.stopped.is_set():
            with contextlib.suppress(OSError, ssl.SSLError):
                self._visit(chance)
            self.visits[seed] += 1

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        print(f"soak: {sum(self.visits)} visits ended without a word", flush=True)


@contextlib.contextmanager
def load(server: Running, seconds: float) -> Iterator[list[subprocess.Popen[str]]]:
    """Three kinds of clients that behave, and some that do not."""
    kinds = (["-c", "30", "--requests-per-connection", "1"],
             ["-c", "20", "--requests-per-connection", "3", "--reuse", "always", "--tls-version", "TLSv1.2"],
             ["-c", "10", "--requests-per-connection", "100"])
    hooligans = Hooligans(server, 4)
    loads: list[subprocess.Popen[str]] = []
    try:
        for number, kind in enumerate(kinds):
            target = f"https://{server.address}/" + ("?s=16k" if number == 2 else "")
            loads.append(subprocess.Popen(
                [program("loadgen"), "--warmup", "0", "-d", f"{seconds:.0f}s", "--json", "-", *kind, target],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True))
        yield loads
    finally:
        hooligans.stop()
        for one in loads:
            one.kill()
            one.communicate()


def errors_of(loads: list[subprocess.Popen[str]], seconds: float) -> int:
    """Waits for their end, which is due within the seconds."""
    return sum(sum(json.loads(one.communicate(timeout=seconds + 120)[0])["totals"]["errors"].values()) for one in loads)


def settle(server: Running, workers: int) -> dict:
    """Waits until nothing is open and nobody drains; the counters then."""
    eventually(lambda: counters(server)["connections_open"] == 0 and counters(server)["processes"] == workers,
               "all connections and old generations have ended")
    counted = counters(server)
    assert counted["connections_accepted"] == sum(counted["closed"].values()), counted
    assert counted["handshakes_failed"] == sum(counted["handshakes_failed_by"].values()), counted
    return counted


def check_growth(what: str, before_kib: int, after_kib: int) -> None:
    limit = before_kib * (1 + GROWTH_SHARE) + GROWTH_KIB
    print(f"soak: {what}: {before_kib} KiB after the warm-up, {after_kib} KiB at the end", flush=True)
    if BUILD.name != "san":  # AddressSanitizer keeps what is freed, and tells of leaks itself
        assert after_kib <= limit, f"{what} grew from {before_kib} to {after_kib} KiB: more than {limit:.0f}"


def soak_clients(server: Running, seconds: float) -> None:
    """Nothing but clients: the workers stay the same, and so does their memory."""
    workers = server.workers()
    time.sleep(0.5)  # by then they have what they need, and have closed what they inherited
    idle = [descriptors(pid) for pid in workers]
    with load(server, seconds) as loads:
        time.sleep(seconds * WARM_UP_SHARE)
        before = [resident_kib(pid) for pid in workers]
        errors = errors_of(loads, seconds)
    settle(server, len(workers))
    assert errors == 0, f"{errors} errors of clients that behaved"
    assert server.workers() == workers, "a worker died"
    for number, pid in enumerate(workers):
        check_growth(f"worker {number}", before[number], resident_kib(pid))
        eventually(lambda: descriptors(pid) == idle[number], f"worker {number} has only the descriptors it began with")


def soak_changes(server: Running, seconds: float, pem: Path, certificates: list[str]) -> None:
    """Reloads all the time, and a worker killed now and then."""
    master, workers = server.process.pid, len(server.workers())
    idle = descriptors(master)
    died = counters(server)["closed"]["worker_died"]
    before, reloads, kills = 0, 0, 0
    end = time.monotonic() + seconds
    with load(server, seconds) as loads:
        while time.monotonic() < end - 1:
            time.sleep(1)
            pem.write_text(certificates[reloads % len(certificates)])
            server.process.send_signal(signal.SIGHUP)
            reloads += 1
            if reloads % 5 == 2:
                with contextlib.suppress(IndexError, ProcessLookupError):
                    os.kill(server.workers()[-1], signal.SIGKILL)
                    kills += 1
            if before == 0 and time.monotonic() > end - seconds * (1 - WARM_UP_SHARE):
                before = resident_kib(master)
        errors = errors_of(loads, seconds)
    counted = settle(server, workers)
    died = counted["closed"]["worker_died"] - died
    print(f"soak: {counted['reloads']} reloads, {counted['reloads_refused']} refused, {kills} workers killed, which "
          f"cost {died} connections; {errors} errors", flush=True)
    assert errors <= died, "more was lost than what the killed workers held"
    assert counted["reloads"] + counted["reloads_refused"] > 0 and counted["reloads_refused"] == 0
    check_growth("the master", before, resident_kib(master))
    eventually(lambda: descriptors(master) == idle, "the master has only the descriptors it began with")


def soak(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificates = [make_certificate(folder, name=host)[2].read_text() for host in ("one", "two")]
        pem = folder / "served.pem"
        pem.write_text(certificates[0])
        with running("echo-backend", "http", "-l", "127.0.0.1:0") as origin, \
                running("proxy", "-q", "-f", "127.0.0.1:0", "-b", origin.address, "-n", "2", "--stats", "127.0.0.1:0",
                        "--access-log", str(folder / "access.log"), str(pem)) as server:
            soak_clients(server, seconds / 2)
            soak_changes(server, seconds / 2, pem, certificates)
            counted = counters(server)
            lines = counted["access_log_lines"] + counted["access_log_lost"]
            left = children(server.process.pid)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) == 0
            assert not any(is_alive(pid) for pid in left), "processes are left"
            assert set(server.errors) <= {"proxy: worker 0 killed by signal 9", "proxy: worker 1 killed by signal 9"}
            print(f"soak: {counted['connections_accepted']} connections, {counted['handshakes_failed']} failed "
                  f"handshakes, {lines} lines of log: all counted", flush=True)


if __name__ == "__main__":
    soak(float(sys.argv[1]) if len(sys.argv) > 1 else 600)
