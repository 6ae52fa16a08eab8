"""Proxies that share sessions, as if each were a host of its own, and the wires between them, which a test may cut,
tap and spoil."""
from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from programs import Running, children, name_of, running
from proxies import backend, client_context, connected, counters, echo, eventually

Address = tuple[str, int]


def address_of(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


def is_to_all(datagram: bytes) -> bool:
    return datagram[20:24] == bytes(4)


def holds_sessions(datagram: bytes) -> bool:
    """Where there are no keys of tickets, which make a sign of life as long."""
    return is_to_all(datagram) and len(datagram) > 150


def as_it_is(datagram: bytes) -> list[bytes]:
    return [datagram]


class Wire:
    """
    What one host sends, on its way to another, and the answers on their way back. `carry` makes of each datagram those
    that go on; `seen` has all that the first host sent, as it sent them.
    """

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.own: Address = self.socket.getsockname()
        self.address = "127.0.0.1:%d" % self.own[1]
        self.ends: tuple[Address, Address] | None = None  # from, to
        self.carry: Callable[[bytes], list[bytes]] = as_it_is
        self.carry_back: Callable[[bytes], list[bytes]] = as_it_is
        self.seen: list[bytes] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not select.select([self.socket], [], [], 0.1)[0]:
                continue
            with contextlib.suppress(OSError):
                self._pass_on(*self.socket.recvfrom(65536))

    def _pass_on(self, datagram: bytes, source: Address) -> None:
        if not datagram:  # hosts send none that is empty
            self.socket.sendto(datagram, source)
        if not datagram or not self.ends:
            return
        back = source == self.ends[1]
        if not back:
            self.seen.append(datagram)
        for one in (self.carry_back if back else self.carry)(datagram):
            self.socket.sendto(one, self.ends[0 if back else 1])

    def inject(self, datagram: bytes) -> None:
        """As if the first host had sent it."""
        assert self.ends
        self.socket.sendto(datagram, self.ends[1])

    def come_through(self) -> None:
        """Until all that is on its way by now has gone on."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marker:
            marker.settimeout(60)
            marker.sendto(b"", self.own)
            marker.recv(1)

    def connect(self, one: Running, other: Running) -> None:
        self.ends = (address_of(one.announced["shared cache"]), address_of(other.announced["shared cache"]))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self.socket.close()


@dataclass
class Farm:
    hosts: list[Running]
    wires: dict[tuple[int, int], Wire] = field(default_factory=dict)  # from, to

    def spoil(self, carry: Callable[[bytes], list[bytes]]) -> None:
        """What is done on every wire, both ways."""
        for wire in self.wires.values():
            wire.carry = wire.carry_back = carry


def shared(host: Running) -> dict:
    return counters(host)["shared_cache"]


def rejected(host: Running) -> dict[str, int]:
    """What was not taken, without reasons that did not occur."""
    return {reason: count for reason, count in shared(host)["rejected"].items() if count}


@contextlib.contextmanager
def host(to: str, certificate: str, *options: str, within: Sequence[str] = ()) -> Iterator[Running]:
    with running("proxy", "-f", "127.0.0.1:0", "-b", to, "--stats", "127.0.0.1:0", "-U", "127.0.0.1:0", *options,
                 certificate, within=within) as server:
        yield server


@contextlib.contextmanager
def farm(certificate: str, *options: str, own: tuple[list[str], ...] = ([], []), meet: bool = True,
         within: Sequence[Sequence[str]] = ((), (), ())) -> Iterator[Farm]:
    """As many hosts as there are lists of options of their `own`, each with a wire to each other; each started within
    a command of its own."""
    count = len(own)
    wires = {(one, other): Wire() for one in range(count) for other in range(count) if one != other}
    with contextlib.ExitStack() as stack:
        for wire in wires.values():
            stack.callback(wire.close)
        to = stack.enter_context(backend(echo))
        hosts = []
        for one in range(count):
            peers = [option for other in range(count) if other != one for option in ("-P", wires[one, other].address)]
            hosts.append(stack.enter_context(host(to, certificate, *peers, *options, *own[one], within=within[one])))
        for (one, other), wire in wires.items():
            wire.connect(hosts[one], hosts[other])
        if meet:
            for one_host in hosts:
                have_met(one_host, count - 1)
            settled(*hosts, wires=wires.values())
        yield Farm(hosts, wires)


def have_met(one_host: Running, peers: int) -> None:
    """Until so many peers have proven themselves to the host and told it all."""
    eventually(lambda: shared(one_host)["peers"] == peers and shared(one_host)["catch_ups_done"] >= peers,
               f"{peers} peers are met")


def settled(*hosts: Running, wires: Iterable[Wire] = ()) -> None:
    """
    Until hosts that have met have taken all that was still on its way to them, such as what was asked for twice because
    the answer took its time, and the answers to that. Each rejects one datagram as not_ours for it, twice.
    """
    for _ in range(2):
        for wire in wires:
            wire.come_through()
        before = [shared(one)["rejected"]["not_ours"] for one in hosts]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marker:
            for one in hosts:
                marker.sendto(b"marker", address_of(one.announced["shared cache"]))
        for one, had in zip(hosts, before):
            eventually(lambda: shared(one)["rejected"]["not_ours"] > had, "it takes what has come in turn")


def by_id(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
    """A client that resumes by session ID, whether the server has tickets or not."""
    context = client_context(version)
    context.options |= ssl.OP_NO_TICKET
    return context


def hello_for(session: bytes) -> bytes:
    """A ClientHello of TLS 1.2 that asks for this session."""
    waiting = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        by_id().wrap_bio(ssl.MemoryBIO(), waiting).do_handshake()
    whole = waiting.read()
    body = whole[9:43] + bytes([len(session)]) + session + whole[44 + whole[43]:]
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return whole[:3] + len(handshake).to_bytes(2, "big") + handshake


def visit(server: Running, context: ssl.SSLContext,
          session: ssl.SSLSession | None = None) -> tuple[bool, ssl.SSLSession]:
    """Whether the session was resumed, and the one to resume next."""
    with connected(server, context, session) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        assert tls.session
        return bool(tls.session_reused), tls.session


def applied(host_there: Running, count: int) -> None:
    eventually(lambda: shared(host_there)["sessions_applied"] >= count, f"{count} sessions have come")


def sync_process(server: Running) -> int:
    """0: there is none now."""
    return next((pid for pid in children(server.process.pid) if name_of(pid) == "proxy-sync"), 0)
