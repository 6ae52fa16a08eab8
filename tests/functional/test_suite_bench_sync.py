"""bench-sync, which is too long to be run here: that it measures at all, and what it refuses."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from programs import BUILD, ROOT, program


def bench(*arguments: str, build: Path = BUILD) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "scripts" / "bench-sync"), *arguments], capture_output=True,
                          text=True, timeout=200, check=False, env={**os.environ, "TLSDYNO_BUILD_DIR": str(build)})


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """All that is built, with a session-store-cost whose figures are known."""
    for name in ("proxy", "loadgen", "echo-backend"):
        (tmp_path / name).symlink_to(program(name))
    (tmp_path / "bench").mkdir()
    for name in ("session-resumer", "datagram-flood"):
        (tmp_path / "bench" / name).symlink_to(program(f"bench/{name}"))
    cost = tmp_path / "bench" / "session-store-cost"
    cost.write_text("#!/bin/sh\nfor size; do\necho \"{\\\"sessions\\\": $size, \\\"store_ns\\\": 100, "
                    "\\\"lookup_ns\\\": $((size / 100 + 2000)), \\\"bytes_per_session\\\": 576.5}\"\ndone\n")
    cost.chmod(0o755)
    return tmp_path


def test_what_is_refused(tmp_path: Path) -> None:
    done = bench("--rounds", "0")
    assert (done.returncode, done.stderr) == (2, "bench-sync: --rounds, --probes, --duration, --sessions: at least 1\n")
    done = bench(build=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"bench-sync: {tmp_path}/loadgen: is not there or not executable: run `make` first\n"


def test_what_a_look_up_costs_is_held_against_a_handshake(build: Path) -> None:
    done = bench("--part", "lookup", "--rounds", "2", "--sessions", "3000", build=build)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines if line.startswith(("of the store", "and with decoding"))] == [
        ["of", "the", "store", "alone", "1.000", "1.00", "..", "1.00"],
        ["and", "with", "decoding", "1.010", "1.01", "..", "1.01"]]
    assert any(line.startswith("a resumed handshake, ") for line in lines)
    assert lines[-1] == "bytes a session: 576 (<= 700: met)"
    assert done.returncode in (0, 1)  # which of two costs is a tenth more is the machine's to say


def test_a_session_that_is_not_there_is_told(build: Path, tmp_path: Path) -> None:
    """A client that asks for more sessions than a proxy was given."""
    greedy = tmp_path / "bench" / "session-resumer"
    greedy.unlink()
    greedy.write_text(f"#!/bin/sh\nexec '{program('bench/session-resumer')}' \"$1\" 1000000 \"$3\"\n")
    greedy.chmod(0o755)
    done = bench("--part", "lookup", "--rounds", "1", "--sessions", "2000", build=build)
    assert done.returncode == 1
    assert "session-resumer: a session was not resumed" in done.stderr


def test_who_tells_and_who_takes_are_told_apart(build: Path) -> None:
    done = bench("--part", "cost", "--rounds", "1", build=build)
    assert done.stderr == ""
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("TLS 1.2")]
    assert [(row[2], *row[3:5]) for row in rows] == [
        ("rsa:2048", "here", "only"), ("rsa:2048", "both", "hosts"),
        ("ecdsa:P-256", "here", "only"), ("ecdsa:P-256", "both", "hosts")]
    assert [row[-1] for row in rows] == ["us", "-", "us", "-"]
    assert "<= 3 % more: " in done.stdout
    assert done.returncode in (0, 1)
