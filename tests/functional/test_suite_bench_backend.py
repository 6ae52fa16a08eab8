"""bench-backend in a short form: that it measures all three servers, and what it refuses."""
from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

from programs import BUILD, ROOT


def bench(*arguments: str, build: Path = BUILD) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "scripts" / "bench-backend"), *arguments], capture_output=True,
                          text=True, timeout=200, check=False, env={**os.environ, "TLSDYNO_BUILD_DIR": str(build)})


def test_what_is_refused(tmp_path: Path) -> None:
    done = bench("--rounds", "0", "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (2, "bench-backend: --rounds, --duration: at least 1 round of 100 ms\n")
    done = bench("--out", str(tmp_path / "out"), build=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"bench-backend: {tmp_path}/loadgen: is not there or not executable: run `make` first\n"
    assert not (tmp_path / "out").exists()


def test_three_servers_answer_the_same_load(tmp_path: Path) -> None:
    done = bench("--rounds", "1", "--duration", "300ms", "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (1 if "NOT MET" in done.stdout else 0, "")  # in so short a time
    with (tmp_path / "out" / "bench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["bytes"], row["connections"], row["server"]) for row in rows} == {
        (size, connections, server) for size in ("0", "1024") for connections in ("10", "50")
        for server in ("nginx", "echo-backend", "least-server")}
    assert len(rows) == 12
    for row in rows:
        assert int(row["requests"]) > 0
        assert float(row["requests_per_cpu_s"]) > 0
    table = done.stdout.splitlines()
    assert table[1].split()[-6:] == ["nginx", "echo-backend", "least-server", "ratio", "least", "goal"]
    assert [line.split(" kept alive")[0] for line in table[2:6]] == [
        f"{size} bytes, {connections} connections" for connections in (10, 50) for size in (0, 1024)]
