"""results.csv: one row per cell and repeat, units in the names, an empty field for what was not measured."""
import contextlib
import csv
import fcntl
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import csv_input
from .cell import PARAMETERS, Cell, parameters
from .floor import Limit
from .loads.loadgen import ERROR_CLASSES
from .refusal import Refused
from .sharing import traffic
from .takeover import by_second
from .verdict import Evidence, Verdict, accepted_share, ops, resumed_share

IDENTITY = ("run_id", "scenario", "table",
            # The names of the bundles the cell came from, `axis=name;axis=name`: parameters that vary together have
            # no other common name, and tables that know nothing but this file pivot on it.
            "case",
            "repeat", "subject", "subject_version", "load_tool", "engine", "backend", "placement",
            # Where the hosts of a cell of several were: namespaces, or loopback.
            "network")
ASKED = ("cert_key", "tls_version", "cipher", "group", "reuse", "resume_with", "requests_per_connection",
         "request_bytes", "response_bytes", "connections", "cores", "loop", "load_workers", "maxconn",
         "service_model",          "target_rate_per_s",
         "hosts", "sharing", "spread", "failover")
AGREED = ("negotiated_version", "negotiated_cipher", "negotiated_group", "resumed_share")
RATES = ("handshakes_full_per_s", "handshakes_resumed_per_s", "connections_per_s", "transactions_per_s",
         "received_bytes_per_s", "sent_bytes_per_s")
PHASES = ("connect", "handshake", "ttfb", "transaction")
QUANTILES = ("mean", "p50", "p90", "p99", "p999", "max")
LATENCY = tuple(f"{phase}_{quantile}_us" for phase in PHASES for quantile in QUANTILES)
ROLES = ("subject", "client", "backend")
COST = (*(f"{role}_cpu_us_per_op" for role in ROLES), *(f"{role}_cpu_busy" for role in ROLES), "subject_rss_kib",
        # What the subject grew by while the connections of the cell were opened, divided by them. Held ones only.
        "subject_idle_kib_per_connection", "steal",
        # What a request took in the backend itself, as that counted it. With a service model only.
        "service_mean_ms")
LIMIT = ("capacity_per_core_per_s", "floor_cpu_us_per_op", "efficiency",
         # What the floor is of: library, relay, or library+relay.
         "floor_kind",
         # Why there is no floor. Not in `reason`: the row itself is sound, and its status says so.
         "floor_reason")
# Of several hosts. A share of the sessions that were offered says more than one of all handshakes where many offer
# none, and what sharing costs on the wire is of no other cell.
SHARING = ("resume_accepted_share", "sharing_datagrams_per_session", "sharing_bytes_per_session", "sharing_lag_us")
# Those that are left when one has died: before it, then in each second after, with blanks between them. How many
# seconds there are is the window's to say, so they cannot be columns.
SURVIVORS = ("survivor_resumed_share_by_second", "survivor_cpu_us_per_op_by_second", "survivor_cpu_busy_by_second")
VERDICT = ("status", "stands", "bound", "reason")
ERRORS = tuple(f"errors_{name}" for name in ERROR_CLASSES)

COLUMNS = (*IDENTITY, *ASKED, *AGREED, *RATES, *LATENCY, *COST, *LIMIT, *SHARING, *SURVIVORS,
           *VERDICT, *ERRORS)

# Numbers that differ from row to row. They hold no commas.
FIGURES = frozenset((*RATES, *LATENCY, *COST, *LIMIT[:3], *SHARING, *SURVIVORS))

POSITIVE = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
NUMBER = f"-?{POSITIVE}"
# What a column holds where it is not empty. Those that are not named hold any text.
FORMS = {
    **dict.fromkeys(FIGURES, NUMBER),
    **dict.fromkeys(("subject_cpu_us_per_op", "connections_per_s", "transactions_per_s"), POSITIVE),
    **dict.fromkeys(SURVIVORS, rf"(?:{NUMBER}|-)(?: (?:{NUMBER}|-))*"),
    "case": r"[^=;]+=[^=;]+(?:;[^=;]+=[^=;]+)*", "cores": r"\d+", "requests_per_connection": r"\d+|inf",
    "floor_kind": r"library|relay|library\+relay", "repeat": r"\d+", "status": "ok|invalid|skipped|failed",
    "stands": "all|cost",
}

# Columns that came later, and what they would have held in a run made before.
LATER = {"loop": "closed", "floor_kind": "library", "subject_idle_kib_per_connection": "",
         "load_workers": "0", "maxconn": "0", "service_model": "none", "service_mean_ms": "",
         "network": "", "hosts": "1", "sharing": "none", "spread": "turn", "failover": "none",
         **dict.fromkeys((*SHARING, *SURVIVORS), "")}

Row = dict[str, Any]


def asked_row(cell: Cell) -> Row:
    """What every row has, measured or not."""
    return {"case": cell.case, "subject": cell.subject, **parameters(cell), "target_rate_per_s": cell.rate_per_s}


def row_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run has one row of."""
    return tuple(str(row[name]) for name in ("repeat", "subject", "case", *PARAMETERS))


def agreed(evidence: Evidence, name: str) -> str:
    """One value, or all of them where the connections differ (such a row is invalid)."""
    return "+".join(dict.fromkeys(str(each[name]) for each in evidence.load.negotiated if each.get(name)))


def latency_row(evidence: Evidence) -> Row:
    """Of the two kinds of handshake the more frequent one is `handshake`: they differ too much to be averaged."""
    load = evidence.load
    kind = "handshake_resumed" if load.handshakes_resumed > load.handshakes_full else "handshake_full"
    row: Row = {}
    for phase in PHASES:
        measured = load.latency_us.get(kind if phase == "handshake" else phase, {})
        row.update({f"{phase}_{quantile}_us": measured.get(quantile) for quantile in QUANTILES})
    return row


def idle_kib(evidence: Evidence) -> float | None:
    memory = evidence.memory_kib
    if not evidence.cell.holds or memory is None:
        return None
    return (memory[1] - memory[0]) / evidence.cell.connections


def measured_row(evidence: Evidence, verdict: Verdict, rss_kib: int, limit: Limit) -> Row:
    cell, load = evidence.cell, evidence.load
    done = ops(cell, load)
    # Connections that rest have no op with a cost, and no rate; nor has a burst, which is over before there is one, nor
    # a window in which a host dies.
    at_work = done and cell.has_pace
    cpu_us = {role: 1e6 * seconds / done for role, seconds in evidence.cpu_s.items()} if at_work else {}
    rates = load.rates if cell.has_pace else {}
    passed = traffic(evidence.hosts)
    cores = {role: getattr(evidence.placement, role) for role in ROLES}
    subject_us = cpu_us.get("subject")
    return {
        "engine": load.engine, "placement": str(evidence.placement), "network": evidence.network,
        "target_rate_per_s": cell.rate_per_s,
        "negotiated_version": agreed(evidence, "tls_version"), "negotiated_cipher": agreed(evidence, "cipher"),
        "negotiated_group": agreed(evidence, "group"), "resumed_share": resumed_share(load),
        **{name: rates.get(name) for name in RATES[:4]},
        "received_bytes_per_s": load.bytes_received / load.duration_s if load.duration_s else None,
        "sent_bytes_per_s": load.bytes_sent / load.duration_s if load.duration_s else None,
        **latency_row(evidence),
        **{f"{role}_cpu_us_per_op": value for role, value in cpu_us.items()},
        **{f"{role}_cpu_busy": seconds / (load.duration_s * len(cores[role])) if load.duration_s else None
           for role, seconds in evidence.cpu_s.items()},
        "subject_rss_kib": rss_kib or None, "steal": evidence.steal,
        "subject_idle_kib_per_connection": idle_kib(evidence), "service_mean_ms": evidence.service_mean_ms,
        "capacity_per_core_per_s": 1e6 / subject_us if subject_us else None,
        "floor_cpu_us_per_op": limit.cost_us, "floor_kind": limit.kind, "floor_reason": limit.reason,
        "efficiency": limit.cost_us / subject_us if subject_us and limit.cost_us else None,
        "resume_accepted_share": accepted_share(load) if evidence.network else None,
        "sharing_datagrams_per_session": passed.datagrams_per_session,
        "sharing_bytes_per_session": passed.bytes_per_session, "sharing_lag_us": passed.lag_us,
        **{f"survivor_{figure}_by_second": by_second(evidence.takeover, figure)
           for figure in ("resumed_share", "cpu_us_per_op", "cpu_busy")},
        "status": verdict.status, "stands": verdict.stands, "bound": verdict.bound, "reason": verdict.reason,
        **{f"errors_{name}": load.errors.get(name) for name in ERROR_CLASSES},
    }


def field(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value)


class Recorder:
    """Appends rows. Each is one whole line, then on the disk: what was measured survives whatever comes. A disk that is
    full is a Refused that names the file; the file still ends with a whole line. One run at a time has a file: it is
    locked as long as it is open.

    With `resumed` the file may be there already; half a line at its end, of a run that was killed, is cut off."""

    def __init__(self, path: Path, resumed: bool = False) -> None:
        self._path = path
        try:
            self._file = path.open("a+b" if resumed else "xb", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.seek(0)
            whole = self._file.read() if resumed else b""
        except BlockingIOError as error:
            raise Refused(path, "", "another run is writing it") from error
        except OSError as error:
            raise Refused(path, "", error.strerror or str(error)) from error
        self._file.truncate(whole.rfind(b"\n") + 1)
        if not whole.count(b"\n"):
            self._append(dict(zip(COLUMNS, COLUMNS)))
        elif whole.split(b"\n", 1)[0].decode(errors="replace") != ",".join(COLUMNS):
            raise Refused(path, "row 1", "has other columns: it is of another version of tlsdyno")

    def _append(self, fields: dict[str, str]) -> None:
        line = io.StringIO()
        csv.DictWriter(line, COLUMNS, lineterminator="\n").writerow(fields)
        # A path may hold bytes that are no text; they are shown, not refused, when everything has been measured.
        left = line.getvalue().encode(errors="backslashreplace")
        begin = self._file.seek(0, os.SEEK_END)
        try:
            while left:
                left = left[self._file.write(left):]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(begin)
            raise Refused(self._path, "", error.strerror or str(error)) from error

    def write(self, row: Row) -> None:
        self._append({name: field(row.get(name)) for name in COLUMNS})

    def close(self) -> None:
        self._file.close()


class ReadRow(Mapping[str, str]):
    """A row as it was read, in little memory: the texts of a run are few and shared, its figures one string that is
    split when one of them is asked for."""

    __slots__ = ("_place", "_texts", "_figures")

    def __init__(self, place: dict[str, int], texts: tuple[str, ...], figures: str) -> None:
        self._place, self._texts, self._figures = place, texts, figures

    def __getitem__(self, name: str) -> str:
        place = self._place[name]
        return self._texts[place] if place >= 0 else self._figures.split(",")[-1 - place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)


def misfit(header: list[str], fields: list[str]) -> str | None:
    """What stands in a row, in a column that cannot hold it."""
    for name, value in zip(header, fields):
        if value and not re.fullmatch(FORMS.get(name, ".*"), value, re.DOTALL):
            return f"{name}: '{value}' is " + ("no such figure" if name in FIGURES else "none")
    return None


def compact(reader: Iterator[list[str]], header: list[str], path: Path) -> list[Mapping[str, str]]:
    figures = [number for number, name in enumerate(header) if name in FIGURES]
    texts = [number for number, name in enumerate(header) if name not in FIGURES]
    later = [(name, value) for name, value in LATER.items() if name not in header]
    place = {header[number]: at for at, number in enumerate(texts)}
    place |= {name: len(texts) + at for at, (name, _) in enumerate(later)}
    place |= {header[number]: -1 - at for at, number in enumerate(figures)}
    older = tuple(value for _, value in later)
    # All figures of a row are looked at together, and each combination of texts once: there are many rows.
    sound = re.compile(",".join(f"(?:{FORMS[header[at]]})?" for at in figures))
    formed = [at for at in texts if header[at] in FORMS]
    known: set[tuple[str, ...]] = set()
    shared: dict[str, str] = {}
    rows: list[Mapping[str, str]] = []
    for fields in reader:
        if len(fields) != len(header):
            raise Refused(path, f"row {len(rows) + 2}", "has not as many fields as there are columns")
        words = [shared.setdefault(fields[at], fields[at]) for at in texts]
        numbers = ",".join([fields[at] for at in figures])
        said = tuple([fields[at] for at in formed])
        if (said not in known or not sound.fullmatch(numbers)) and (wrong := misfit(header, fields)):
            raise Refused(path, f"row {len(rows) + 2}", wrong)
        known.add(said)
        rows.append(ReadRow(place, tuple(words) + older, numbers))
    return rows


def read(path: Path, half_line: bool = False) -> list[Mapping[str, str]]:
    """Rows of a results.csv, also of a copy of one elsewhere. With `half_line` what stands after the last end of a line
    is no row."""
    if path.is_dir():
        path = path / "results.csv"
    with csv_input.opened(path) as file:
        if path.stat().st_size == 0:
            raise Refused(path, "", "the file is empty")
        reader = csv.reader(line for line in file if line.endswith("\n")) if half_line else csv.reader(file)
        header = next(reader)
        for name in COLUMNS:
            if name not in header and name not in LATER:
                raise Refused(path, name, "no such column: this is not a results.csv")
        return compact(reader, header, path)
