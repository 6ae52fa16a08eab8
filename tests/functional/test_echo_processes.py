"""The echo-backend as a program: its socket file, its processes, its command line."""
import json
import os
import random
import re
import signal
import socket

import programs
import pytest
from echo_backends import Backend, LONG_S, MIB, ask, echo, wait_until


def test_sock_serves_and_removes_its_file_at_the_end(tmp_path):
    path = tmp_path / "echo.sock"
    data = random.Random(12).randbytes(3 * MIB)
    with Backend("sock", "-l", path, "-n", 2) as backend:
        assert backend.address == str(path)
        with backend.connect() as client:
            assert echo(client, data, seed=1, chunked=True) == data
            assert json.loads(ask(client, "/whoami")[1])["local"] == str(path)
    assert not path.exists()


def test_a_socket_file_left_by_a_killed_server_is_replaced(tmp_path):
    path = tmp_path / "echo.sock"
    with Backend("sock", "-l", path) as backend:
        backend.process.kill()
        backend.process.wait(LONG_S)
        wait_until(lambda: not accepts(path))
    assert path.exists()
    with Backend("sock", "-l", path) as backend, backend.connect() as client:
        assert ask(client, "/?s=1")[1] == b"0"


def accepts(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_a_socket_file_in_use_is_refused_and_goes_on_working(tmp_path):
    path = tmp_path / "echo.sock"
    with Backend("sock", "-l", path) as backend:
        refused(["sock", "-l", path], r"--listen: .*echo\.sock: Address already in use")
        with backend.connect() as client:
            assert ask(client, "/?s=1")[1] == b"0"


def test_an_ordinary_file_is_not_removed_for_a_socket(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("data")
    refused(["sock", "-l", precious], r"--listen: .*precious: Address already in use")
    assert precious.read_text() == "data"


def test_a_killed_worker_is_replaced_and_service_goes_on():
    with Backend("http", "-n", 2) as backend:
        before = set(backend.workers())
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(backend.workers()) == 2 and victim not in backend.workers())
        for _ in range(30):
            with backend.connect() as client:
                assert ask(client, "/?s=1")[1] == b"0"


def test_workers_do_not_outlive_a_killed_master():
    with Backend("http", "-n", 3) as backend:
        workers = backend.workers()
        assert len(workers) == 3
        backend.process.kill()
        backend.process.wait(LONG_S)
        wait_until(lambda: not any(map(programs.is_alive, workers)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_status_0_and_no_process_is_left(number, tmp_path):
    with Backend("sock", "-l", tmp_path / "echo.sock", "-n", 2) as backend, backend.connect() as busy:
        busy.sendall(b"GET /?s=1g HTTP/1.1\r\n\r\n")
        busy.recv(1000)
        workers = backend.workers()
        backend.process.send_signal(number)
        assert backend.process.wait(LONG_S) == 0
        assert not any(map(programs.is_alive, workers))
        assert list(tmp_path.iterdir()) == []


def test_a_signal_straight_after_the_start_is_not_lost():
    for _ in range(20):
        with Backend("http", "-n", 4) as backend:
            workers = backend.workers()
        assert not any(map(programs.is_alive, workers))


def test_workers_run_on_the_cpus_that_were_named():
    cpus = sorted(os.sched_getaffinity(0))
    with Backend("http", "-n", len(cpus) + 1, "--cpus", ",".join(map(str, cpus))) as backend:
        wait_until(lambda: sorted(min(os.sched_getaffinity(pid)) for pid in backend.workers()
                                  if len(os.sched_getaffinity(pid)) == 1) == sorted(cpus + cpus[:1]))


def test_several_servers_do_not_disturb_each_other():
    with Backend("http") as first, Backend("http", "-n", 2) as second:
        assert first.address != second.address
        for backend in first, second:
            with backend.connect() as client:
                assert ask(client, "/?s=1")[1] == b"0"


def refused(arguments, pattern):
    result = programs.run("echo-backend", *map(str, arguments), timeout=LONG_S)
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert re.fullmatch(rf"echo-backend: {pattern}\n", result.stderr), result.stderr


@pytest.mark.parametrize("arguments, pattern", [
    ([], "mode: none given: .*"),
    (["ftp"], "ftp: unknown mode: .*"),
    (["http", "sock"], "sock: one operand too many: .*"),
    (["http", "--nonsense"], "--nonsense: unknown option.*"),
    (["http", "-x"], "-x: unknown option.*"),
    (["http", "-n"], "-n: needs a value"),
    (["http", "-n", "0"], "--workers: 0: must be at least 1"),
    (["http", "-n", "257"], "--workers: 257: must be at most 256"),
    (["http", "-B", "0"], "--backlog: 0: .*"),
    (["http", "--cpus", "100000"], "--cpus: 100000: .*"),
    (["http", "--cpus", "1023"], "--cpus: 1023: CPU 1023 does not exist or is not allowed here"),
    (["http", "--idle-timeout", "0"], "--idle-timeout: 0: .*"),
    (["http", "-l", "127.0.0.1"], "--listen: 127.0.0.1: .*"),
    (["http", "-l", "127.0.0.1:99999"], "--listen: 127.0.0.1:99999: .*"),
    (["http", "-l", "/tmp/x.sock"], "--listen: /tmp/x.sock: .*"),
    (["http", "-l", "192.0.2.1:0"], "--listen: 192.0.2.1:0: Cannot assign requested address"),
    (["http", "--cert", "x.pem"], "--cert.*: only https .*"),
    (["sock"], "--listen: not given: .*"),
    (["sock", "-l", "127.0.0.1:0"], "--listen: 127.0.0.1:0: sock needs .*"),
    (["sock", "-l", "/no/such/directory/echo.sock"], "--listen: /no/such.*: No such file or directory"),
    (["https"], "--cert: not given: .*"),
    (["https", "--cert", "/no/such/file"], "/no/such/file: cannot be read: No such file or directory"),
    (["https", "--tls-min", "TLSv1.9"], "--tls-min: TLSv1.9: .*"),
])
def test_bad_usage_is_refused_in_one_line(arguments, pattern):
    refused(arguments, pattern)


def test_a_port_in_use_is_refused_also_to_several_workers():
    for first in "1", "3":
        with Backend("http", "-n", first) as backend:
            for second in "1", "3":
                refused(["http", "-l", backend.address, "-n", second],
                        rf"--listen: {re.escape(backend.address)}: Address already in use")


def test_a_certificate_that_cannot_serve_is_refused(certificate, tmp_path):
    empty, text = tmp_path / "empty.pem", tmp_path / "text.pem"
    empty.write_text("")
    text.write_text("no certificate\n")
    other_key = programs.make_certificate(tmp_path / "other")[1]
    good, key, _ = certificate
    refused(["https", "--cert", empty, "--key", key], ".*empty.pem: cannot be read: the file is empty")
    refused(["https", "--cert", text, "--key", key], ".*text.pem: no certificate can be read: .*")
    refused(["https", "--cert", good, "--key", text], ".*text.pem: no private key can be read: .*")
    refused(["https", "--cert", good], ".*crt: no private key can be read: .*")
    refused(["https", "--cert", good, "--key", other_key], ".*key: the private key does not match .*")
    refused(["https", "--cert", tmp_path, "--key", key], ".*: cannot be read: Is a directory")
    refused(["https", "--cert", good, "--key", key, "--tls-min", "TLSv1.3", "--tls-max", "TLSv1.2"], "--tls-min.*")


def test_help_and_version_end_well():
    for option in "--help", "-h", "--version", "-V":
        result = programs.run("echo-backend", option, timeout=LONG_S)
        assert (result.returncode, result.stderr) == (0, "")
        assert "echo-backend" in result.stdout
