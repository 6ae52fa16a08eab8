"""`tlsdyno ab` with the real programs. Every exit status is provoked by what it stands for: a proxy that is slower, one
that does not resume, one that cannot agree on a cipher, a generator that is too slow, a base that is not like itself.

Blocks are smaller here than in earnest, and what is to be found is larger. """
import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import check_gate
import pytest
from check_gate import Kind
from programs import BUILD, ROOT
from suite_fakes import TLSDYNO, environment, sessions_below
from tlsdyno_suite import ab, block, builds, cli, instructions, trials

SLOWDOWN = 40
SCENARIO = """
title = "a gate of a test"
[subject]
names = ["reference"]
[axes.work]
full       = { reuse = "never",  requests_per_connection = 1 }
resumed    = { reuse = "always", requests_per_connection = 1 }
keep-alive = { reuse = "never",  requests_per_connection = "inf" }
[load]
cert_key = "ecdsa:P-256"
tls_version = "TLSv1.3"
cipher = "TLS_AES_128_GCM_SHA256"
connections = 20
duration = "400ms"
"""


@pytest.fixture(scope="session")
def slower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proxy that takes SLOWDOWN % more for a handshake."""
    directory = tmp_path_factory.mktemp("slower")
    sanitized = ["SAN=1"] if BUILD.name == "san" else []
    words = ["make", "-s", "-j2", *sanitized, f"BUILD={directory}", f"PROXY_SLOWDOWN={SLOWDOWN}", f"{directory}/proxy"]
    # Not as a part of the make that runs the tests: its flags and its job server are its own.
    clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, env=clean)
    return directory


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs under a path of the test's own, a scenario, and blocks that are over soon."""
    (tmp_path / "build").mkdir()
    for name in ("proxy", "echo-backend", "loadgen", "tls-floor"):
        shutil.copy(BUILD / name, tmp_path / "build" / name)
    (tmp_path / "gate.toml").write_text(SCENARIO)
    for name, value in environment(tmp_path / "build").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ab, "LOOKS", (6,))
    monkeypatch.setattr(block, "WARM_UP_OPS", {False: 90, True: 500})
    monkeypatch.setattr(ab, "PORTION_S", 0.02)
    return tmp_path


def wrapper(path: Path, script: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n" + script + "\n")
    path.chmod(0o755)
    return path


def gate(place: Path, capsys: pytest.CaptureFixture[str], base: Path | str, new: Path | str,
         *options: str) -> tuple[int, dict, str]:
    """Exit status, the JSON report, and standard output."""
    status = cli.main(["ab", str(place / "gate.toml"), "--base", str(base), "--new", str(new), "--out",
                       str(place / "out"), *options])
    captured = capsys.readouterr()
    assert left_behind(place) == []
    report = place / "out" / "report.json"
    return status, json.loads(report.read_text()) if report.exists() else {}, captured.out + captured.err


def left_behind(place: Path) -> list[str]:
    return sessions_below(place / "build") + [path.name for path in (place / "tmp").iterdir()]


def test_a_slower_build_is_a_regression(place, capsys, slower):
    status, report, said = gate(place, capsys, place / "build", slower, "--only", "work=full")
    (cell,) = report["cells"]
    assert status == 1 and cell["verdict"] == "regression", said
    assert 0.1 < cell["change"] < 1.0 and cell["low"] > 0
    assert "REGRESSION" in said and "Verdict: REGRESSION" in (place / "out" / "report.txt").read_text()
    assert "<failure" in (place / "out" / "junit.xml").read_text()
    assert "❌" in (place / "out" / "comment.md").read_text()
    # What the verdict was made of: six blocks of three fresh processes.
    with (place / "out" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if not row["reason"]]
    assert list(rows[0]) == list(trials.COLUMNS) and len(measured) == 18
    assert {row["arm"] for row in measured} == {*block.ARMS}
    # Three loads at once, and what each of them said by itself.
    assert all(len(list((place / "out" / "logs").glob(f"*-{arm}-client.log"))) == 6 for arm in block.ARMS)


@pytest.mark.parametrize("seed", ["0", "4294967295"])
def test_every_seed_that_a_run_may_draw_can_be_given_again(place, capsys, seed):
    _, report, said = gate(place, capsys, place / "build", place / "build", "--only", "work=full", "--time", "1ms",
                           "--seed", seed)
    assert report["settings"]["seed"] == int(seed), said


def test_too_little_time_is_inconclusive(place, capsys):
    options = ("--only", "work=full", "--time", "100ms")
    status, report, said = gate(place, capsys, place / "build", place / "build", *options)
    assert status == 3 and report["cells"][0]["n"] == 1 and "inconclusive" in said
    shutil.rmtree(place / "out")
    assert gate(place, capsys, place / "build", place / "build", *options, "--inconclusive", "pass")[0] == 0


@pytest.mark.parametrize("work, script, reason", [
    ("resumed", 'exec {real} "$@" --tickets off -C 0', "new: 0 of "),
    ("full", 'exec {real} "$@" --ciphersuites TLS_AES_256_GCM_SHA384', "new: only 0 ops in the window; errors: tls"),
    ("full", 'case "$*" in *--test*) exec {real} "$@";; esac; echo "no room" >&2; exit 1', "new: subject did not"),
], ids=["does not resume", "another cipher", "does not start"])
def test_a_build_that_does_not_do_what_is_asked_is_invalid(place, capsys, monkeypatch, work, script, reason):
    monkeypatch.setattr(ab, "REJECTED", 1)
    broken = wrapper(place / "other" / "proxy", script.format(real=place / "build" / "proxy"))
    status, report, said = gate(place, capsys, place / "build", broken, "--only", f"work={work}")
    (cell,) = report["cells"]
    assert status == 4 and cell["verdict"] == "invalid" and reason in cell["reason"], said
    assert "<error" in (place / "out" / "junit.xml").read_text()


def test_a_build_that_hangs_is_refused_and_nothing_of_it_is_left(place, capsys, monkeypatch):
    monkeypatch.setattr(builds, "TEST_LIMIT_S", 0.5)
    hanging = wrapper(place / "other" / "proxy", f'sh -c "sleep 1000; : {place}/other" & wait')
    status = cli.main(["ab", "--base", str(place / "build"), "--new", str(hanging), str(place / "gate.toml")])
    assert status == 2
    assert capsys.readouterr().err == f"tlsdyno: --new: {hanging}: has not answered --test within 0.5 s\n"
    end = time.monotonic() + 60
    while sessions_below(place / "other"):
        assert time.monotonic() < end, "it goes on"
        time.sleep(0.01)


def test_a_block_that_failed_once_is_measured_again(place, capsys):
    """A load generator that fails in the midst of the first attempt, when the proxies have long said where they are."""
    (place / "build" / "loadgen").rename(place / "build" / "real-loadgen")
    wrapper(place / "build" / "loadgen", f'mkdir {place}/failed 2>/dev/null && exit 1\n'
            f'exec {place}/build/real-loadgen "$@"')
    status, report, said = gate(place, capsys, place / "build", place / "build", "--only", "work=full", "--time", "1ms")
    assert status == 3 and report["cells"][0]["n"] == 1 and "1 attempts do not count" in said, said


SLOW_RECV = """
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
ssize_t recv(int fd, void *buffer, size_t length, int flags) {
    struct timespec begin, now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    do
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    while ((now.tv_sec - begin.tv_sec) * 1000000000 + now.tv_nsec - begin.tv_nsec < 500000);
    return syscall(SYS_recvfrom, fd, buffer, length, flags, 0, 0);
}
"""


@pytest.mark.skipif(BUILD.name == "san", reason="a sanitizer's library has to be the first of all")
def test_a_generator_that_is_too_slow_is_invalid(place, capsys, monkeypatch):
    """Each of its looks at a socket takes half a millisecond of its CPU."""
    monkeypatch.setattr(ab, "REJECTED", 1)
    (place / "slow.c").write_text(SLOW_RECV)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(place / "slow.so"), str(place / "slow.c")], check=True)
    (place / "build" / "loadgen").rename(place / "build" / "real-loadgen")
    wrapper(place / "build" / "loadgen", f'LD_PRELOAD={place}/slow.so exec {place}/build/real-loadgen "$@"')
    status, report, said = gate(place, capsys, place / "build", place / "build", "--only", "work=full")
    assert status == 4 and "client-bound: load generator and backend took" in report["cells"][0]["reason"], said


def test_a_base_that_is_not_like_itself_is_invalid(place, capsys, monkeypatch, slower):
    monkeypatch.setattr(ab, "LOOKS", (8,))
    two_faced = wrapper(place / "other" / "proxy", f'case "$0" in */c/*) exec {slower}/proxy "$@";; esac\n'
                        f'exec {place}/build/proxy "$@"')
    status, report, said = gate(place, capsys, two_faced, place / "build", "--only", "work=full")
    assert status == 4 and "A/A check: the base differs from itself by +" in report["cells"][0]["reason"], said


def test_two_configurations_and_two_libraries_can_be_compared(place, capsys):
    """The proxy says that it read the file, and the kernel that it has mapped the library."""
    (place / "a.conf").write_text("backlog = 100\n")
    library = place / "openssl" / "lib"
    library.mkdir(parents=True)
    linked = subprocess.run(["ldd", str(BUILD / "proxy")], capture_output=True, text=True, check=True).stdout
    for line in linked.splitlines():
        if "libssl" in line or "libcrypto" in line:
            shutil.copy(line.split()[2], library)
    witness = wrapper(place / "build" / "witness", f'{place}/build/real "$@" & pid=$!; trap "kill $pid" TERM\n'
                      f'case "$*" in *--test*|*--version*) ;; *)\n'
                      f'until grep -q libssl /proc/$pid/maps || ! kill -0 $pid; do sleep 0.01; done\n'
                      f'cat /proc/$pid/maps >>{place}/maps\n'
                      f'echo "$*" >>{place}/words;; esac; wait $pid')
    (place / "build" / "proxy").rename(place / "build" / "real")
    witness.rename(place / "build" / "proxy")
    options = ("--only", "work=full", "--time", "1ms")
    status, report, said = gate(place, capsys, place / "a.conf", place / "openssl", *options)
    assert status in (3, 4), said  # a shell between runner and proxy counts as a process of the proxy
    assert (report["base"]["kind"], report["new"]["kind"]) == ("configuration", "OpenSSL")
    assert str(library) in (place / "maps").read_text() and f"--config {place}/a.conf" in (place / "words").read_text()


@pytest.mark.skipif(BUILD.name == "san", reason="valgrind cannot run what has a sanitizer in it")
def test_instructions_tell_a_slower_build(place, capsys, monkeypatch, slower):
    """A busy loop is much the same in instructions as in time: of SLOWDOWN % at least a quarter."""
    monkeypatch.setattr(instructions, "REPEATS", 2)
    monkeypatch.setitem(instructions.OPS, False, (90, 120))
    status, report, said = gate(place, capsys, place / "build", slower, "--only", "work=full", "--instructions")
    (cell,) = report["cells"]
    assert status == 1 and cell["verdict"] == "regression" and cell["change"] > 0.1, said
    assert cell["noise_floor"] < 0.005 and cell["base"] > 1e5 and report["unit"] == "instructions/op"


REFUSED = [
    (["--base", "build", "--new", "nowhere"], "--new: {place}/nowhere: No such file or directory"),
    (["--base", "empty", "--new", "build"], "--base: {place}/empty: holds no program `proxy` (run `make` there) and"),
    (["--base", "build", "--new", "typo.conf"], "--new: {place}/typo.conf: "),
    (["--base", "build"], "--new"),
    (["--base", "build", "--new", "build", "--threshold", "0"], "--threshold: 0: is not a number of per cent"),
    (["--base", "build", "--new", "build", "--inconclusive", "maybe"], "invalid choice: 'maybe'"),
    (["--base", "build", "--new", "build", "--only", "work=none"], "work=none: no such value"),
    (["--base", "build", "--new", "build", "--out", "empty/../full"], "is there already and not empty"),
    (["four.toml", "--base", "build", "--new", "build"], "four.toml: subject.names: ab compares builds of the proxy"),
    (["held.toml", "--base", "build", "--new", "build"], "held.toml: loop = hold: ab needs loop = closed"),
]


@pytest.mark.parametrize("arguments, reason", REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_what_cannot_be_compared_is_refused_in_one_line(place, capsys, monkeypatch, arguments, reason):
    monkeypatch.chdir(place)
    (place / "empty").mkdir()
    (place / "full").mkdir()
    (place / "full" / "something").touch()
    (place / "typo.conf").write_text("tikets = on\n")
    (place / "four.toml").write_text(SCENARIO.replace('["reference"]', '["reference", "nginx"]'))
    (place / "held.toml").write_text(SCENARIO.replace('{ reuse = "never",  requests_per_connection = 1 }',
                                     '{ reuse = "never", requests_per_connection = "inf", loop = "hold" }').replace(
        "requests_per_connection = 1 }", 'requests_per_connection = 1, loop = "closed" }').replace(
        'requests_per_connection = "inf" }', 'requests_per_connection = "inf", loop = "closed" }'))
    if not arguments[0].endswith(".toml"):
        arguments = ["gate.toml", *arguments]
    status = cli.main(["ab", *arguments])
    said, complained = capsys.readouterr()
    assert status == 2 and said == ""
    assert complained.startswith("tlsdyno: ") and complained.count("\n") == 1
    assert reason.format(place=place) in complained
    assert not (place / "out").exists() and left_behind(place) == []


def test_ctrl_c_keeps_the_trials_and_leaves_nothing_else(place):
    command = [str(TLSDYNO), "ab", "gate.toml", "--base", "build", "--new", "build", "--out", "out"]
    run = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finished = place / "out" / "trials.csv"
    while run.poll() is None and not (finished.exists() and finished.read_text().count("\n") > 3):
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 130 and "interrupted; what was finished is in" in errors
    with contextlib.suppress(FileNotFoundError):
        assert not (place / "out" / "report.json").exists()
    assert left_behind(place) == []


def test_it_shows_what_the_gate_finds_and_goes_on_where_it_was_interrupted(place, slower, monkeypatch):
    """The short form of `make check-gate`: one small run of each kind of demand, interrupted and taken up again."""
    only = ("--only", "work=full")
    kinds = (Kind("slower", str(slower), only, least=1.0),
             Kind("the same, disturbed", ".", (*only, "--threshold", "30"), disturbed=True))
    path, said = place / "runs.csv", []

    def interrupt(line: str) -> None:
        said.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_gate.measure(kinds, 1, path, str(place / "gate.toml"), interrupt)
    assert len(check_gate.finished(path)) == 1
    with path.open("a") as file:
        file.write("slower,2,1,9")  # what a run that is killed in mid-row leaves
    check_gate.measure(kinds, 1, path, str(place / "gate.toml"), said.append)
    rows = check_gate.finished(path)
    text, met = check_gate.table(kinds, rows)
    assert sorted(row["kind"] for row in rows) == ["slower", "the same, disturbed"] and len(said) == 2
    assert met and {row["kind"]: row["exit_status"] for row in rows}["the same, disturbed"] == "0", text
    # There is an end to it.
    monkeypatch.setattr(check_gate, "LIMIT_S", 1)
    check_gate.measure(kinds, 2, path, str(place / "gate.toml"), said.append)
    assert len(check_gate.finished(path)) == 2 and "not begun" in said[-1]
    # The table can say no as well.
    assert not check_gate.table((Kind("slower", "", ()),), 2 * rows)[1]
    assert not check_gate.table((Kind("slower", "", (), least=0.5, limit_s=0.1),), rows)[1]
    assert not check_gate.table((Kind("the same, disturbed", "", (), least=0.9),), rows)[1]
