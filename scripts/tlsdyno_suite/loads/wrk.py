"""wrk, with a Lua script that leaves its result. It says nothing of handshakes, of what was negotiated or of the length
of an answer, and its window begins with its first connection: what is not said is not judged."""
import json
import math
import os
from pathlib import Path

from ..cell import Cell
from ..placement import Placement
from ..programs import installed
from .loadgen import ERROR_CLASSES, Result

MEASURED = (0,)
SCRIPT = Path(__file__).with_suffix(".lua")
# Its window begins with its process, and the CPU clocks have to be read before that.
DELAYED = ("sh", "-c", 'sleep 0.2; exec "$@"', "sh")
LONGEST_WAIT = "30s"  # thousands of connections that begin at once have to wait for their handshakes
# Its errors, and what they are called here: wrk reports the end of a connection as a failed read.
ERRORS = {"connect": "connect_refused", "read": "unexpected_eof", "write": "reset", "status": "http_status",
          "timeout": "io_timeout"}


def missing() -> str | None:
    return None if installed("wrk") else "wrk is not installed (scripts/install-deps bench-loadgen)"


def row_file(json_file: Path) -> Path:
    """Where the article's row is."""
    return json_file.with_suffix(".row")


def command(cell: Cell, placement: Placement, url: str, duration_s: float, json_file: Path) -> list[str]:
    """wrk knows whole seconds, and no warm-up. It opens its connections as it goes: the time for that comes on top, so
    that there is some left."""
    values = {"CONFIG": cell.subject, "BODY": cell.request_bytes, "ROW": row_file(json_file), "RESULT": json_file}
    threads = min(len(placement.client), cell.connections)
    path = "/" if cell.request_bytes else f"/?s={cell.response_bytes}"
    length_s = max(1, math.ceil(duration_s + cell.ramp_s))
    return [*DELAYED, "env", *(f"TLSDYNO_{name}={value}" for name, value in values.items()), installed("wrk") or "wrk",
            f"-t{threads}", f"-c{cell.connections}", f"-d{length_s}s", "--timeout", LONGEST_WAIT,
            "-s", str(SCRIPT), url + path]


def read(path: Path) -> Result:
    """ValueError with a reason when there is no result."""
    try:
        data = json.loads(path.read_text())
        duration_s = int(data["duration_us"]) / 1e6
        errors = dict.fromkeys(ERROR_CLASSES, 0)
        errors |= {ours: int(data["errors"][its]) for its, ours in ERRORS.items()}
        # Its window ends when it writes this file.
        ended_ns = os.stat(path).st_mtime_ns
        return Result(
            engine="wrk", started_ns=ended_ns - int(duration_s * 1e9), duration_s=duration_s,
            transactions=int(data["requests"]), handshakes_full=0, handshakes_resumed=0, resume_offered=0,
            resume_refused=0, bytes_received=int(data["bytes"]), bytes_sent=0,
            rates={"transactions_per_s": data["requests"] / duration_s},
            latency_us={"transaction": data["latency_us"]} if data["requests"] else {}, negotiated=[], certificates=[],
            errors=errors, totals={"handshakes_full": 0, "handshakes_resumed": 0, "errors": errors},
            half_rates=None, body_bytes=None, tells=False)
    except OSError as error:
        raise ValueError(f"wrk left no result: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"wrk's result cannot be read: {error}") from error
