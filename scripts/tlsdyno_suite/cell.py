"""A cell: one subject and one value of every parameter, so one thing to measure. Combinations that mean nothing are
known here."""
from dataclasses import dataclass, fields, replace

from . import ciphers, groups

# What a scenario may ask for, in the order of the columns of results.csv.
PARAMETERS = (
    "cert_key", "tls_version", "cipher", "group", "reuse", "resume_with", "requests_per_connection",
    "request_bytes", "response_bytes", "connections", "cores", "backend", "loop", "load_tool",
    "load_workers", "maxconn", "service_model",
    "hosts", "sharing", "spread", "failover",
)

# Parameters a scenario need not name. The others have no value that everybody would expect.
DEFAULTS: dict[str, int | str] = {
    "group": "X25519", "reuse": "never", "resume_with": "any", "requests_per_connection": 1,
    "request_bytes": 0, "response_bytes": 0, "cores": 1, "backend": "tcp", "loop": "closed",
    "load_tool": "loadgen", "load_workers": 0, "maxconn": 0, "service_model": "none",
    "hosts": 1, "sharing": "none", "spread": "turn", "failover": "none",
}

# More connections than this are not begun all at once: a listen queue would not hold them, and the last ones would wait
# for their handshakes as long as a client waits. They come at a pace that the slowest product follows with ECDSA.
AT_ONCE = 1000
OPENED_PER_S = 750

# Clients that come again and again with a session, in turn, until one of their hosts dies, and then still some time.
TURN_S = 1.2          # until each has its turn, where the rate, and with it their number, follows the subject's
FIRST_AT_ONCE = 50    # more of them than this get their first sessions one after the other, in as long as
FIRST_TURNS = 8       # so many turns take: with RSA a full handshake costs five times as much as a resumed one
FIRST_AT_MOST_S = 12  # where they come seldom
LATE_TURNS = 1.5      # those that are late then have so long to catch up


@dataclass(frozen=True)
class Cell:
    subject: str
    case: str  # the names of the bundles it was made from, `axis=name;axis=name`; empty without bundles
    cert_key: str
    tls_version: str
    cipher: str
    group: str
    reuse: str
    resume_with: str
    requests_per_connection: int | str
    request_bytes: int   # body of a POST; 0 for a GET
    response_bytes: int
    connections: int
    cores: int
    backend: str
    # closed: each connection begins its next transaction when its last has ended; rate:R, rate:P%: of what a closed
    # loop does; hold: they rest; burst: all at once, one transaction each; search:MEAN,LOSS: the highest rate that
    # meets the two
    loop: str
    load_tool: str = "loadgen"  # or wrk
    load_workers: int = 0  # processes of the load generator; 0: one for each of its CPUs
    maxconn: int = 0  # connections that the subject may have to the backend at a time, the others wait; 0: no limit
    service_model: str = "none"  # how long the backend takes for a request, as echo-backend spells it
    hosts: int = 1         # how many of the subject, each as if on a machine of its own; `cores` is of each
    sharing: str = "none"  # what they tell each other: none; unicast, multicast, pull: sessions; ticket-keys
    # Of several hosts: turn: each client's next connection goes to the next host; sticky: it stays with one, until
    # that is lost
    spread: str = "turn"
    failover: str = "none"  # kill: the last host is killed in the middle of the window

    @property
    def keeps_alive(self) -> bool:
        """Whether the cell's unit of work is a transaction on a connection that is already there."""
        return self.requests_per_connection == "inf" or int(self.requests_per_connection) > 1

    @property
    def holds(self) -> bool:
        """Whether the connections only have to be there: what is measured is the memory that they take."""
        return self.loop == "hold"

    @property
    def searches(self) -> bool:
        return self.loop.startswith("search:")

    @property
    def bursts(self) -> bool:
        return self.loop == "burst"

    @property
    def fails_over(self) -> bool:
        return self.failover != "none"

    @property
    def has_pace(self) -> bool:
        """Whether the whole window is of one kind, so that there is a rate, and a cost of an op."""
        return not self.holds and not self.bursts and not self.fails_over

    @property
    def rate_per_s(self) -> int | None:
        """R of `rate:R`, None otherwise."""
        return int(self.loop.partition(":")[2]) if self.loop.startswith("rate:") and not self.rate_share else None

    @property
    def rate_share(self) -> float | None:
        """P of `rate:P%` as a share, None otherwise."""
        return float(self.loop[len("rate:"):-1]) / 100 if self.loop.endswith("%") else None

    @property
    def ramp_s(self) -> float:
        """Time to open the connections in, before the warm-up."""
        if self.fails_over and self.turn_s:
            return min(FIRST_TURNS * self.turn_s, FIRST_AT_MOST_S) if self.connections > FIRST_AT_ONCE else 0.0
        return 0.0 if self.connections <= AT_ONCE or self.bursts else self.connections / OPENED_PER_S

    @property
    def turn_s(self) -> float:
        """Time in which all clients of an open loop have their turn; 0 in other loops."""
        return TURN_S if self.rate_share else self.connections / self.rate_per_s if self.rate_per_s else 0.0

    @property
    def first_turn_s(self) -> float:
        """Time for each client to get the session that it is to come back with, where a host is lost; the warm-up is
        longer by it. In an open loop their first turns, with full handshakes, may be late."""
        if not self.fails_over:
            return 0.0
        return LATE_TURNS * self.turn_s or self.connections / OPENED_PER_S

    def at_rate(self, rate_per_s: int) -> "Cell":
        """The cell with that rate instead of a share. Where a host is to die, with as many of the connections as have
        their turn in TURN_S: else whether all of the dead one's come over in the window is up to the machine."""
        clients = max(self.hosts, round(TURN_S * rate_per_s)) if self.fails_over else self.connections
        return replace(self, loop=f"rate:{rate_per_s}", connections=min(self.connections, clients))

    @property
    def lead_s(self) -> float:
        """All that comes before the scenario's own warm-up."""
        return self.ramp_s + self.first_turn_s

    @property
    def reuse_period(self) -> int | None:
        """N of `every:N`, None otherwise."""
        return int(self.reuse.partition(":")[2]) if self.reuse.startswith("every:") else None

    @property
    def label(self) -> str:
        """Short, for a progress line and for file names: the bundles, or else what a reader most wants to know."""
        if self.case:
            return "/".join(pair.partition("=")[2] for pair in self.case.split(";"))
        return f"{self.tls_version}/{self.cert_key}/{self.reuse}/{self.requests_per_connection}"


def parameters(cell: Cell) -> dict[str, int | str]:
    return {field.name: getattr(cell, field.name) for field in fields(cell) if field.name in PARAMETERS}


def group_list(cell: Cell) -> str:
    """What both sides are told. Before TLS 1.3 the curve of an ECDSA key must be among the groups, or its certificate
    cannot be used (RFC 8422, 5.1)."""
    curve = cell.cert_key.partition("ecdsa:")[2]
    if cell.tls_version == "TLSv1.3" or not curve or curve == cell.group:
        return cell.group
    return f"{cell.group}:{curve}"


def contradiction(cell: Cell) -> str | None:
    """Why nobody could measure this combination, or None. Crossed axes make such cells; they become skipped rows."""
    modern = cell.tls_version == "TLSv1.3"
    if cell.group in groups.HYBRIDS and not modern:
        return f"{cell.group} is a group of TLS 1.3"
    if reason := groups.unknown(cell.group):
        return reason
    if reason := ciphers.unknown(cell.cipher) or ciphers.mismatch(cell.cipher, cell.tls_version, cell.cert_key):
        return reason
    if cell.cert_key == "ed25519" and cell.tls_version in ("TLSv1", "TLSv1.1"):
        return f"{cell.tls_version} has no signatures with a key {cell.cert_key}"
    if cell.requests_per_connection == "inf" and cell.reuse != "never":
        return "a connection that is kept for ever never resumes a session"
    if cell.holds and cell.requests_per_connection != "inf":
        return "a connection that is held is kept for ever (requests_per_connection = 'inf')"
    if cell.reuse != "never" and cell.resume_with == "id" and modern:
        return "TLS 1.3 has no session IDs to resume with"
    if cell.bursts and (cell.requests_per_connection != 1 or cell.reuse != "never"):
        return "a burst is of new connections with one request each"
    if cell.load_tool == "wrk" and (cell.requests_per_connection != "inf" or cell.loop != "closed"):
        return "wrk keeps its connections, and asks again as soon as it was answered"
    if reason := alone(cell) if cell.hosts == 1 else together(cell):
        return reason
    if cell.request_bytes and cell.response_bytes != cell.request_bytes:
        return "a POST is answered with its own body, so request_bytes and response_bytes are the same"
    return None


def alone(cell: Cell) -> str | None:
    """What one host cannot do."""
    if cell.sharing != "none":
        return f"one host has nobody to share with (sharing = {cell.sharing})"
    if cell.fails_over:
        return f"one host leaves nobody behind (failover = {cell.failover})"
    return "one host is the only one to stay with (spread = sticky)" if cell.spread != "turn" else None


def together(cell: Cell) -> str | None:
    """What nobody could learn from several hosts."""
    if cell.requests_per_connection == "inf" or cell.bursts or cell.searches or cell.load_tool != "loadgen":
        return "several hosts are asked by connections that come again, of loadgen, closed or with a rate"
    if cell.service_model != "none":
        return "how long a backend took is not asked where there are several hosts"
    if cell.sharing == "ticket-keys" and cell.resume_with == "id":
        return "hosts that share keys of tickets share no session IDs"
    if cell.sharing != "ticket-keys" and cell.resume_with == "ticket" and cell.tls_version != "TLSv1.3":
        return f"hosts with sharing = {cell.sharing} give no tickets before TLS 1.3"
    if cell.fails_over and (cell.spread != "sticky" or cell.reuse != "always"):
        return "whose host is lost is known of clients that stay with theirs (spread = sticky, reuse = always)"
    return None
