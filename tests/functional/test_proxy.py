"""The reference proxy, from outside: what its clients, its backend and its operator would notice if it were broken."""
from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from programs import Running, is_alive, make_certificate, program, run, running
from proxies import backend, client_context, connected, counters, echo, eventually, proxy

# Sessions


def resume(server: Running, context: ssl.SSLContext, times: int) -> list[bool]:
    """Whether each of so many further connections resumed the session of the one before."""
    resumed, session = [], None
    for _ in range(times + 1):
        with connected(server, context, session) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"  # TLS 1.3: the ticket came before it
            resumed.append(bool(tls.session_reused))
            session = tls.session
    return resumed[1:]


@pytest.mark.parametrize("how", ["TLSv1.2 session ID", "TLSv1.2 ticket", "TLSv1.3 ticket", "TLSv1.3 stateful ticket"])
def test_sessions_resume_on_every_worker(how: str, ecdsa: str) -> None:
    version = ssl.TLSVersion.TLSv1_2 if "1.2" in how else ssl.TLSVersion.TLSv1_3
    context = client_context(version)
    options = ["--tickets", "off"] if how in ("TLSv1.2 session ID", "TLSv1.3 stateful ticket") else []
    with backend(echo) as to, proxy(to, ecdsa, "-n", "3", *options) as server:
        assert resume(server, context, 30) == [True] * 30
        counted = counters(server)
        assert (counted["handshakes_full"], counted["handshakes_resumed"]) == (1, 30)
        assert counted["session_hits"] == (30 if options else 0)
        used = [worker for worker in counted["workers"] if worker["connections_accepted"]]
        assert len(used) > 1, "one worker had all connections: nothing was shared"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_without_cache_and_tickets_nothing_resumes(version: ssl.TLSVersion, ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "-C", "0", "--tickets", "off") as server:
        assert resume(server, client_context(version), 5) == [False] * 5
        assert counters(server)["handshakes_resumed"] == 0


def test_a_replaced_worker_still_resumes_old_sessions(ecdsa: str) -> None:
    context = client_context(ssl.TLSVersion.TLSv1_2)
    context.options |= ssl.OP_NO_TICKET
    with backend(echo) as to, proxy(to, ecdsa) as server:
        with connected(server, context) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            session = tls.session
        worker = server.workers()[0]
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: server.workers() not in ([], [worker]), "the worker is replaced")
        with connected(server, context, session) as tls:
            assert tls.session_reused


# What is asked for is what is done


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"])
def test_each_version_of_tls_is_spoken_when_asked_for(version: str, certificates: Path) -> None:
    flag = "-" + version.lower().replace("v", "").replace(".", "_")
    rsa = str(certificates / "rsa-2048-localhost.pem")
    with backend(echo) as to, proxy(to, rsa, "--tls-min", version, "--tls-max", version) as server:
        client = subprocess.run(["openssl", "s_client", "-connect", server.address, flag,
                                 "-cipher", "DEFAULT:@SECLEVEL=0"],
                                input="", capture_output=True, text=True, timeout=60, check=False)
        spoken = "New, TLSv1.3," if version == "TLSv1.3" else f"Protocol  : {version}\n"
        assert spoken in client.stdout


def test_old_versions_are_refused_by_default(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as server:
        client = subprocess.run(["openssl", "s_client", "-connect", server.address, "-tls1_1",
                                 "-cipher", "DEFAULT:@SECLEVEL=0"],
                                input="", capture_output=True, text=True, timeout=60, check=False)
        assert "New, (NONE)" in client.stdout
        eventually(lambda: counters(server)["closed"]["handshake_failed"] == 1, "the refusal is counted")


def test_rsa_and_ecdsa_clients_get_their_own_certificate(certificates: Path, ecdsa: str) -> None:
    rsa = str(certificates / "rsa-2048-localhost.pem")
    with backend(echo) as to, proxy(to, ecdsa, rsa) as server:
        for cipher in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"):
            context = client_context(ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(cipher)
            with connected(server, context) as tls:
                assert tls.cipher()[0] == cipher  # type: ignore[index]


# Life and death


def test_draining_lets_connections_end_and_takes_no_new_ones(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "-n", "2") as server:
        with connected(server) as tls:
            tls.sendall(b"one")
            assert tls.recv(3) == b"one"
            server.process.send_signal(signal.SIGTERM)

            def refused() -> bool:
                try:
                    socket.create_connection(server.host_port, timeout=60).close()
                except ConnectionRefusedError:
                    return True
                return False

            eventually(refused, "new connections are refused")
            tls.sendall(b"two")
            assert tls.recv(3) == b"two"
            assert server.process.poll() is None
        assert server.process.wait(60) == 0


def test_sigint_stops_at_once_with_connections_open(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "-n", "2") as server:
        workers = server.workers()
        with connected(server):
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(60) == 0
        assert not any(is_alive(worker) for worker in workers)


def test_a_master_that_is_killed_takes_its_workers_with_it(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "-n", "3") as server:
        workers = server.workers()
        assert len(workers) == 3
        server.process.kill()
        eventually(lambda: not any(is_alive(worker) for worker in workers), "the workers end")


def test_a_worker_that_is_killed_is_replaced_while_the_others_serve(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "-n", "2") as server:
        with contextlib.ExitStack() as stack:
            open_connections = [stack.enter_context(connected(server)) for _ in range(20)]
            before = [worker["connections_open"] for worker in counters(server)["workers"]]
            assert all(before), "both workers have connections"
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: victim not in server.workers() and len(server.workers()) == 2, "it is replaced")
            alive = 0
            for tls in open_connections:
                with contextlib.suppress(OSError):
                    tls.sendall(b"x")
                    alive += tls.recv(1) == b"x"
            assert alive == before[1]
        eventually(lambda: counters(server)["connections_open"] == 0, "no connection is left open")
        assert counters(server)["closed"]["worker_died"] == before[0]
        for _ in range(20):
            with connected(server) as tls:
                tls.sendall(b"x")
                assert tls.recv(1) == b"x"


def test_socket_and_pid_files_are_removed_at_the_end(ecdsa: str, tmp_path: Path) -> None:
    front, pidfile = tmp_path / "front.sock", tmp_path / "proxy.pid"
    with backend(echo) as to, running("proxy", "-f", str(front), "-b", to, "--pidfile", str(pidfile), ecdsa) as server:
        assert front.exists() and pidfile.read_text() == f"{server.process.pid}\n"
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(str(front))
            with client_context().wrap_socket(plain) as tls:
                tls.sendall(b"by file")
                assert tls.recv(7) == b"by file"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []


# Bad input


def test_port_in_use_is_refused_whatever_the_number_of_workers(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "-n", "2") as server:
        for workers in ("1", "2"):
            second = run("proxy", "-f", server.address, "-b", to, "-n", workers, ecdsa)
            assert second.returncode == 2
            assert second.stderr == f"proxy: --frontend: {server.address}: cannot listen: Address already in use\n"
        live = run("proxy", "-f", "127.0.0.1:0", "-b", to, "--stats", server.announced["stats"], ecdsa)
        assert live.returncode == 2 and "--stats" in live.stderr


def test_a_refused_start_leaves_no_file_behind(ecdsa: str, tmp_path: Path) -> None:
    front, stats, pid = (str(tmp_path / name) for name in ("front.sock", "stats.sock", "proxy.pid"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        for options in (["-f", front, "--stats", used], ["-f", used, "--stats", stats],
                        ["-f", front, "--stats", stats, "--pidfile", "/no/such/folder/proxy.pid"]):
            refused = run("proxy", "-b", used, "--pidfile", pid, *options, ecdsa)
            assert refused.returncode == 2 and refused.stderr.count("\n") == 1
            assert list(tmp_path.iterdir()) == []


def test_a_start_for_want_of_descriptors_leaves_no_file_behind(ecdsa: str, tmp_path: Path) -> None:
    """Wherever it fails: with one descriptor more each time, until it starts."""
    front, stats, pid = (str(tmp_path / name) for name in ("front.sock", "stats.sock", "proxy.pid"))
    for limit in range(8, 64):
        with subprocess.Popen(["prlimit", f"--nofile={limit}", program("proxy"), "-b", "127.0.0.1:1", "-f", front,
                               "--stats", stats, "--pidfile", pid, "--maxconn", "1", ecdsa], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as started:
            assert started.stdout and started.stderr
            if started.stdout.readline():
                started.kill()
                return
            # A leak checker needs descriptors too, and complains in lines of its own.
            lines = [line for line in started.stderr.read().splitlines() if not line.startswith("==")]
        assert started.returncode in (1, 2) and len(lines) == 1 and lines[0].startswith("proxy: "), lines
        assert list(tmp_path.iterdir()) == []
    raise AssertionError("it never starts")


def mismatched(folder: Path) -> str:
    file = folder / "mismatched.pem"
    one, other = make_certificate(folder, name="one"), make_certificate(folder, name="other")
    file.write_text(one[1].read_text() + other[0].read_text())
    return str(file)


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["-b", "127.0.0.1:1"], "no certificate"),
    (["CERT"], "no backend"),
    (["-b", "127.0.0.1:1", "NOWHERE"], "No such file"),
    (["-b", "127.0.0.1:1", "EMPTY"], "empty"),
    (["-b", "127.0.0.1:1", "TEXT"], "no certificate can be read"),
    (["-b", "127.0.0.1:1", "MISMATCHED"], "does not match"),
    (["-b", "127.0.0.1:1", "CERT", "CERT"], "same type"),
    (["-b", "127.0.0.1:1", "--nonsense", "CERT"], "--nonsense"),
    (["-b", "127.0.0.1:1", "-Z", "CERT"], "-Z"),
    (["-b"], "needs a value"),
    (["-b", "localhost", "CERT"], "--backend: localhost"),
    (["-b", "127.0.0.1:70000", "CERT"], "65535"),
    (["-b", "::1:80", "CERT"], "brackets"),
    (["-b", "no.such.host.invalid:80", "CERT"], "no.such.host.invalid"),
    (["-b", "127.0.0.1:1", "--cpus", "1000", "CERT"], "--cpus"),
    (["-b", "127.0.0.1:1", "--cpus", "0-", "CERT"], "--cpus"),
    (["-b", "127.0.0.1:1", "-n", "0", "CERT"], "--workers"),
    (["-b", "127.0.0.1:1", "-n", "two", "CERT"], "whole number"),
    (["-b", "127.0.0.1:1", "--tls-min", "SSLv3", "CERT"], "--tls-min"),
    (["-b", "127.0.0.1:1", "--tls-min", "TLSv1.3", "--tls-max", "TLSv1.2", "CERT"], "--tls-max"),
    (["-b", "127.0.0.1:1", "-c", "NO-SUCH-CIPHER", "CERT"], "NO-SUCH-CIPHER"),
    (["-b", "127.0.0.1:1", "--ciphersuites", "NO_SUCH_SUITE", "CERT"], "NO_SUCH_SUITE"),
    (["-b", "127.0.0.1:1", "--groups", "nogroup", "CERT"], "nogroup"),
    (["-b", "127.0.0.1:1", "--idle-timeout", "5 minutes", "CERT"], "--idle-timeout"),
    (["-b", "127.0.0.1:1", "--tickets", "maybe", "CERT"], "on"),
    (["-b", "127.0.0.1:1", "-f", "192.0.2.1:0", "CERT"], "--frontend"),
    (["-b", "127.0.0.1:1", "-f", "/no/such/folder/front.sock", "CERT"], "--frontend"),
])
def test_bad_input_is_refused_in_one_line(arguments: list[str], complaint: str, ecdsa: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("this is not a certificate\n")
    stand_in = {"CERT": ecdsa, "NOWHERE": str(tmp_path / "nowhere"), "EMPTY": str(tmp_path / "empty"),
                "TEXT": str(tmp_path / "text")}
    if "MISMATCHED" in arguments:
        stand_in["MISMATCHED"] = mismatched(tmp_path)
    refused = run("proxy", *(stand_in.get(argument, argument) for argument in arguments))
    assert refused.returncode == 2
    assert refused.stderr.startswith("proxy: ") and refused.stderr.count("\n") == 1
    assert complaint in refused.stderr
    assert refused.stdout == ""


# What stands in --help for a value, and what is none. An option whose values are of another kind than their name says:
NONSENSE = {"ADDR": "nowhere", "N": "many", "CORES": "many", "SECS": "long", "T": "soon", "VERSION": "SSLv3",
            "LIST": "nonsense", "NAME": "nonsense", "USER": "no-such-user", "GROUP": "no-such-group",
            "FILE": "/no/such/folder/file", "DIR": "/no/such/folder", "on|off": "maybe", "text|json": "xml",
            "PATTERN": "x*", "required|optional|none": "perhaps", "sealed|stud": "open", "[=v1|v2]": "=v3"}
NONSENSE_OF = {"alpn": ",", "verify-name": "n" * 256}


def test_every_option_refuses_a_value_that_means_nothing_and_is_named(ecdsa: str) -> None:
    found = re.findall(r"^  (?:-.,|   ) --([a-z0-9-]+)(?: ([A-Z]+|[a-z]+(?:\|[a-z]+)+)|(\[=\S+\]))(?= |$)",
                       run("proxy", "--help").stdout, re.MULTILINE)
    assert len(found) > 40
    for name, value, optional in found:
        nonsense = NONSENSE_OF.get(name, NONSENSE[value or optional])
        role = ["--client"] if name == "verify-name" else [ecdsa]
        refused = run("proxy", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0", f"--{name}" + nonsense if optional else
                      f"--{name}={nonsense}", *role)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1, (name, refused.stderr)
        blamed = nonsense if name in ("config", "pem-file") else f"--{name}"
        assert refused.stderr.startswith(f"proxy: {blamed}: "), refused.stderr


def test_an_unreadable_certificate_is_called_that(ecdsa: str, tmp_path: Path) -> None:
    refused = run("proxy", "-b", "127.0.0.1:1", str(tmp_path))
    assert refused.returncode == 2
    assert refused.stderr == f"proxy: {tmp_path}: cannot be read: Is a directory\n"


def test_test_mode_checks_and_starts_nothing(ecdsa: str) -> None:
    checked = run("proxy", "-t", "-b", "127.0.0.1:1", ecdsa)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_test_mode_finds_that_the_pid_file_could_not_be_written(ecdsa: str, tmp_path: Path) -> None:
    def tested(pidfile: str) -> tuple[int, str]:
        done = run("proxy", "-t", "-b", "127.0.0.1:1", "--pidfile", pidfile, ecdsa)
        return done.returncode, done.stderr

    missing = f"{tmp_path}/none/pid"
    assert tested(missing) == (2, f"proxy: --pidfile: {missing}: No such file or directory\n")
    assert tested(str(tmp_path)) == (2, f"proxy: --pidfile: {tmp_path}: not a regular file\n")
    assert tested(f"{tmp_path}/pid") == (0, "") and not (tmp_path / "pid").exists()
    # Of a proxy that runs: it is asked for its configuration to be tested before it is told to reload.
    (tmp_path / "pid").write_text("1\n")
    assert tested(f"{tmp_path}/pid") == (0, "")


def test_statistics_speak_http_and_prometheus(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as server:
        with connected(server) as tls:
            tls.sendall(b"x")
            tls.recv(1)
        host, _, port = server.announced["stats"].rpartition(":")

        def get(path: str, method: str = "GET") -> tuple[int, str]:
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()

        assert get("/nothing")[0] == 404
        assert get("/metrics", "POST")[0] == 405
        status, text = get("/metrics")
        assert status == 200 and 'tlsdyno_handshakes_full_total{worker="0"} 1\n' in text
        for line in text.splitlines():
            assert line.startswith("# ") or len(line.split(" ")) == 2
        counted = counters(server)
        assert counted["connections_accepted"] == counted["connections_open"] + sum(counted["closed"].values())


@pytest.mark.parametrize("name", ["proxy", "echo-backend", "loadgen", "tls-floor"])
def test_help_that_cannot_be_printed_is_an_error(name: str) -> None:
    with open("/dev/full", "w") as full:
        assert subprocess.run([program(name), "--help"], stdout=full, check=False).returncode == 1


def test_help_and_version_are_printed_on_request() -> None:
    for flag in ("--help", "-h"):
        shown = run("proxy", flag)
        assert shown.returncode == 0 and shown.stdout.startswith("usage: proxy")
    assert run("proxy", "-V").stdout.startswith("proxy ")
    assert Path(program("proxy")).exists()
