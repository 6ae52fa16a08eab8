"""The proxy's life under load: reloads, drains and deaths, none of which may cost a connection that is not its own."""
from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import Running, children, is_alive, make_certificate, program, running
from proxies import backend, client_context, connected, counters, echo, eventually, proxy
from test_proxy_faults import hello


class Load:
    """build/loadgen against a proxy, in the background. `result` is its JSON once it has ended."""

    def __init__(self, server: Running, *options: str) -> None:
        self.process = subprocess.Popen(
            [program("loadgen"), "--warmup", "0", "--json", "-", *options, f"https://{server.address}/"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.result: dict = {}

    def wait(self) -> dict:
        out, errors = self.process.communicate(timeout=120)
        assert out, errors
        self.result = json.loads(out)
        return self.result


@contextlib.contextmanager
def loaded(server: Running, *options: str) -> Iterator[Load]:
    load = Load(server, *options)
    try:
        yield load
    finally:
        load.process.kill()
        load.process.communicate()


def add_up(counted: dict) -> bool:
    return (counted["connections_accepted"] == counted["connections_open"] + sum(counted["closed"].values())
            and counted["handshakes_failed"] == sum(counted["handshakes_failed_by"].values()))


def served_name(server: Running) -> str:
    """The name in the certificate that a new client is shown."""
    context = client_context()
    with connected(server, context) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der
    shown = subprocess.run(["openssl", "x509", "-noout", "-subject", "-nameopt", "multiline"],
                           input=ssl.DER_cert_to_PEM_cert(der), capture_output=True, text=True, check=True)
    return shown.stdout.split("=")[-1].strip()


@contextlib.contextmanager
def configured(folder: Path, to: str, *lines: str) -> Iterator[tuple[Running, Path, Path]]:
    """A proxy with a configuration file and a certificate of its own, which tests may change: (it, file, PEM)."""
    pem, config = folder / "served.pem", folder / "proxy.conf"
    pem.write_text(make_certificate(folder, name="old")[2].read_text())
    config.write_text("\n".join(["frontend = 127.0.0.1:0", "stats = 127.0.0.1:0", f"backend = {to}",
                                 f"pem-file = {pem}", *lines, ""]))
    with running("proxy", "--config", str(config)) as server:
        yield server, config, pem


def reload(server: Running, done: str = "reloads") -> None:
    """Reloads, and waits until it is done or refused; done "generation": until the new workers are there, while
    those of before may not have stepped back."""
    before = counters(server)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: sum(counters(server)[key] - before[key] for key in (done, "reloads_refused")) == 1,
               "the master has reloaded")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_reloads_under_full_load_fail_no_connection(workers: str, tmp_path: Path) -> None:
    renewed = make_certificate(tmp_path, name="new")[2].read_text()
    with running("echo-backend", "http", "-l", "127.0.0.1:0") as origin, \
            configured(tmp_path, origin.address, f"workers = {workers}", "quiet = on") as (server, _, pem), \
            loaded(server, "-c", "50", "-d", "4s", "--requests-per-connection", "1") as short, \
            loaded(server, "-c", "10", "-d", "4s", "--requests-per-connection", "50") as long:
        for _ in range(6):
            time.sleep(0.4)
            reload(server)
        pem.write_text(renewed)
        reload(server)
        assert served_name(server) == "new"
        for load in (short, long):
            result = load.wait()
            assert sum(result["totals"]["errors"].values()) == 0, result["totals"]["errors"]
            assert result["transactions"] > 0
        eventually(lambda: counters(server)["processes"] == int(workers), "the old generations have ended")
        counted = counters(server)
        assert (counted["reloads"], counted["generation"], counted["connections_open"]) == (7, 8, 0)
        assert counted["closed"]["worker_died"] == 0 and add_up(counted)
        opened = sum(load.result["totals"]["connections_opened"] for load in (short, long))
        assert counted["connections_accepted"] == opened + 1  # the one that looked at the certificate
        assert server.errors == []


def test_a_queue_that_waits_during_a_reload_is_served(tmp_path: Path) -> None:
    """The workers are stopped, clients queue, the configuration is reloaded: nobody is turned away."""
    with backend(echo) as to, configured(tmp_path, to) as (server, _, _):
        worker = server.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        try:
            with contextlib.ExitStack() as stack:
                plain = [stack.enter_context(socket.create_connection(server.host_port, timeout=60)) for _ in range(50)]
                reload(server, "generation")
                for one in plain:
                    with client_context().wrap_socket(one) as tls:
                        tls.sendall(b"x")
                        assert tls.recv(1) == b"x"
            # Who is told of a reload may connect at once, and is not to meet a worker of before: it is not told yet.
            assert counters(server)["reloads"] == 0 and "reloaded: earlier connections may end" not in server.errors
        finally:
            os.kill(worker, signal.SIGCONT)
        eventually(lambda: not is_alive(worker), "the old worker ends")
        eventually(lambda: counters(server)["reloads"] == 1, "it is told")


def test_connections_outlive_reloads_and_their_counters_stay(tmp_path: Path) -> None:
    with backend(echo) as to, configured(tmp_path, to, "quiet = yes") as (server, _, _):
        with contextlib.ExitStack() as stack:
            old = []
            for generation in range(8):
                old.append(stack.enter_context(connected(server)))
                old[-1].sendall(b"x")
                assert old[-1].recv(1) == b"x"
                if generation < 7:
                    reload(server)
            counted = counters(server)
            assert (counted["connections_open"], counted["processes"]) == (8, 8)
            # As many generations as there is room for: one more is refused, and all go on.
            reload(server)
            assert counters(server)["reloads_refused"] == 1
            assert server.errors == ["proxy: reload: 7 processes of earlier generations still drain: "
                                     "the old configuration stays"]
            for tls in old:
                tls.sendall(b"y")
                assert tls.recv(1) == b"y"
        eventually(lambda: counters(server)["processes"] == 1, "the old generations have ended")
        counted = counters(server)
        assert counted["handshakes_full"] + counted["handshakes_resumed"] == 8
        assert (counted["bytes_from_client"], counted["bytes_to_client"]) == (16, 16)
        assert counted["connections_open"] == 0 and add_up(counted)
        reload(server)
        assert counters(server)["reloads"] == 8


def mismatch(folder: Path) -> str:
    return make_certificate(folder, name="one")[1].read_text() + make_certificate(folder, name="two")[0].read_text()


@pytest.mark.parametrize("fault", ["certificate", "no certificate", "config", "value", "workers", "access log",
                                   "cipher"])
def test_a_reload_that_is_refused_changes_nothing_and_says_why(fault: str, tmp_path: Path) -> None:
    with backend(echo) as to, configured(tmp_path, to) as (server, config, pem):
        good = config.read_text()
        # Something that would change, if the reload were half done.
        half = good + "idle-timeout = 1ms\n"
        if fault == "certificate":
            pem.write_text(mismatch(tmp_path))
        elif fault == "no certificate":
            pem.unlink()
        config.write_text({
            "config": half + "nonsense\n", "value": half + "workers = none\n",
            "workers": half + "workers = 2\n",
            "access log": half + "access-log = /no/such/folder/log\n", "cipher": half + "ciphers = NOTHING\n",
        }.get(fault, half))
        expected = {
            "certificate": f"{pem}: the private key does not match", "no certificate": f"{pem}: cannot be read",
            "config": f"{config}:6: not NAME = VALUE", "value": f"{config}:6: workers: none: not a whole number",
            "workers": "--workers: cannot be changed while the proxy runs",
            "access log": "--access-log: /no/such/folder/log: No such file", "cipher": "--ciphers: NOTHING: ",
        }[fault]
        workers = server.workers()
        with connected(server) as before:
            reload(server)
            assert counters(server)["reloads_refused"] == 1
            eventually(lambda: len(server.errors) == 1, "one line")
            assert server.errors[0].startswith(f"proxy: reload: {expected}")
            assert server.errors[0].endswith(": the old configuration stays")
            assert server.workers() == workers
            for tls in (before, None):
                with contextlib.nullcontext(tls) if tls else connected(server) as one:
                    one.sendall(b"still here")
                    assert one.recv(10) == b"still here"
        # A worker that is replaced now has the old configuration too; and a good one is taken again.
        os.kill(workers[0], signal.SIGKILL)
        eventually(lambda: server.workers() not in ([], workers), "the worker is replaced")
        assert served_name(server) == "old"
        config.write_text(good)
        pem.write_text(make_certificate(tmp_path, name="new")[2].read_text())
        reload(server)
        assert served_name(server) == "new"


def test_what_a_reload_changes_is_in_force(tmp_path: Path) -> None:
    def answer(text: bytes):  # type: ignore[no-untyped-def]
        return lambda connection: connection.sendall(text) if connection.recv(1) else None

    with backend(answer(b"one")) as one, backend(answer(b"two")) as two, \
            configured(tmp_path, one) as (server, config, _):
        with connected(server) as early:
            config.write_text(config.read_text().replace(one, two) + "tls-max = TLSv1.2\n")
            reload(server)
            for tls, expected, version in ((early, b"one", "TLSv1.3"), (None, b"two", "TLSv1.2")):
                with contextlib.nullcontext(tls) if tls else connected(server) as client:
                    client.sendall(b"x")
                    assert client.recv(3) == expected
                    assert client.version() == version


def test_places_at_the_backend_are_shared_by_the_generations(tmp_path: Path) -> None:
    """Old workers hold places and give them back when they end, however they do."""
    with backend(echo) as to, configured(tmp_path, to, "maxconn = 2", "quiet = yes") as (server, _, _):
        with connected(server) as one, connected(server) as two:
            for tls in (one, two):
                tls.sendall(b"x")
                assert tls.recv(1) == b"x"
            old = server.workers()
            reload(server)
            with connected(server) as waiting:
                waiting.sendall(b"y")
                eventually(lambda: counters(server)["queued"] == 1, "the third has to wait")
                one.close()
                assert waiting.recv(1) == b"y"
                os.kill(old[0], signal.SIGKILL)  # with the place of the second
                with connected(server) as last:
                    last.sendall(b"z")
                    assert last.recv(1) == b"z"


def test_a_drain_under_full_load_loses_no_connection_that_was_accepted(ecdsa: str, tmp_path: Path) -> None:
    """Clients that came too late are refused; whoever was taken is served to the end."""
    with running("echo-backend", "http", "-l", "127.0.0.1:0") as origin, \
            proxy(origin.address, ecdsa, "-n", "2", "--access-log", str(tmp_path / "log")) as server:
        options = ("-c", "40", "-d", "20s", "--requests-per-connection", "1")
        with loaded(server, *options) as load:
            eventually(lambda: counters(server)["handshakes_full"] > 1000, "full load")
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGTERM)  # said twice, it means the same
            assert server.process.wait(60) == 0
            load.process.send_signal(signal.SIGINT)
            errors = load.wait()["errors"]
    assert {name for name, count in errors.items() if count} <= {"connect_refused"}, errors
    closed = [line.split(" close=")[1].split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert set(closed) == {"done"} and len(closed) > 1000


def test_a_drain_ends_though_more_clients_come_than_can_be_taken(tmp_path: Path) -> None:
    """Those who are connected are served meanwhile, and then the door is closed. Such a key takes milliseconds."""
    greeting, enough = hello(), threading.Event()

    def come(address: tuple[str, int]) -> None:
        while not enough.is_set():
            with contextlib.suppress(OSError), socket.create_connection(address, timeout=60) as plain:
                plain.sendall(greeting)

    with backend(echo) as to, proxy(to, str(make_certificate(tmp_path, "rsa:4096")[2]), "-B", "100", "-q") as server:
        crowd = [threading.Thread(target=come, args=(server.host_port,)) for _ in range(4)]
        with connected(server) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            for one in crowd:
                one.start()
            try:
                eventually(lambda: counters(server)["connections_accepted"] > 200, "a crowd")
                server.process.send_signal(signal.SIGTERM)
                tls.sendall(b"y")
                assert tls.recv(1) == b"y"
                tls.close()
                assert server.process.wait(60) == 0
            finally:
                enough.set()
                for one in crowd:
                    one.join()


def test_whoever_has_not_drained_in_time_is_ended_and_counted(tmp_path: Path) -> None:
    with backend(echo) as to, configured(tmp_path, to, "drain-timeout = 300ms", "quiet = yes") as (server, _, _):
        with connected(server) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            reload(server)
            with contextlib.suppress(OSError):
                assert tls.recv(1) == b""
            eventually(lambda: counters(server)["closed"]["worker_died"] == 1, "its end is counted")
        counted = counters(server)
        assert (counted["connections_open"], counted["processes"]) == (0, 1)
        assert server.errors[0] == "proxy: worker 0: has not drained in time: killed"
        with connected(server):
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) == 0


def test_a_worker_killed_under_load_costs_its_own_connections_only(ecdsa: str) -> None:
    with running("echo-backend", "http", "-l", "127.0.0.1:0") as origin, \
            proxy(origin.address, ecdsa, "-n", "2") as server:
        with loaded(server, "-c", "50", "-d", "4s", "--requests-per-connection", "2", "--reuse", "every:10",
                    "--resume-with", "id", "--tls-version", "TLSv1.2") as load:
            kills = 5
            for _ in range(kills):
                time.sleep(0.5)
                before = server.workers()
                os.kill(before[0], signal.SIGKILL)
                eventually(lambda: len(server.workers()) == 2 and before[0] not in server.workers(), "it is replaced")
            result = load.wait()
        eventually(lambda: counters(server)["connections_open"] == 0, "all connections have ended")
        counted = counters(server)
        # What it held is lost, and the one that it may just have accepted but not counted; what waited in its queue is
        # not, nor anything of the other's.
        died = counted["closed"]["worker_died"]
        assert sum(result["totals"]["errors"].values()) <= died + kills and died <= kills * 50
        assert add_up(counted)
        assert result["transactions"] > 1000
        assert counted["session_hits"] > 0
        # The cache that the dead shared is not locked for ever.
        context = client_context(ssl.TLSVersion.TLSv1_2)
        context.options |= ssl.OP_NO_TICKET
        session = None
        for expected in (False, True):
            with connected(server, context, session) as tls:
                assert tls.session_reused == expected
                tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert tls.recv(100)  # by now the session is in the cache
                session = tls.session
        assert len(server.workers()) == 2


def test_statistics_survive_the_end_of_the_process_that_shows_them(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as server:
        with connected(server) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
        shows, = set(children(server.process.pid)) - set(server.workers())
        os.kill(shows, signal.SIGKILL)
        counted = counters(server)
        assert counted["handshakes_full"] == 1


def test_nothing_is_left_when_the_master_is_killed_while_generations_drain(tmp_path: Path) -> None:
    with backend(echo) as to, configured(tmp_path, to) as (server, _, _):
        with connected(server) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            reload(server)
            left = children(server.process.pid)
            assert len(left) == 3  # an old worker, a new one, and who shows the statistics
            server.process.kill()
            eventually(lambda: not any(is_alive(pid) for pid in left), "all of them end")


def test_counters_never_go_backwards_while_processes_come_and_go(tmp_path: Path) -> None:
    seen: list[dict] = []
    stop = threading.Event()

    def watch(server: Running) -> None:
        while not stop.is_set():
            seen.append(counters(server))

    with running("echo-backend", "http", "-l", "127.0.0.1:0") as origin, \
            configured(tmp_path, origin.address, "workers = 2", "quiet = yes") as (server, _, _), \
            loaded(server, "-c", "20", "-d", "3s", "--requests-per-connection", "1") as load:
        watcher = threading.Thread(target=watch, args=(server,))
        watcher.start()
        try:
            for _ in range(10):
                time.sleep(0.2)
                reload(server)
            load.wait()
        finally:
            stop.set()
            watcher.join()
    for before, after in zip(seen, seen[1:]):
        for name, value in before.items():
            if isinstance(value, int) and name not in ("connections_open", "processes"):
                assert after[name] >= value, name
        assert after["connections_open"] >= 0
