"""The load generator of this project: its command line for a cell, and the JSON object it leaves."""
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cell import Cell, group_list
from ..placement import Placement, cpu_list
from ..processes import Failed
from ..programs import built
from ..units import format_time

ERROR_CLASSES = (
    "connect_refused", "connect_timeout", "address_unavailable", "fd_unavailable", "tls_alert", "tls_protocol",
    "tls_timeout", "reset", "unexpected_eof", "io_timeout", "http_status", "payload_mismatch",
)
HANDSHAKES = ("handshakes_full", "handshakes_resumed", "resume_offered", "resume_refused")
ARRIVALS = ("due", "never_begun", "unfinished_at_end")
MEASURED = (0, 1)  # exit statuses with a result: without and with errors

BURST_TIMEOUT = "1m"  # how long the last one has to wait is what is measured


@dataclass(frozen=True)
class Result:
    """What the load generator saw. The counts are those of the measured window; `totals` those of its whole life."""

    engine: str
    started_ns: int
    duration_s: float
    transactions: int
    handshakes_full: int
    handshakes_resumed: int
    resume_offered: int
    resume_refused: int
    bytes_received: int
    bytes_sent: int
    rates: dict[str, float]
    latency_us: dict[str, dict[str, float]]
    negotiated: list[dict[str, Any]]
    certificates: list[dict[str, Any]]  # each key seen in a full handshake and in how many, of its whole life
    errors: dict[str, int]  # of its whole life too: one in the warm-up is one
    totals: dict[str, Any]
    half_rates: tuple[float, float] | None  # ops a second in each half of the window
    body_bytes: tuple[int, int] | None      # the shortest and the longest body of a response
    open_loop: dict[str, int] | None = None  # what became of the arrivals; None in a closed loop
    tells: bool = True  # of handshakes, parameters, lengths and halves of the window
    held: int | None = None                  # connections that were open at the end of the window; None unless held
    cpu_s: float = 0.0                       # of the load generator itself, in the window

    @property
    def handshakes(self) -> int:
        return self.handshakes_full + self.handshakes_resumed

    @property
    def end_ns(self) -> int:
        return self.started_ns + round(self.duration_s * 1e9)


def command(cell: Cell, placement: Placement, address: str, duration_s: float, warmup_s: float,
            json_file: Path, owned: bool = False, plain: bool = False, others: Sequence[str] = ()) -> list[str]:
    """`owned`: the target need not be this machine. `plain`: it speaks no TLS. `others`: addresses of its other
    hosts."""
    body = ["--method", "POST", "--body-size", str(cell.request_bytes)] if cell.request_bytes else []
    path = "/" if cell.request_bytes else f"/?s={cell.response_bytes}"
    resuming = ["--resume-with", cell.resume_with] if cell.reuse != "never" else []
    # What every kind of load has.
    common = [*body, "--cpus", cpu_list(placement.client), "--json", str(json_file),
              *(["--i-own-the-target"] if owned else [])]
    if not plain:
        common += ["--tls-version", cell.tls_version, "--cipher", cell.cipher, "--group", group_list(cell)]
    urls = [f"{'http' if plain else 'https'}://{each}{path}" for each in (address, *others)]
    if cell.bursts:
        return [str(built("loadgen")), "--burst", str(cell.connections), "-w", "1", "--timeout", BURST_TIMEOUT, *common,
                *urls]
    loop = ["--hold"] if cell.holds else ["--requests-per-connection", str(cell.requests_per_connection)]
    loop += ["--rate", str(cell.rate_per_s)] if cell.rate_per_s else []
    ramp = ["--ramp", format_time(cell.ramp_s)] if cell.ramp_s else []
    loop += ["--sticky"] if cell.spread == "sticky" else []
    sessions = [] if plain else ["--reuse", cell.reuse, *resuming]
    workers = min(cell.load_workers or len(placement.client), cell.connections)
    return [
        str(built("loadgen")), "-c", str(cell.connections), "-w", str(workers),
        "-d", format_time(duration_s), "--warmup", format_time(warmup_s + cell.first_turn_s), *ramp, *sessions, *loop,
        *common, *urls,
    ]


def read(path: Path, plain: bool = False) -> Result:
    """ValueError with a reason when the file is not what the contract promises; Failed when it tells of a failure of
    the load generator itself, and may lack whatever it had no time for. `plain`: no TLS was spoken, so nothing is said
    of it."""
    try:
        data = json.loads(path.read_text())
        if plain:
            nothing = dict.fromkeys(HANDSHAKES, 0)
            data = {**nothing, **data, "totals": {**nothing, **data["totals"]}}
        if data.get("error"):
            raise Failed(f"load generator: {data['error']}")
        halves, bodies = data.get("half_rates"), data.get("response_body_bytes")
        arrivals, hold = data.get("open_loop"), data.get("hold")
        return Result(
            engine=data["engine"], started_ns=int(data["started_unix_ns"]), duration_s=float(data["duration_s"]),
            transactions=int(data.get("transactions", 0)), handshakes_full=int(data["handshakes_full"]),
            handshakes_resumed=int(data["handshakes_resumed"]), resume_offered=int(data["resume_offered"]),
            resume_refused=int(data["resume_refused"]), bytes_received=int(data["bytes_received"]),
            bytes_sent=int(data["bytes_sent"]), rates=data["rates"], latency_us=data.get("latency_us", {}),
            negotiated=data.get("negotiated", []), certificates=data.get("certificates", []),
            errors=data["totals"]["errors"], totals=data["totals"],
            half_rates=(float(halves["first"]), float(halves["second"])) if halves else None,
            body_bytes=(int(bodies["min"]), int(bodies["max"])) if bodies else None,
            open_loop={name: int(arrivals[name]) for name in ARRIVALS} if arrivals else None,
            held=int(hold["open_at_end"]) if hold else None,
            cpu_s=float(data["cpu"]["user_s"]) + float(data["cpu"]["system_s"]) if "cpu" in data else 0.0)
    except OSError as error:
        raise ValueError(f"the load generator left no result: {error.strerror}") from error
    except KeyError as error:
        raise ValueError(f"the load generator's result lacks {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the load generator's result cannot be read: {error}") from error
