"""Where results go: what cannot be written is told, and standard output has what was asked for and nothing else."""
from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest

from counting_server import LIMIT_S, serving, wait_for
from programs import name_of, program, run


def command(port: int, *options: str) -> list[str]:
    return [program("loadgen"), "-c", "1", "-n", "1", *options, f"http://127.0.0.1:{port}/"]


@pytest.mark.parametrize("option", ["--json", "--series", "--histogram"])
def test_a_result_that_is_lost_is_told(option: str) -> None:
    with serving(None) as server:
        to_file = subprocess.run(command(server.port, option, "/dev/full"), capture_output=True, text=True,
                                 timeout=LIMIT_S, check=False)
        with open("/dev/full", "w") as full:
            to_stdout = subprocess.run(command(server.port, option, "-"), stdout=full, stderr=subprocess.PIPE,
                                       text=True, timeout=LIMIT_S, check=False)
    for done, file in [(to_file, "/dev/full"), (to_stdout, "-")]:
        assert done.returncode == 1
        assert done.stderr == f"loadgen: {option}: {file}: No space left on device\n" or \
            done.stderr == f"loadgen: {option}: {file}: not all of it could be written\n"


def test_a_summary_that_is_lost_is_told() -> None:
    with serving(None) as server, open("/dev/full", "w") as full:
        done = subprocess.run(command(server.port), stdout=full, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S,
                              check=False)
    assert done.returncode == 1
    assert done.stderr == "loadgen: result: standard output: No space left on device\n"


def test_the_series_alone_may_be_on_standard_output() -> None:
    with serving(None) as server:
        done = run("loadgen", "-c", "1", "-d", "1500ms", "--series", "-", f"http://127.0.0.1:{server.port}/")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert done.returncode == 0 and len(rows) == 2
    assert all(row["phase"] == "measured" and float(row["transactions_per_s"]) > 0 and row["errors"] == "0"
               for row in rows)


def is_asleep(pid: int) -> bool:
    """As in an open() that waits for the other end of the pipe."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("option", ["--json", "--series", "--histogram"])
def test_who_reads_a_pipe_gets_all_of_it(tmp_path: Path, option: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader, serving(None) as server:
        wait_for(lambda: name_of(reader.pid) == "cat" and is_asleep(reader.pid))
        done = subprocess.run(command(server.port, option, str(pipe)), capture_output=True, text=True, timeout=LIMIT_S,
                              check=False)
        assert done.returncode == 0, done.stderr
        read = reader.communicate(timeout=LIMIT_S)[0]
    if option == "--json":
        assert json.loads(read)["transactions"] == 1
    else:
        assert {"--series": "elapsed_s,phase", "--histogram": "Value"}[option] in read


@pytest.mark.parametrize("option", ["--json", "--series", "--histogram"])
def test_a_pipe_that_nobody_reads_is_an_error_and_not_waited_for(tmp_path: Path, option: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with serving(None) as server:
        done = subprocess.run(command(server.port, option, str(pipe)), capture_output=True, text=True, timeout=LIMIT_S,
                              check=False)
    assert done.returncode == (2 if option == "--series" else 1)
    assert f"loadgen: {option}: {pipe}: No such device or address" in done.stderr
