"""The whole way with the real programs, and a real fault in the middle of it: the row says what went wrong, the run
goes on, and nothing is left behind."""
import csv
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import BUILD, name_of
from suite_fakes import SCENARIO, TLSDYNO, environment, sessions_below
from tlsdyno_suite import processes as running

PROGRAMS = ("proxy", "echo-backend", "loadgen", "tls-floor")


@pytest.fixture
def place() -> Iterator[Path]:
    """The real programs under a path of the test's own, so that it finds its own processes and no other test's; a short
    one, as those of sockets must be."""
    with tempfile.TemporaryDirectory(prefix="tlsdyno-test-") as name:
        path = Path(name)
        (path / "build").mkdir()
        for program in PROGRAMS:
            shutil.copy(BUILD / program, path / "build" / program)
        (path / "some.toml").write_text(SCENARIO.replace('"400ms"', '"2s"') + 'backend = "unix"\n')
        yield path


def start(place: Path, *options: str) -> subprocess.Popen[str]:
    command = [str(TLSDYNO), "run", str(place / "some.toml"), "--out", str(place / "out"), *options]
    return subprocess.Popen(command, env=environment(place / "build"), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def rows_of(place: Path) -> list[dict[str, str]]:
    if not (place / "out" / "results.csv").exists():
        return []
    with (place / "out" / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def left_behind(place: Path) -> list[str]:
    """Processes, and whatever lies in the directory for temporary files: configurations, sockets."""
    return sessions_below(place / "build") + [path.name for path in (place / "tmp").iterdir()]


def processes(place: Path, name: str) -> list[int]:
    """Masters and workers of a program of this test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                program = os.readlink(entry / "exe")
            except OSError:
                continue
            if program == str((place / "build" / name).resolve()):
                found.append(int(entry.name))
    return sorted(found)


def wait_for_load(place: Path, runner: subprocess.Popen[str]) -> None:
    """Until the proxy has really taken handshakes from the load generator."""
    while runner.poll() is None:
        for log in (place / "out" / "logs").glob("*-subject.log") if (place / "out" / "logs").exists() else ():
            lines = log.read_text().splitlines()
            address = next((line.split()[-1] for line in lines if line.startswith("stats on")), "")
            try:
                with urllib.request.urlopen(f"http://{address}/stats.json", timeout=5) as answer:
                    counted = json.load(answer)
                if counted["handshakes_full"] + counted["handshakes_resumed"] > 20:
                    return
            except (OSError, ValueError):
                pass
        time.sleep(0.02)
    raise AssertionError(f"the run ended before it was loaded: {runner.communicate()}")


def was_measured(row: dict[str, str]) -> None:
    """Whether it stands is up to what else this machine does just now."""
    assert row["status"] != "failed" and "died" not in row["reason"] and "killed" not in row["reason"], row["reason"]
    assert float(row["subject_cpu_us_per_op"]) > 0


@pytest.mark.parametrize("victim, which, reason", [
    ("echo-backend", "master", "backend died in mid-run: it was killed by SIGKILL"),
    ("proxy", "master", "subject died in mid-run: it was killed by SIGKILL"),
    ("loadgen", "master", "load generator was killed by SIGKILL"),
    ("loadgen", "worker", "load generator: worker"),
])
def test_a_killed_program_fails_its_row_and_the_run_goes_on(place: Path, victim: str, which: str, reason: str) -> None:
    runner = start(place)
    wait_for_load(place, runner)
    pids = processes(place, victim)
    os.kill(pids[0] if which == "master" else pids[-1], signal.SIGKILL)
    _, errors = runner.communicate(timeout=240)
    first, second = rows_of(place)
    assert (first["status"], first["stands"], first["subject_cpu_us_per_op"]) == ("failed", "", "")
    assert first["reason"].startswith(reason)
    was_measured(second)
    assert runner.returncode == 4, errors
    assert left_behind(place) == []


def test_a_killed_proxy_worker_spoils_the_row(place: Path) -> None:
    """Its master replaces it, so the run goes on to its end: the errors that the clients saw are left to tell. Those
    whose connections wait in the listen queue see none, so these connections last."""
    with (place / "some.toml").open("a") as file:
        file.write("requests_per_connection = 100\n")
    runner = start(place)
    wait_for_load(place, runner)
    _, *others = processes(place, "proxy")
    os.kill(next(pid for pid in others if name_of(pid) != "proxy-stats"), signal.SIGKILL)
    runner.communicate(timeout=240)
    first, second = rows_of(place)
    assert (first["status"], first["stands"]) == ("invalid", "") and "errors: " in first["reason"]
    was_measured(second)
    assert left_behind(place) == []


def test_ctrl_c_in_mid_load_leaves_nothing(place: Path) -> None:
    runner = start(place)
    wait_for_load(place, runner)
    runner.send_signal(signal.SIGINT)
    _, errors = runner.communicate(timeout=240)
    assert runner.returncode == 130 and errors.count("\n") >= 1
    assert left_behind(place) == []


FORGETFUL = '''#!/usr/bin/python3
"""Gives tickets and takes none back: every connection has a context, so ticket keys, of its own."""
import http.server, json, socketserver, ssl, sys, threading
if "--version" in sys.argv:
    print("proxy forgetful")
    sys.exit()
counts = {"handshakes_full": 0, "handshakes_resumed": 0, "handshakes_failed": 0, "connections_accepted": 0}
lock = threading.Lock()
class Statistics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(counts).encode())
    def log_message(self, *_args):
        pass
class Relay(socketserver.BaseRequestHandler):
    def handle(self):
        with lock:
            counts["connections_accepted"] += 1
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[-1])
        try:
            with context.wrap_socket(self.request, server_side=True) as tls:
                with lock:
                    counts["handshakes_resumed" if tls.session_reused else "handshakes_full"] += 1
                while tls.recv(10000):
                    tls.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n" + b"")
        except OSError:
            pass
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128
statistics = http.server.HTTPServer(("127.0.0.1", 0), Statistics)
threading.Thread(target=statistics.serve_forever, daemon=True).start()
print("stats on 127.0.0.1:%d" % statistics.server_address[1], flush=True)
with Server(("127.0.0.1", 0), Relay) as server:
    print("listening on 127.0.0.1:%d" % server.server_address[1], flush=True)
    server.serve_forever()
'''


def test_refused_tickets_make_the_row_invalid_with_that_reason(place: Path) -> None:
    (place / "build" / "proxy").write_text(FORGETFUL)
    runner = start(place, "--only", "reuse=always")
    runner.communicate(timeout=240)
    (row,) = rows_of(place)
    assert (row["status"], row["stands"], row["resumed_share"]) == ("invalid", "", "0")
    assert "0.0 % of the handshakes were resumed, not 100.0 %: the subject refused" in row["reason"]
    assert "counted otherwise" not in row["reason"]
    assert left_behind(place) == []


def test_an_interruption_between_a_start_and_its_note_loses_no_program(tmp_path, monkeypatch):
    """The worst moment: the program runs, and whoever started it does not know it yet."""
    monkeypatch.setattr(running.strays, "note", lambda _pid: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(running.Interrupted), running.interruptible(), running.crew() as programs:
        programs.append(running.start("client", ["sleep", "1000"], (0,), tmp_path / "log"))
    assert programs == []
    assert [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()
            and f"{tmp_path}/log" in links_of(entry)] == []


def links_of(process: Path) -> list[str]:
    """Where its standard output goes."""
    try:
        return [os.readlink(process / "fd" / "1")]
    except OSError:
        return []
