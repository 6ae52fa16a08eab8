"""The proxy's access log: a line for each connection that ends, whole, truthful, and never a burden."""
from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import time
from pathlib import Path

import pytest

from programs import children, program, running
from proxies import backend, client_context, connected, counters, echo, eventually, proxy

FIELDS = ["time", "client", "frontend", "sni", "version", "cipher", "resumed", "alpn", "bytes_from_client",
          "bytes_to_client", "handshake_us", "duration_us", "close", "failure"]


def lines_of(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def read_text(line: str) -> dict[str, str]:
    pairs = [field.split("=") for field in line.split(" ")]
    assert [key for key, _ in pairs] == FIELDS
    return {key: value for key, value in pairs}


def wait_for_lines(log: Path, count: int) -> list[str]:
    eventually(lambda: len(lines_of(log)) >= count, f"{count} lines")
    assert len(lines_of(log)) == count
    return lines_of(log)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_says_what_was_agreed_and_what_was_carried(form: str, ecdsa: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    context = client_context(ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    with backend(echo) as to, proxy(to, ecdsa, "--access-log", str(log), "--log-format", form) as server:
        session = None
        for _ in range(2):
            with socket.create_connection(server.host_port, timeout=60) as plain:
                address = "{}:{}".format(*plain.getsockname())
                with context.wrap_socket(plain, session=session, server_hostname="name.example.org") as tls:
                    tls.sendall(b"x" * 1000)
                    tls.recv(1000)
                    session = tls.session
        lines = wait_for_lines(log, 2)
        facts = [json.loads(line) if form == "json" else read_text(line) for line in lines]
        assert list(facts[0]) == FIELDS
        last = facts[1]
        assert (last["client"], facts[0]["sni"], last["version"]) == (address, "name.example.org", "TLSv1.2")
        assert last["cipher"] == "ECDHE-ECDSA-AES256-GCM-SHA384"
        assert [fact["resumed"] for fact in facts] == ([False, True] if form == "json" else ["no", "yes"])
        assert int(last["bytes_from_client"]) == 1000 and int(last["bytes_to_client"]) == 1000
        assert 0 < int(last["handshake_us"]) <= int(last["duration_us"])
        assert last["close"] in ("done", "hung_up") and last["failure"] in (None, "-") and last["alpn"] in (None, "-")
        when = datetime.datetime.fromisoformat(last["time"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", last["time"])
        assert abs((datetime.datetime.now(datetime.timezone.utc) - when).total_seconds()) < 60


@pytest.mark.parametrize("option", ["--write-proxy=v2", "--proxy-proxy"])
def test_a_header_for_the_backend_is_none_of_the_clients_bytes(option: str, ecdsa: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with backend(echo) as to, proxy(to, ecdsa, "--access-log", str(log), option) as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            if option == "--proxy-proxy":
                plain.sendall(b"PROXY UNKNOWN\r\n")
            with client_context().wrap_socket(plain) as tls:
                tls.sendall(b"hello")
                while not tls.recv(1000).endswith(b"hello"):
                    pass
        line, = wait_for_lines(log, 1)
        assert read_text(line)["bytes_from_client"] == "5"
        assert counters(server)["bytes_from_client"] == 5


def client_hello(name: bytes) -> bytes:
    """A ClientHello of TLS 1.2 with any bytes for a server name."""
    server_name = struct.pack(">HBH", len(name) + 3, 0, len(name)) + name
    extensions = struct.pack(">HH", 0, len(server_name)) + server_name
    groups = struct.pack(">HHHH", 10, 4, 2, 23)
    algorithms = struct.pack(">HHHH", 13, 4, 2, 0x0403)
    extensions += groups + algorithms
    body = b"\x03\x03" + bytes(32) + b"\x00" + struct.pack(">HH", 2, 0xc02b) + b"\x01\x00"
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\x01" + struct.pack(">I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack(">H", len(message)) + message


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_server_name_can_forge_a_line(form: str, ecdsa: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    name = b'a close=done\n{"x":1}\r\n"\\=\xff\x1b[2J-' + b"b" * 200
    with backend(echo) as to, proxy(to, ecdsa, "--access-log", str(log), "--log-format", form) as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            plain.sendall(client_hello(name))
            assert plain.recv(5)[:1] == b"\x16", "the name was not taken: nothing is shown"
        line, = wait_for_lines(log, 1)
    assert all(" " <= character <= "~" for character in line)
    if form == "json":
        assert json.loads(line)["sni"].encode("latin-1") == name
    else:
        shown = read_text(line)["sni"]
        assert re.sub(r"\\x(..)", lambda match: chr(int(match[1], 16)), shown).encode("latin-1") == name


@pytest.mark.parametrize(("sent", "failure"), [(b"GET / HTTP/1.1\r\n\r\n", "not_tls"), (b"", "peer_gone")])
def test_a_handshake_that_failed_has_a_line_too(sent: bytes, failure: str, ecdsa: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with backend(echo) as to, proxy(to, ecdsa, "--access-log", str(log)) as server:
        with socket.create_connection(server.host_port, timeout=60) as plain:
            plain.sendall(sent)
        line, = wait_for_lines(log, 1)
        facts = read_text(line)
        assert (facts["close"], facts["failure"], facts["version"], facts["cipher"]) == (
            "handshake_failed", failure, "-", "-")


def test_workers_share_the_file_by_whole_lines_and_none_is_missing(ecdsa: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with running("echo-backend", "http", "-l", "127.0.0.1:0") as origin, \
            proxy(origin.address, ecdsa, "-n", "2", "--access-log", str(log)) as server:
        subprocess.run([program("loadgen"), "-c", "50", "-n", "3000", "--requests-per-connection", "1",
                        f"https://{server.address}/"], check=True, capture_output=True, timeout=120)
        accepted = counters(server)["connections_accepted"]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert accepted >= 3000
        lines = lines_of(log)
        assert len(lines) == accepted and len({read_text(line)["client"] for line in lines}) > 1000


def test_a_reload_begins_a_new_file_where_the_old_was_moved_away(ecdsa: str, tmp_path: Path) -> None:
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"

    def visit(server) -> None:  # type: ignore[no-untyped-def]
        with connected(server) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"

    with backend(echo) as to, proxy(to, ecdsa, "--access-log", str(log)) as server:
        visit(server)
        wait_for_lines(log, 1)
        log.rename(moved)
        server.process.send_signal(signal.SIGHUP)
        eventually(log.exists, "a new file")
        visits = 1

        def visited() -> bool:
            """The worker of before may still be there, with its file, to take one."""
            nonlocal visits
            visit(server)
            visits += 1
            return bool(lines_of(log))

        eventually(visited, "lines in it")
        eventually(lambda: len(lines_of(moved)) + len(lines_of(log)) == visits, "a line for each")
        assert lines_of(moved)


def open_files(pid: int) -> set[str]:
    files = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            files.add(os.readlink(descriptor))
    return files


def test_no_process_keeps_a_file_that_it_has_no_use_for(ecdsa: str, tmp_path: Path) -> None:
    """A log that was moved away is let go, so that its room on the disk is free; the pid file is the master's."""
    log, moved, pid_file = tmp_path / "access.log", tmp_path / "access.log.1", tmp_path / "proxy.pid"
    with backend(echo) as to, proxy(to, ecdsa, "-n", "2", "--access-log", str(log), "--pidfile",
                                    str(pid_file)) as server:
        old = set(server.workers())
        log.rename(moved)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: not old & set(server.workers()) and len(server.workers()) == 2, "a new generation")
        assert str(pid_file) in open_files(server.process.pid)
        for pid in children(server.process.pid):
            eventually(lambda pid=pid: not open_files(pid) & {str(moved), str(pid_file)}, f"{pid} has let go")
            assert (str(log) in open_files(pid)) == (pid in server.workers())


def test_a_full_disk_costs_lines_and_nothing_else(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "--access-log", "/dev/full") as server:
        for _ in range(3):
            for _ in range(5):
                with connected(server) as tls:
                    tls.sendall(b"x")
                    assert tls.recv(1) == b"x"
            before = counters(server)["access_log_lost"]
            eventually(lambda: counters(server)["access_log_lost"] > before, "lines are lost")
        eventually(lambda: counters(server)["access_log_lost"] == 15, "every line is counted")
        assert server.errors == ["proxy: access log: No space left on device: lines are lost"]


def test_a_disk_that_fills_up_in_the_middle_of_a_line_breaks_no_other(ecdsa: str, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: writes come short, then fail; then there is room again."""
    log = tmp_path / "access.log"
    with backend(echo) as to, proxy(to, ecdsa, "--access-log", str(log)) as server:
        worker = server.workers()[0]
        subprocess.run(["prlimit", "--pid", str(worker), "--fsize=1000:unlimited"], check=True)
        for _ in range(10):
            with connected(server) as tls:
                tls.sendall(b"x")
                assert tls.recv(1) == b"x"
        eventually(lambda: counters(server)["access_log_lost"] > 0, "lines are lost")
        assert log.stat().st_size == 1000 and server.workers() == [worker]
        subprocess.run(["prlimit", "--pid", str(worker), "--fsize=unlimited:unlimited"], check=True)
        kept = len(lines_of(log))
        with connected(server) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
        eventually(lambda: len(lines_of(log)) > kept, "another line")
        lines = lines_of(log)
        assert len(lines) == kept + 1
        for line in lines[:kept - 1] + lines[kept:]:
            read_text(line)
        counted = counters(server)
        assert counted["access_log_lost"] + counted["access_log_lines"] == 11


def test_standard_output_is_a_log_that_nobody_has_to_read(ecdsa: str) -> None:
    with backend(echo) as to, running("proxy", "-f", "127.0.0.1:0", "-b", to, "--stats", "127.0.0.1:0", "--access-log",
                                      "-", ecdsa) as server:
        assert server.process.stdout
        with connected(server) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
        read_text(server.process.stdout.readline().rstrip("\n"))
        # The pipe fills, and clients do not notice.
        subprocess.run(["prlimit", "--pid", str(server.workers()[0]), "--nofile=256:256"], check=True)
        with contextlib.ExitStack() as stack:
            for _ in range(1000):
                with socket.create_connection(server.host_port, timeout=60) as plain:
                    plain.sendall(b"not TLS\r\n\r\n")
            eventually(lambda: counters(server)["closed"]["handshake_failed"] == 1000, "all were turned away")
            tls = stack.enter_context(connected(server))
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"


def test_an_idle_log_sets_no_timer(ecdsa: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with backend(echo) as to, proxy(to, ecdsa, "--access-log", str(log)) as server:
        with connected(server) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
        wait_for_lines(log, 1)
        worker = Path(f"/proc/{server.workers()[0]}/status")

        def switches() -> str:
            return worker.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0]

        time.sleep(1.2)
        before = switches()
        time.sleep(2.2)
        assert switches() == before


def test_a_log_that_cannot_be_opened_is_refused(ecdsa: str, tmp_path: Path) -> None:
    for file, reason in (("/no/such/folder/log", "No such file or directory"), (str(tmp_path), "Is a directory")):
        refused = subprocess.run([program("proxy"), "-b", "127.0.0.1:1", "--access-log", file, ecdsa],
                                 capture_output=True, text=True, timeout=60, check=False)
        assert (refused.returncode, refused.stderr) == (2, f"proxy: --access-log: {file}: {reason}\n")
    refused = subprocess.run([program("proxy"), "-b", "127.0.0.1:1", "--access-log", "-", "--daemon", ecdsa],
                             capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2 and "--access-log: -:" in refused.stderr
    assert os.listdir(tmp_path) == []
