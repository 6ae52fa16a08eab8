"""The limit: what the TLS library alone costs on the subject's CPU for a cell's unit of work, as tls-floor measures
it."""
import json
from dataclasses import dataclass
from pathlib import Path

from .cell import Cell
from .certificates import certificate
from .placement import cpu_list
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
    mode: str         # full, resumed, keep-alive
    resume_with: str
    request_bytes: int
    response_bytes: int


def shares(cell: Cell) -> dict[Work, float]:
    """How much of each work one op of the cell is. Empty when there is no floor for it (handshakes without a
    request)."""
    if cell.requests_per_connection == 0:
        return {}

    def work(mode: str) -> Work:
        return Work(cell.cert_key, cell.tls_version, cell.cipher, cell.group, mode,
                    cell.resume_with if mode == "resumed" else "any", cell.request_bytes,
                    cell.response_bytes)

    if cell.requests_per_connection == "inf":
        return {work("keep-alive"): 1.0}
    full = {"never": 1.0, "always": 0.0}.get(cell.reuse, 1.0 / (cell.reuse_period or 1))
    # Of N transactions on a connection the first comes with the handshake.
    first = 1.0 / int(cell.requests_per_connection)
    parts = {work("full"): full * first, work("resumed"): (1 - full) * first, work("keep-alive"): 1 - first}
    return {each: share for each, share in parts.items() if share > 0}


def command(work: Work, cpus: tuple[int, ...], json_file: Path) -> list[str]:
    resuming = ["--resume-with", work.resume_with] if work.mode == "resumed" else []
    return [
        str(built("tls-floor")), "--cert", str(certificate(work.cert_key)), "--tls-version", work.tls_version,
        "--cipher", work.cipher, "--group", work.group, "--mode", work.mode, *resuming,
        "--request-bytes", str(REQUEST_HEAD_BYTES + work.request_bytes),
        "--response-bytes", str(RESPONSE_HEAD_BYTES + work.response_bytes),
        "--duration", format_time(DURATION_S), "--cpus", cpu_list(cpus[:1]), "--json", str(json_file),
    ]


def read(path: Path) -> float | None:
    """CPU microseconds per op; None when there is no figure."""
    try:
        return float(json.loads(path.read_text())["cpu_us_per_op"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cost_us(cell: Cell, measured: dict[Work, float]) -> float | None:
    parts = shares(cell)
    if not parts or any(work not in measured for work in parts):
        return None
    return sum(share * measured[work] for work, share in parts.items())
