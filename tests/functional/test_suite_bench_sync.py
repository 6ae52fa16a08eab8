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
    (tmp_path / "bench" / "datagram-flood").symlink_to(program("bench/datagram-flood"))
    cost = tmp_path / "bench" / "session-store-cost"
    cost.write_text("#!/bin/sh\nfor size; do\necho \"{\\\"sessions\\\": $size, \\\"store_ns\\\": 100, "
                    "\\\"lookup_ns\\\": $((size / 100 + 2000)), \\\"bytes_per_session\\\": 576.5}\"\ndone\n")
    cost.chmod(0o755)
    return tmp_path


def test_what_is_refused(tmp_path: Path) -> None:
    done = bench("--rounds", "0")
    assert (done.returncode, done.stderr) == (2, "bench-sync: --rounds, --probes, --duration: at least 1\n")
    done = bench(build=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"bench-sync: {tmp_path}/loadgen: is not there or not executable: run `make` first\n"


def test_what_a_look_up_costs_is_held_against_a_handshake(build: Path) -> None:
    done = bench("--part", "lookup", "--rounds", "1", "--duration", "1", build=build)
    assert done.stderr == ""
    assert "look-up among 1000000 / among 1000: 5.97; of the store alone: 1.00\n" in done.stdout
    assert "a resumed handshake (" in done.stdout and "bytes a session: 576 (<= 700: met)" in done.stdout
    assert done.returncode in (0, 1)  # whether ten microseconds are a tenth of a handshake is the machine's to say
