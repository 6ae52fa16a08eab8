"""The CSV of "Writing a high performance TLS terminating proxy in Rust": a line for each run of wrk, without a header,
its columns config,size,requests,mean,stdev,p50,p90,p99, times in microseconds."""
from collections.abc import Mapping
from pathlib import Path

from .refusal import Refused

FILE = "tls-bench.csv"


def append(directory: Path, line: str) -> None:
    path = directory / FILE
    try:
        with path.open("a") as file:
            file.write(line + "\n")
    except OSError as error:
        raise Refused(path, "", error.strerror or str(error)) from error


def cut(directory: Path, rows: list[Mapping[str, str]]) -> None:
    """To the lines of the rows that were kept: a run that was killed may have written one more."""
    path = directory / FILE
    kept = sum(1 for row in rows if row["load_tool"] == "wrk" and row["status"] in ("ok", "invalid"))
    if path.exists():
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
