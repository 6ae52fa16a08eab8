"""What it costs to resume a session among a million, beside one among a thousand: proxies that were given so many, all
asked at once for any of theirs, as the arms of `ab` are (block.py).

The sessions are made up, and told to each proxy in stud's format, of which a datagram is one session and which asks for
no proof of who speaks. session-resumer knows them too: ID and secret of each are digests of its number."""
import contextlib
import hashlib
import hmac
import math
import random
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import block, counters
from .certificates import certificate
from .loading import printed_address
from .placement import Placement
from .processes import Failed, Program, crew, describe_end, start, wait_until_ready
from .programs import built
from .runner import READY_LIMIT_S

PORTION_S = 0.24     # CPU time of an arm
WARM_UP = 400        # handshakes
LIMIT_S = 60.0       # of one portion
ROOM = 10 / 9        # shards fill unevenly: none is full when all together are to nine tenths
WINDOW = 400         # datagrams that may be under way: what a socket without the right to more has room for
ID_BYTES, SECRET_BYTES = 32, 48
OCTETS = b"\x04"     # ASN.1: the ID, and the secret behind it, as they lie in a session


def session_id(number: int) -> bytes:
    return hashlib.sha256(b"\0" + number.to_bytes(8, "big")).digest()


def secret(number: int) -> bytes:
    return hashlib.sha384(b"\1" + number.to_bytes(8, "big")).digest()


def datagram(key: bytes, like: bytes, number: int, born_s: int) -> bytes:
    """stud's, of the session of that number, which is like another but for ID and secret."""
    own_id = session_id(number)
    at = like.index(OCTETS + bytes([ID_BYTES])) + 2
    rest = at + ID_BYTES + 2 + SECRET_BYTES
    made = like[:at] + own_id + OCTETS + bytes([SECRET_BYTES]) + secret(number) + like[rest:]
    packet = own_id + made + struct.pack(">I", born_s)
    return packet + hmac.digest(key, packet, "sha1")


@dataclass
class Holder:
    """A proxy, and how many sessions it was given."""

    program: Program
    address: str
    clocks: block.Clocks
    sessions: int

    def counted(self) -> dict[str, Any]:
        return counters.read(printed_address(self.program, "stats") or "")


def learn(listener: socket.socket, address: str) -> bytes:
    """A session of the proxy as it tells of it: of a client that comes for no other reason."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain, context.wrap_socket(plain):
        packet = listener.recv(2048)
    return packet[ID_BYTES:-24]


def fill(holder: Holder, listener: socket.socket, key: bytes) -> None:
    like = learn(listener, holder.address)
    host, _, port = (printed_address(holder.program, "shared cache") or "").rpartition(":")
    listener.connect((host, int(port)))
    before = holder.counted()["shared_cache"]["sessions_applied"]
    born_s = int(time.time())
    for first in range(0, holder.sessions, WINDOW):
        last = min(first + WINDOW, holder.sessions)
        for number in range(first, last):
            listener.send(datagram(key, like, number, born_s))
        deadline = time.monotonic() + READY_LIMIT_S
        while (applied := holder.counted()["shared_cache"]["sessions_applied"] - before) < last:
            if time.monotonic() > deadline:
                raise Failed(f"of {last} sessions that it was told of, a proxy has {applied}")


def start_holder(sessions: int, most: int, placement: Placement, directory: Path, name: str,
                 programs: list[Program]) -> Holder:
    key_file = directory / "cluster.key"
    key_file.write_bytes(b"of no use to anybody")
    net = random.SystemRandom().randrange(1, 255)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((f"127.79.{net}.1", 0))
        listener.settimeout(READY_LIMIT_S)
        own, peer = f"127.79.{net}.2:0", "{}:{}".format(*listener.getsockname())
        program = start("subject", [
            str(built("proxy")), "-q", "-f", "127.0.0.1:0", "-b", "127.0.0.1:1", "--stats", "127.0.0.1:0",
            "--cpus", ",".join(map(str, placement.subject)), "-C", str(round(most * ROOM)), "--tickets", "off",
            "-U", own, "-P", peer, "--shared-cache-format", "stud", "--shared-cache-key", str(key_file),
            str(certificate("rsa:2048"))], placement.subject, directory / f"{name}.log", name=name)
        programs.append(program)
        wait_until_ready(program, lambda: printed_address(program, "listening") is not None, READY_LIMIT_S)
        holder = Holder(program, printed_address(program, "listening") or "", block.Clocks(program), sessions)
        fill(holder, listener, hashlib.sha1(key_file.read_bytes()).digest())
    return holder


class Resuming:
    """Proxies by arm, filled."""

    def __init__(self, holders: dict[str, Holder], placement: Placement, directory: Path) -> None:
        self.holders, self.placement, self.directory = holders, placement, directory

    def put(self, arms: list[str], count: int) -> dict[str, float]:
        """So many handshakes on each, at once: CPU us of each."""
        begun = {arm: self.holders[arm].clocks.read_s() for arm in arms}
        hits = {arm: self.holders[arm].counted()["handshakes_resumed"] for arm in arms}
        with crew() as loads:
            for arm in arms:
                holder = self.holders[arm]
                loads.append(start("client", [str(built("bench/session-resumer")), holder.address,
                                              str(holder.sessions), str(count)], self.placement.client,
                                   self.directory / f"{arm}-client.log"))
            deadline = time.monotonic() + LIMIT_S
            for load in list(loads):
                while load.popen.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.002)
                if load.popen.poll() != 0:
                    raise Failed(f"session-resumer {describe_end(load)}")
        costs = {}
        for arm in arms:
            holder = self.holders[arm]
            resumed = holder.counted()["handshakes_resumed"] - hits[arm]
            if resumed != count:
                raise Failed(f"{resumed} of {count} handshakes were resumed")
            costs[arm] = 1e6 * (holder.clocks.read_s() - begun[arm]) / count
        return costs


@contextlib.contextmanager
def filled(sizes: tuple[int, int], placement: Placement, directory: Path) -> Iterator[Resuming]:
    """base and again hold the first of these numbers, new the second."""
    with crew() as programs:
        holders = {arm: start_holder(sizes[arm == "new"], max(sizes), placement, directory, arm, programs)
                   for arm in block.ARMS}
        yield Resuming(holders, placement, directory)


def measure(resuming: Resuming, blocks: int, chooser: random.Random) -> list[dict[str, float]]:
    """Of each block, by arm, CPU us of a resumed handshake."""
    warm = {arm: resuming.put([arm], WARM_UP)[arm] for arm in block.ARMS}
    count = max(WARM_UP, round(1e6 * PORTION_S / warm["base"]))
    found = []
    for _ in range(blocks):
        portions = [resuming.put(arms, count) for arms in block.order(chooser)]
        found.append({arm: math.exp(sum(math.log(portion[arm]) for portion in portions) / len(portions))
                      for arm in block.ARMS})
    return found
