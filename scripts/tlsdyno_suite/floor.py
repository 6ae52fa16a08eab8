"""The limit of a cell's unit of work on the subject's CPU, as tls-floor measures it: for a connection with its
handshake what the TLS library alone costs; for a transaction on a connection that stays, which is nearly all the
kernel's network work, what a bare relay costs."""
import json
import math
from dataclasses import dataclass
from pathlib import Path

from . import ciphers
from .cell import Cell
from .certificates import certificate
from .programs import built
from .units import format_time

# What the load generator's request and the header of the backend's answer take on the plain side of TLS. A few bytes
# more or less are nothing beside a record's own cost.
REQUEST_HEAD_BYTES = 48
RESPONSE_HEAD_BYTES = 67
DURATION_S = 0.5


@dataclass(frozen=True)
class Work:
    """One thing that tls-floor measures."""

    cert_key: str
    tls_version: str
    cipher: str
    group: str
    mode: str         # full, resumed, relay
    resume_with: str
    origin: str       # of a relay: tcp, unix
    request_bytes: int
    response_bytes: int


def shares(cell: Cell, resumes: bool = True) -> dict[Work, float]:
    """How much of each work one op of the cell is. Empty when there is no floor for it: handshakes without a request,
    connections of which nothing is asked."""
    if cell.requests_per_connection == 0 or cell.holds or cell.bursts:
        return {}

    def work(mode: str) -> Work:
        return Work(cell.cert_key, cell.tls_version, cell.cipher, cell.group, mode,
                    cell.resume_with if mode == "resumed" else "any", cell.backend if mode == "relay" else "",
                    cell.request_bytes, cell.response_bytes)

    if cell.requests_per_connection == "inf":
        return {work("relay"): 1.0}
    full = {"never": 1.0, "always": 0.0}.get(cell.reuse, 1.0 / (cell.reuse_period or 1)) if resumes else 1.0
    # Of N transactions on a connection the first comes with the handshake.
    first = 1.0 / int(cell.requests_per_connection)
    parts = {work("full"): full * first, work("resumed"): (1 - full) * first, work("relay"): 1 - first}
    return {each: share for each, share in parts.items() if share > 0}


def placement(work: Work, cpus: tuple[int, ...]) -> tuple[int, ...]:
    """The subject's CPU; of a relay also that of the client and the backend, for its peers."""
    return tuple(dict.fromkeys((cpus[0], cpus[-1]))) if work.mode == "relay" else cpus[:1]


def command(work: Work, cpus: tuple[int, ...], json_file: Path) -> list[str]:
    resuming = ["--resume-with", work.resume_with] if work.mode == "resumed" else []
    relaying = ["--origin", work.origin] if work.mode == "relay" else []
    exchanging = ["--group", work.group] if ciphers.has_group(work.cipher) else []
    return [
        str(built("tls-floor")), "--cert", str(certificate(work.cert_key)), "--tls-version", work.tls_version,
        "--cipher", work.cipher, *exchanging, "--mode", work.mode, *resuming, *relaying,
        "--request-bytes", str(REQUEST_HEAD_BYTES + work.request_bytes),
        "--response-bytes", str(RESPONSE_HEAD_BYTES + work.response_bytes),
        "--duration", format_time(DURATION_S), "--cpus", ",".join(map(str, placement(work, cpus))),
        "--json", str(json_file),
    ]


def read(path: Path) -> float:
    """CPU microseconds per op; ValueError with a reason when there is no figure."""
    try:
        cost = float(json.loads(path.read_text())["cpu_us_per_op"])
    except OSError as error:
        raise ValueError(f"tls-floor left no result: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("tls-floor's result has no cpu_us_per_op") from error
    if not cost > 0 or not math.isfinite(cost):
        raise ValueError(f"tls-floor's result has a cost of {cost:g}")
    return cost


@dataclass(frozen=True)
class Limit:
    """What an op of a cell costs at the least, or why that is not known."""

    cost_us: float | None
    kind: str    # library, relay, or both with a plus; empty where there is none
    reason: str  # why there is none; empty also where none is wanted


def limit(cell: Cell, measured: dict[Work, float | str], resumes: bool = True) -> Limit:
    """From what tls-floor measured: microseconds, or the reason why there are none."""
    parts = shares(cell, resumes)
    if not parts:
        return Limit(None, "", "" if cell.holds or cell.bursts else "tls-floor has no handshake without a request")
    cost_us = 0.0
    for work, share in parts.items():
        cost = measured[work]
        if isinstance(cost, str):
            return Limit(None, "", cost)
        cost_us += share * cost
    kinds = dict.fromkeys("relay" if work.mode == "relay" else "library" for work in parts)
    return Limit(cost_us, "+".join(kinds), "")
