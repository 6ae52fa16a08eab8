"""What a driver is. A driver knows one product: whether it is there, what it cannot do, and how to start it for a
cell.

Every product is set up as a blind relay (TLS in, TCP or UNIX socket out) with its session cache and tickets on in
every cell, for that is how it would be run; whether a session is resumed is the client's choice.

After a full handshake of TLS 1.3 each gives two tickets, OpenSSL's default, which most of them cannot be told to
change: the reference is told to do the same work, and so does the floor that all are held against. (One would be
enough, and the second costs the server a key derivation, an encryption and a write. With tickets off they give as
many that only name a session of the cache. reference-no-resume gives none: that is its point.)

Each is set up as those who make it say that it should be where speed counts: one worker or thread a core, no access
log, small writes sent at once, a listen queue that holds a burst (stunnel has no setting for it), room in its session
cache, and as many connections as the cell has. Ciphers and groups are the same for all. Buffers are what each product
has by default, for their sizes are part of what it is: they are why one is cheap with large objects, and why another is
small at rest.

Paths in a configuration are quoted as its product wants it. What no product can be told, check_paths refuses. """
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..cell import Cell
from ..programs import installed
from ..refusal import Refused

TICKETS = 2  # after a full handshake of TLS 1.3; tls-floor has the same number
SESSIONS = 20000  # room in a session cache: more than any cell opens at once
BACKLOG = 4096    # of the listening socket: all connections of most cells come at once


@dataclass(frozen=True)
class Task:
    """What a subject is asked to be."""

    cell: Cell
    cpus: tuple[int, ...]
    certificate: Path     # chain and key
    backend: str          # HOST:PORT or an absolute path
    port: int             # where to listen on 127.0.0.1; 0 when the product picks and reports one itself
    directory: Path       # for its configuration; gone after the cell
    # Of one of several hosts: where it listens, where it shows its statistics, and how it shares sessions.
    address: str = "127.0.0.1"
    statistics: str = "127.0.0.1:0"
    sharing: tuple[str, ...] = ()

    @property
    def backend_is_unix(self) -> bool:
        return self.backend.startswith("/")


@dataclass(frozen=True)
class Driver:
    name: str
    version: Callable[[], str | None]           # None: not installed
    cannot: Callable[[Cell], str | None]        # why a cell is beyond it, or None
    command: Callable[[Task], list[str]]        # writes the configuration, returns the command line
    reports_address: bool = False               # prints `listening on ADDR`, and takes port 0
    has_statistics: bool = False                # prints `stats on ADDR`, counters at /stats.json
    origin: bool = False                        # answers itself: it has no backend
    plain: bool = False                         # speaks no TLS, whatever the cell asks for
    variant: bool = False                       # of a product that has another driver
    external: bool = False                      # already running somewhere: nothing is started, no CPU time is seen
    farms: bool = False                         # there may be several hosts of it, which share sessions
    resumes: bool = True                        # False: each of its handshakes is full, whatever a client offers


# Beyond what quotes protect: they end hitch's strings, or name a variable in nginx or an address of haproxy, or end a
# line.
UNQUOTABLE = re.compile(r'["\\$\x00-\x1f\x7f]')


def check_paths(*directories: Path) -> None:
    """Refuses directories whose names cannot be written in every product's configuration."""
    for directory in directories:
        if found := UNQUOTABLE.search(str(directory)):
            raise Refused(ascii(str(directory)), "",
                          f"not every product's configuration can name this path: it holds the character {found[0]!r}")


def quoted(path: object) -> str:
    """For nginx and hitch. A path that check_paths let pass needs no more than quotes."""
    return f'"{path}"'


def no_queue(product: str, cell: Cell) -> str | None:
    return f"{product} has no queue for connections that the backend is not to have yet" if cell.maxconn else None


def can_all(_cell: Cell) -> str | None:
    return None


@cache
def printed_version(program: str, argument: str, pattern: str) -> str | None:
    """The version that an installed product prints of itself."""
    path = installed(program)
    if path is None:
        return None
    result = subprocess.run([path, argument], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = re.search(pattern, result.stdout + result.stderr)
    return found[1] if found else "unknown"


def path_of(program: str) -> str:
    path = installed(program)
    assert path is not None  # a cell of a product that is not installed was skipped before
    return path


def offers_tickets(cell: Cell) -> bool:
    """Cells that resume by session ID run without tickets, so that nothing else can be what resumed; and so do several
    hosts, unless the keys of tickets are what they share. (With TLS 1.3 they still give tickets, which only name a
    session of the cache.)"""
    return cell.resume_with != "id" if cell.hosts == 1 else cell.sharing == "ticket-keys"


def is_modern(cell: Cell) -> bool:
    return cell.tls_version == "TLSv1.3"


def is_weak(cell: Cell) -> bool:
    """Whether the library's default security level forbids what the cell asks for: an old version, a short key."""
    return cell.tls_version in ("TLSv1", "TLSv1.1") or cell.cert_key == "rsa:1024"


def cipher_list(cell: Cell) -> str:
    """For TLS 1.2 and before. What is weak is asked for openly."""
    cipher = "ECDHE-ECDSA-AES128-GCM-SHA256" if is_modern(cell) else cell.cipher
    return cipher + (":@SECLEVEL=0" if is_weak(cell) else "")
