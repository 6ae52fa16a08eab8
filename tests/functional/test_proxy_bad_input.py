"""What an operator gets wrong is told in one line that names it: status 2 at the start, all as it was on a reload."""
from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from authority import Authority
from programs import Running, make_certificate, program, run, running
from proxies import backend, connected, counters, echo, eventually, recording
from test_proxy_life import configured, reload, served_name

NOBODY = 65534


def refusal(*arguments: object) -> str:
    """The one line with which the proxy refuses to start."""
    refused = run("proxy", *map(str, arguments), timeout=60)
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.startswith("proxy: ") and refused.stderr.count("\n") == 1
    return refused.stderr.removeprefix("proxy: ").rstrip("\n")


FILE_OPTIONS = ["", "--pem-file", "--config", "--ticket-keys", "--ocsp", "--client-ca", "--ca", "--pidfile"]


@pytest.mark.parametrize(("option", "kind"), [*((option, "fifo") for option in [*FILE_OPTIONS, "--access-log"]),
                                              *((option, "device") for option in FILE_OPTIONS)])
def test_what_is_no_file_is_refused_and_not_waited_for(option: str, kind: str, ecdsa: str, tmp_path: Path) -> None:
    file = Path("/dev/zero")
    if kind == "fifo":
        file = tmp_path / "fifo"
        os.mkfifo(file)
    words: list[object] = ["-f", "127.0.0.1:0", "-b", "127.0.0.1:1", *([option] if option else []), file]
    if option == "--ca":
        words += ["--client", "--verify-name", "localhost"]
    elif option not in ("", "--pem-file"):
        words.append(ecdsa)
    reason = "No such device or address" if option == "--access-log" else "not a regular file"
    shown = option + ": " if option not in ("", "--pem-file", "--config") else ""
    cause = "cannot be read: " if option not in ("--pidfile", "--access-log") else ""
    assert refusal(*words) == f"{shown}{file}: {cause}{reason}"
    assert file.exists()


@pytest.mark.parametrize(("to", "complaint"), [
    ("127.0.0.1:0", "port 0: nobody can be reached there"),
    ("[::1]:0", "port 0: nobody can be reached there"),
    ("localhost:0", "port 0: nobody can be reached there"),
    ("*:80", "stands for every address of this machine: name the one to connect to"),
    (":80", "stands for every address of this machine: name the one to connect to"),
    ("0.0.0.0:80", "stands for every address of this machine: name the one to connect to"),
    ("[::]:80", "stands for every address of this machine: name the one to connect to"),
])
def test_a_backend_that_nobody_can_reach_is_refused(to: str, complaint: str, ecdsa: str) -> None:
    assert refusal("-b", to, ecdsa) == f"--backend: {to}: {complaint}"


def test_what_is_refused_takes_one_line_whatever_is_in_it(ecdsa: str, tmp_path: Path) -> None:
    assert refusal("-b", "a\nb", ecdsa) == "--backend: a?b: not HOST:PORT or a path that begins with /"
    assert refusal("-b", "127.0.0.1:1", tmp_path / "no\n\x1b[2Jfile") == \
        f"{tmp_path}/no??[2Jfile: cannot be read: No such file or directory"
    assert refusal("-b", "127.0.0.1:1", "-n", "\x7f", ecdsa) == "--workers: ?: not a whole number"
    config = tmp_path / "proxy.conf"
    config.write_text("workers = 1\r2\n")
    assert refusal("--config", config, ecdsa) == f"{config}:1: workers: 1?2: not a whole number"


@pytest.mark.parametrize(("words", "complaint"), [
    (["--pem-file", ""], "--pem-file: : must not be empty"),
    ([""], "CERT.pem: must not be empty"),
    (["--ocsp", ""], "--ocsp: : must not be empty"),
    (["--idle-timeout", "0.0000001ms"], "--idle-timeout: 0.0000001ms: not a time such as 500ms, 5s or 1h"),
    (["--workers", "9" * 5000], f"--workers: {'9' * 255}: not a whole number"),
    (["--alpn", "h2,a b"], "--alpn: h2,a b: the name of a protocol has no blank in it, and nothing invisible"),
    (["--alpn", "h\u00fc"], "--alpn: h\u00fc: the name of a protocol has no blank in it, and nothing invisible"),
    *((["--client", "--verify-name", name], f"--verify-name: {name}: neither a host name nor an address")
      for name in ("a b", "*.example.org", "example..org", "example.org.", ".", "b\u00fccher.example", "example:443")),
])
def test_a_value_without_sense_is_refused(words: list[str], complaint: str, ecdsa: str) -> None:
    assert refusal("-b", "127.0.0.1:1", *words, *([] if "--client" in words else [ecdsa])) == complaint


def test_a_file_that_is_no_pid_file_is_not_written_over(ecdsa: str, tmp_path: Path) -> None:
    pem = Path(shutil.copy(ecdsa, tmp_path / "served.pem"))
    for more in ([], ["-t"]):
        assert refusal("-b", "127.0.0.1:1", "-f", "127.0.0.1:0", "--pidfile", pem, *more, pem) == \
            f"--pidfile: {pem}: holds something else than a process number"
        assert pem.read_text() == Path(ecdsa).read_text()
        long = tmp_path / ("p" * 300)
        assert refusal("-b", "127.0.0.1:1", "-f", "127.0.0.1:0", "--pidfile", long, *more, pem) == \
            f"--pidfile: {str(long)[:255]}: File name too long"


def test_no_access_log_is_made_for_a_configuration_that_is_not_used(ecdsa: str, tmp_path: Path) -> None:
    log, nowhere = tmp_path / "log", tmp_path / "no" / "log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refusal("-b", "127.0.0.1:1", "-f", used, "--access-log", log, ecdsa) == \
            f"--frontend: {used}: cannot listen: Address already in use"
        assert not log.exists()
        with backend(echo) as to, configured(tmp_path, to) as (server, config, _):
            text = config.read_text()
            config.write_text(f"{text}access-log = {log}\nfrontend = {used}\n")
            reload(server)
            assert counters(server)["reloads_refused"] == 1 and not log.exists()
            config.write_text(f"{text}access-log = {log}\n")
            reload(server)
            assert counters(server)["reloads"] == 1 and log.exists()
            config.write_text(f"{text}access-log = {log}\nfrontend = {used}\n")
            reload(server)
            assert counters(server)["reloads_refused"] == 2 and log.exists(), "it is in use, though empty"
            assert run("proxy", "-t", "--config", str(config)).returncode == 0 and log.exists()
    log.unlink()
    assert run("proxy", "-t", "-b", "127.0.0.1:1", "--access-log", str(log), ecdsa).returncode == 0
    assert not log.exists()
    assert refusal("-t", "-b", "127.0.0.1:1", "--access-log", nowhere, ecdsa) == \
        f"--access-log: {nowhere}: No such file or directory"


def test_a_time_without_sense_is_refused(ecdsa: str) -> None:
    for time in ("5ms", "0.00001s"):
        assert refusal("-b", "127.0.0.1:1", "--backend-refresh", time, ecdsa) == \
            f"--backend-refresh: {time}: must be at least 100 ms, or 0"
    for time in ("0", "100ms"):
        assert run("proxy", "-t", "-b", "127.0.0.1:1", "--backend-refresh", time, ecdsa).returncode == 0


def test_a_cache_larger_than_the_machine_is_refused(ecdsa: str, tmp_path: Path) -> None:
    """With certificates of clients, so that it is more than even a large machine has."""
    authority = Authority(tmp_path / "authority").certificate
    options: list[object] = ["-b", "127.0.0.1:1", "-C", "100000000", "--client-ca", authority, ecdsa]
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") > 100_000_000 * 4096:
        pytest.skip("this machine has room for the largest cache that can be asked for")
    assert refusal(*options) == "--session-cache: 100000000 sessions take 396728 MiB, more than this machine has"


# The header for the backend: one option under four names


def test_the_header_of_the_command_line_takes_the_place_of_that_in_the_file(ecdsa: str, tmp_path: Path) -> None:
    config = tmp_path / "proxy.conf"
    config.write_text("write-proxy = v1\n")
    expected = bytes([socket.AF_INET]) + socket.inet_aton("127.0.0.1")
    with recording(len(expected)) as (to, heard), \
            running("proxy", "--config", str(config), "--write-ip", "-f", "127.0.0.1:0", "-b", to,
                    "--stats", "127.0.0.1:0", ecdsa) as server:
        for _ in range(2):
            with connected(server) as tls:
                tls.sendall(b"x")
                assert tls.recv(1) == b"x"
            assert heard.get(timeout=60) == expected
            reload(server)
        assert counters(server)["reloads"] == 2


def test_headers_that_exclude_each_other_in_one_place_are_refused(ecdsa: str, tmp_path: Path) -> None:
    config = tmp_path / "proxy.conf"
    config.write_text("write-ip = yes\nwrite-proxy = v2\n")
    complaint = "--write-proxy: cannot be had together with --write-ip"
    # Also where the command line has one: a file that is wrong in itself is not passed over.
    for more in (["--quiet"], ["--write-ipv4"]):
        assert refusal("--config", config, "-b", "127.0.0.1:1", *more, ecdsa) == complaint
    config.write_text("write-ip = yes\n")
    assert refusal("--config", config, "-b", "127.0.0.1:1", "--write-ip", "--write-proxy=v2", ecdsa) == complaint


# Certificates


@contextlib.contextmanager
def somebody() -> Iterator[tuple[Path, Sequence[str]]]:
    """A folder for somebody who is not root, and a command that runs the proxy as him: files without rights are only
    unreadable for such a one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if os.geteuid() != 0:
            yield folder, ()
            return
        copy = shutil.copy(program("proxy"), folder / "proxy")  # the build may be where only root can go
        yield folder, ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "sh", "-c",
                       f'exec {copy} "$@"']


@contextlib.contextmanager
def run_by_somebody(to: str) -> Iterator[tuple[Running, Path]]:
    with somebody() as (folder, within):
        pem = folder / "served.pem"
        shutil.copy(make_certificate(folder / "made", name="old")[2], pem)
        pem.chmod(0o644)
        with running("proxy", "-f", "127.0.0.1:0", "-b", to, "--stats", "127.0.0.1:0", str(pem),
                     within=within) as server:
            yield server, pem


def test_an_unreadable_certificate_is_refused_at_the_start(ecdsa: str) -> None:
    with somebody() as (folder, within):
        pem = Path(shutil.copy(ecdsa, folder / "secret.pem"))
        pem.chmod(0)
        with pytest.raises(AssertionError, match="did not start") as refused:
            with running("proxy", "-f", "127.0.0.1:0", "-b", "127.0.0.1:1", str(pem), within=within):
                pass
        assert f"['proxy: {pem}: cannot be read: Permission denied']" in str(refused.value)


def check_refused(server: Running, complaint: str) -> None:
    """A reload: one line, and the old certificate is served on, by the old workers and by one that is new."""
    workers = server.workers()
    with connected(server) as before:
        reload(server)
        assert counters(server)["reloads_refused"] == 1
        eventually(lambda: len(server.errors) == 1, "one line")
        assert server.errors[0].startswith(f"proxy: reload: {complaint}"), server.errors
        assert server.errors[0].endswith(": the old configuration stays")
        assert server.workers() == workers
        before.sendall(b"still here")
        assert before.recv(10) == b"still here"
    assert served_name(server) == "old"


def test_a_certificate_that_became_unreadable_is_refused_on_a_reload() -> None:
    with backend(echo) as to, run_by_somebody(to) as (server, pem):
        pem.chmod(0)
        check_refused(server, f"{pem}: cannot be read: Permission denied")


@pytest.mark.parametrize("fault", ["expired", "future", "fifo", "empty", "key only"])
def test_a_certificate_that_is_of_no_use_is_refused_on_a_reload(fault: str, tmp_path: Path) -> None:
    with backend(echo) as to, configured(tmp_path, to) as (server, _, pem):
        if fault in ("expired", "future"):
            days = (-10, -1) if fault == "expired" else (1, 10)
            pem.write_text(Authority(tmp_path / "authority").issue("new", days=days).read_text())
        elif fault == "key only":
            pem.write_text(make_certificate(tmp_path, name="new")[1].read_text())
        else:
            pem.unlink()
            if fault == "fifo":
                os.mkfifo(pem)
            else:
                pem.touch()
        check_refused(server, {
            "expired": f"{pem}: the certificate expired on: 20",
            "future": f"{pem}: the certificate is not valid before: 20",
            "fifo": f"{pem}: cannot be read: not a regular file",
            "empty": f"{pem}: cannot be read: the file is empty",
            "key only": f"{pem}: no certificate can be read: there is none in this file",
        }[fault])
