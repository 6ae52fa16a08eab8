"""The proxy's configuration file and what starts it: what an operator writes is what runs, or is refused by name."""
from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import children, is_alive, make_certificate, name_of, program, run, running
from proxies import backend, connected, echo, eventually

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def write_config(folder: Path, *lines: str) -> str:
    file = folder / "proxy.conf"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def test_a_configuration_file_starts_the_proxy_and_the_command_line_counts_more(ecdsa: str, tmp_path: Path) -> None:
    with backend(echo) as to:
        config = write_config(tmp_path, 'frontend = "[127.0.0.1]:0"   # as stud writes it', "backend = 127.0.0.1:1",
                              f"pem-file = '{ecdsa}'", "workers = 7", "quiet = yes", 'ciphers = ""', 'user = ""')
        with running("proxy", "--config", config, "-b", to, "-n", "2") as server:
            assert len(server.workers()) == 2
            with connected(server) as tls:
                tls.sendall(b"by file")
                assert tls.recv(7) == b"by file"


def test_a_configuration_file_of_stud_is_taken(ecdsa: str, tmp_path: Path) -> None:
    switches = [f"{name} = off" for name in ("tls", "prefer-server-ciphers", "quiet", "syslog", "daemon", "write-ip",
                                             "write-ipv4", "write-proxy", "proxy-proxy")]
    empty = [f'{name} = ""' for name in ("ciphers", "ssl-engine", "chroot", "user", "group")]
    with backend(echo) as to:
        host, _, port = to.rpartition(":")
        config = write_config(tmp_path, "# stud(8), The Scalable TLS Unwrapping Daemon's configuration", "",
                              'frontend = "[127.0.0.1]:0"', f'backend = "[{host}]:{port}"', f'pem-file = "{ecdsa}"',
                              "ssl = on", *switches, *empty, "workers = 1", "backlog = 100", "keepalive = 3600",
                              "session-cache = 0", 'syslog-facility = "daemon"')
        with running("proxy", "--config", config) as server, connected(server) as tls:
            tls.sendall(b"as before")
            assert tls.recv(9) == b"as before"


def test_a_configuration_file_of_hitch_is_taken(ecdsa: str, tmp_path: Path) -> None:
    empty = [f'{name} = ""' for name in ("ssl-engine", "chroot", "user", "group")]
    with backend(echo) as to:
        config = write_config(
            tmp_path, "# hitch(8)", 'frontend = "[127.0.0.1]:0"', "frontend = {", '    host = "127.0.0.1"',
            '    port = "0"', "    # for this one", "    match-global-certs = on", "    tls-protos = TLSv1.2 TLSv1.3",
            "    prefer-server-ciphers = off", f'    pem-file = "{ecdsa}"', "}", f'backend = "{to}"', "pem-file = {",
            f'\tcert = "{ecdsa}"', "\tocsp-verify-staple = off", "}", "ocsp-verify-staple = off",
            "tls-protos = SSLv3 TLSv1.0 TLSv1.1 TLSv1.2 TLSv1.3",
            'ciphers = "EECDH+AESGCM:EDH+AESGCM:AES256+EECDH:AES256+EDH"', "prefer-server-ciphers = off", *empty,
            "workers = 1", "backlog = 100", "keepalive = 3600", "quiet = off", "syslog = off", "daemon = off",
            'syslog-facility = "daemon"', "write-ip = off", "write-proxy-v1 = off", "write-proxy-v2 = off",
            "proxy-proxy = off", "sni-nomatch-abort = off", 'alpn-protos = "h2, http/1.1"', 'ecdh-curve = "X25519"',
            "backend-connect-timeout = 30", "ssl-handshake-timeout = 30", "proxy-authority = on")
        with running("proxy", "--config", config, frontends=2) as server, connected(server) as tls:
            tls.sendall(b"as before")
            assert tls.recv(9) == b"as before"


def test_certificates_of_the_command_line_stand_for_those_of_the_file(ecdsa: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, "backend = 127.0.0.1:1", "pem-file = /no/such/file.pem")
    assert run("proxy", "--config", config, "-t", ecdsa).returncode == 0
    refused = run("proxy", "--config", config, "-t")
    assert refused.returncode == 2 and "/no/such/file.pem" in refused.stderr


@pytest.mark.parametrize(("line", "complaint"), [
    ("workers = two", "workers: two: not a whole number"),
    ("backend = localhost", "backend: localhost: not HOST:PORT"),
    ("bakend = 127.0.0.1:1", "bakend: 127.0.0.1:1: unknown option"),
    ("daemon = perhaps", "daemon: perhaps: must be yes or no"),
    ("config = other.conf", "config: other.conf: can be given on the command line only"),
    ("frontend", "not NAME = VALUE"),
    ('pem-file = "open', "pem-file: the quote is not closed"),
    ("syslog-facility = kern", "syslog-facility: kern: must be one of daemon"),
    ("log-format = xml", "log-format: xml: must be one of text json"),
])
def test_a_bad_line_is_refused_with_its_number_key_and_reason(line: str, complaint: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, "# first", "backend = 127.0.0.1:1", line, "quiet = yes")
    refused = run("proxy", "--config", config)
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.startswith(f"proxy: {config}:3: {complaint}") and refused.stderr.count("\n") == 1


def test_a_configuration_file_that_cannot_be_read_is_called_that(tmp_path: Path) -> None:
    for file, reason in ((tmp_path / "nothing", "No such file or directory"), (tmp_path, "Is a directory")):
        refused = run("proxy", "--config", str(file))
        assert (refused.returncode, refused.stderr) == (2, f"proxy: {file}: cannot be read: {reason}\n")


def test_the_default_configuration_is_one(ecdsa: str, tmp_path: Path) -> None:
    printed = run("proxy", "--default-config")
    assert printed.returncode == 0 and printed.stderr == ""
    config = write_config(tmp_path, printed.stdout)
    assert run("proxy", "--config", config, "-t", "-b", "127.0.0.1:1", ecdsa).returncode == 0
    # Every option that can stand in a file is there, once.
    for line in run("proxy", "--help").stdout.splitlines():
        name = line[6:].removeprefix("--").split(" ")[0].split("[")[0].split("=")[0]
        if line[6:8] == "--" and name not in ("config", "default-config", "test", "version", "help"):
            lines = [text for text in printed.stdout.splitlines() if text.removeprefix("# ").startswith(f"{name} =")]
            assert len(lines) == 1, name


# Processes


def serves(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=60).close()
    except OSError:
        return False
    return True


def test_in_the_background_the_status_tells_whether_it_started(ecdsa: str, tmp_path: Path) -> None:
    pidfile = tmp_path / "proxy.pid"
    options = ["--daemon", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0", "--pidfile", str(pidfile)]
    started = run("proxy", *options, ecdsa, timeout=60)
    assert started.returncode == 0 and started.stderr == ""
    address = started.stdout.removeprefix("listening on ").strip()
    master = int(pidfile.read_text())
    try:
        assert serves(address) and os.getsid(master) == master
        assert os.readlink(f"/proc/{master}/fd/2") == "/dev/null"
        again = run("proxy", *options, ecdsa)
        assert again.returncode == 2
        assert again.stderr == f"proxy: --pidfile: {pidfile}: process {master} runs with it\n"
        taken = run("proxy", "--daemon", "-b", "127.0.0.1:1", "-f", address, ecdsa)
        assert taken.returncode == 2 and "Address already in use" in taken.stderr
    finally:
        os.kill(master, signal.SIGTERM)
    eventually(lambda: not is_alive(master), "it ends")
    assert not pidfile.exists()


def test_a_pid_file_that_was_left_behind_is_used_again(ecdsa: str, tmp_path: Path) -> None:
    pidfile = tmp_path / "proxy.pid"
    pidfile.write_text(f"{os.getpid()}\nsomething longer than a number\n")
    with running("proxy", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0", "--pidfile", str(pidfile), ecdsa) as server:
        assert pidfile.read_text() == f"{server.process.pid}\n"
        server.process.kill()  # which leaves it behind
        server.process.wait()
        with running("proxy", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0", "--pidfile", str(pidfile), ecdsa) as second:
            assert pidfile.read_text() == f"{second.process.pid}\n"


@contextlib.contextmanager
def syslog() -> Iterator[socket.socket]:
    """A socket of the test's own stands for syslog's, where this machine has none."""
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind("/dev/log")
    except OSError as error:
        pytest.skip(f"/dev/log: {error.strerror}")
    with listener:
        try:
            listener.settimeout(60)
            yield listener
        finally:
            os.unlink("/dev/log")


def test_messages_go_to_syslog_where_asked(ecdsa: str) -> None:
    options = ["-s", "--syslog-facility", "local3", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0"]
    with syslog() as listener, running("proxy", *options, ecdsa) as server:
        server.process.send_signal(signal.SIGTERM)
        message = listener.recv(1000).decode()
        assert server.process.wait(60) == 0
        assert re.fullmatch(r"<158>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d proxy\[%d\]: draining: connections may end"
                            % server.process.pid, message)  # 158: local3 (19 * 8) and info (6)
        assert server.errors == []


def test_nobody_waits_for_a_syslog_that_takes_no_more(ecdsa: str) -> None:
    with backend(echo) as to, syslog() as listener, \
            running("proxy", "-s", "-b", to, "-f", "127.0.0.1:0", ecdsa) as server, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        def provoke() -> None:
            """A message: a client that speaks no TLS."""
            with socket.create_connection(server.host_port, timeout=60) as plain:
                plain.sendall(b"not TLS\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    assert plain.recv(100) is not None

        provoke()
        assert "handshake failed" in listener.recv(1000).decode()
        filler.setblocking(False)
        filler.connect("/dev/log")
        with contextlib.suppress(BlockingIOError):
            while True:
                filler.send(b"noise")
        time.sleep(1.1)  # a message a second at most
        provoke()
        with connected(server) as tls:
            tls.sendall(b"still here")
            assert tls.recv(10) == b"still here"
        while listener.recv(1000) == b"noise":
            if not select.select([listener], [], [], 0)[0]:
                break

        def told() -> bool:
            provoke()
            return bool(select.select([listener], [], [], 0)[0]) and b"lost: nobody took them" in listener.recv(1000)

        eventually(told, "how many were lost is told")


# Privileges


def status_field(pid: int, name: str) -> list[str]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.split()[1:]
    raise AssertionError(name)


@AS_ROOT
def test_whoever_reads_from_the_network_has_no_rights_and_a_reload_still_reads_the_key(tmp_path: Path) -> None:
    _, _, both = make_certificate(tmp_path, name="old")
    both.chmod(0o600)
    with backend(echo) as to, running("proxy", "-b", to, "-f", "127.0.0.1:0", "--stats", "127.0.0.1:0", "-n", "2",
                                      "-u", "nobody", "-r", str(tmp_path), str(both)) as server:
        before = set(server.workers())
        for generation in range(2):
            eventually(lambda: all(set(status_field(pid, "Uid")) == {"65534"}
                                   for pid in children(server.process.pid)), "nobody has rights")
            for pid in children(server.process.pid):
                assert set(status_field(pid, "Gid")) == {"65534"} and status_field(pid, "Groups") == ["65534"]
                assert int(status_field(pid, "CapEff")[0], 16) == 0
                assert os.readlink(f"/proc/{pid}/root") == str(tmp_path)
            assert [name_of(pid) for pid in children(server.process.pid)].count("proxy-stats") == 1
            assert status_field(server.process.pid, "Uid")[0] == "0"
            with connected(server) as tls:
                tls.sendall(b"x")
                assert tls.recv(1) == b"x"
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: not before & set(server.workers()) and len(server.workers()) == 2, "a new generation")
            before = set(server.workers())
        assert server.errors == ["proxy: reloaded: earlier connections may end"] * 2


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is but one CPU")
def test_each_worker_runs_on_its_cpu_of_the_list_also_one_that_is_replaced(ecdsa: str) -> None:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    with running("proxy", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0", "-n", "3", "--cpus", f"{second},{first}",
                 "-q", ecdsa) as server:
        def cpus() -> list[str]:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                return sorted(status_field(pid, "Cpus_allowed_list")[0] for pid in server.workers())
            return []  # one has just died

        for _ in range(2):
            eventually(lambda: cpus() == sorted([str(first), str(second), str(second)]), "each has its CPU")
            killed = server.workers()[0]
            os.kill(killed, signal.SIGKILL)
            eventually(lambda: killed not in server.workers(), "it has died")


@AS_ROOT
def test_names_that_do_not_exist_are_refused(ecdsa: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for options, complaint in ((["-u", "no-such-user"], "--user: no-such-user: there is no such user"),
                               (["-g", "no-such-group"], "--group: no-such-group: there is no such group"),
                               (["-r", str(tmp_path / "none")],
                                f"--chroot: {tmp_path}/none: No such file or directory"),
                               (["-r", str(tmp_path / "file")], f"--chroot: {tmp_path}/file: Not a directory")):
        refused = run("proxy", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0", *options, ecdsa)
        assert (refused.returncode, refused.stderr) == (2, f"proxy: {complaint}\n")


def test_who_is_not_root_cannot_become_somebody_else(ecdsa: str) -> None:
    as_nobody = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        for options in (["-u", "root"], ["-g", "root"], ["-r", "/"]):
            refused = subprocess.run([program("proxy"), "-b", "127.0.0.1:1", *options, ecdsa], capture_output=True,
                                     text=True, timeout=60, check=False, **as_nobody)  # type: ignore[call-overload]
            assert refused.returncode == 2
            assert refused.stderr.endswith(": only root can do that\n") and refused.stderr.count("\n") == 1
    except PermissionError:
        pytest.skip("nobody may not run the proxy: the build is in a private folder")


def test_waiting_for_nothing_costs_no_time(ecdsa: str) -> None:
    """No timer of the master, the workers or the statistics ticks while nothing happens."""
    with running("proxy", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0", "--stats", "127.0.0.1:0", ecdsa) as server:
        def switches() -> list[list[str]]:
            pids = [server.process.pid, *children(server.process.pid)]
            return [status_field(pid, "voluntary_ctxt_switches") for pid in pids]

        time.sleep(1)
        before = switches()
        time.sleep(1)
        assert switches() == before


@pytest.mark.parametrize("reloaded", [False, True])
def test_each_worker_runs_on_its_own_cpu_and_nobody_else_is_bound(reloaded: bool, ecdsa: str) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    wanted = [cpus[-1], cpus[0]]
    with running("proxy", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0", "--stats", "127.0.0.1:0", "-n", "3", "--cpus",
                 ",".join(map(str, wanted)), ecdsa) as server:
        if reloaded:
            before = server.workers()
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: len(server.workers()) == 3 and not set(before) & set(server.workers()), "others")

        def bound() -> list[str]:
            return sorted(status_field(pid, "Cpus_allowed_list")[0] for pid in server.workers())

        # Worker 2 begins the list again.
        eventually(lambda: bound() == sorted(map(str, [*wanted, wanted[0]])), "each has its own")
        others = [server.process.pid, *(set(children(server.process.pid)) - set(server.workers()))]
        assert len(others) == 2
        for pid in others:
            assert os.sched_getaffinity(pid) == set(cpus)
