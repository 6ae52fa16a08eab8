"""What sharing sessions costs a full handshake: hosts that share and hosts that do not, all asked at once as the arms
of `ab` are (block.py), so that whatever makes the machine slower or faster falls on all alike.

Arms: base and again share nothing; new shares with peer, which is a host too. Where births are here only, nobody asks
peer: what new spends beyond base is what telling of its own sessions costs a host, and what peer spends is what taking
them costs one. Where both hosts have births, peer is asked as much as the others, and both pay for both."""
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import block, counters
from .builds import Build
from .cell import DEFAULTS, Cell
from .certificates import certificate
from .loading import check_alive, printed_address
from .placement import Placement
from .processes import Failed, Program, crew
from .programs import built
from .runner import start_subject
from .subjects import DRIVERS, Task

PEER = "peer"
CONNECTIONS = 20
PORTION_S = 0.24  # CPU time of an arm: long beside the milliseconds in which a peer takes what it was told
MEET_LIMIT_S = 20.0
SETTLE_LIMIT_S = 2.0  # until a peer has taken all that it was told
POLL_S = 0.01
TAKEN = 0.99  # of the sessions that were born: less would not be what is to be measured


def cell(cert_key: str, tls_version: str) -> Cell:
    kind = {"rsa": "RSA", "ecdsa": "ECDSA"}[cert_key.partition(":")[0]]
    values: dict = {
        **DEFAULTS, "cert_key": cert_key, "tls_version": tls_version, "connections": CONNECTIONS,
        "cipher": "TLS_AES_128_GCM_SHA256" if tls_version == "TLSv1.3" else f"ECDHE-{kind}-AES128-GCM-SHA256",
        "resume_with": "id"}  # tickets that hold all themselves are of no use to others than keys, so there are none
    return Cell(subject="reference", case="", **values)


@dataclass(frozen=True)
class Costs:
    """Of one block, CPU us a handshake."""

    base_us: float
    more: float       # logarithm: what hosts that share spend beyond those that do not
    twin: float       # logarithm: of two hosts that do not, how far they are apart
    taking_us: float | None  # what a host that only takes spends on each session; None where it has its own
    batch: float      # sessions a datagram


def shared(host: Program) -> dict[str, Any]:
    counted: dict[str, Any] = counters.read(printed_address(host, "stats") or "")["shared_cache"]
    return counted


def wait_until_met(hosts: list[Program]) -> None:
    deadline = time.monotonic() + MEET_LIMIT_S
    while any(shared(host)["catch_ups_done"] < 1 for host in hosts):
        check_alive(hosts)
        if time.monotonic() > deadline:
            raise Failed(f"the hosts did not hear each other in {MEET_LIMIT_S:g} s")
        time.sleep(POLL_S)


def taken(peer: Program, since: dict[str, Any], told: int) -> int:
    """Sessions that the peer has taken, when it has taken all that it was told or has had the time to."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while True:
        count: int = shared(peer)["sessions_applied"] - since["sessions_applied"]
        if count >= told or time.monotonic() > deadline:
            return count
        time.sleep(POLL_S)


def start_peer(bench: block.Bench, options: list[str]) -> Program:
    """Where the clients are: it is another host, whose work is not to keep this one from its own."""
    backend = printed_address(bench.backend, "listening") or ""
    task = Task(bench.cell, bench.placement.client, certificate(bench.cell.cert_key), backend, 0, bench.directory,
                sharing=tuple(options))
    start_subject(DRIVERS[bench.cell.subject], task, Path(f"{bench.logs}-{PEER}.log"), bench.programs)
    return bench.programs[-1]


def measure_block(asked: Cell, placement: Placement, sharing: list[list[str]], both: bool, chooser: random.Random,
                  directory: Path, logs: str) -> Costs:
    """From nothing running to nothing running. `sharing`: options of the two hosts that share."""
    arms = [*block.ARMS, PEER] if both else list(block.ARMS)
    options = {"new": sharing[0], PEER: sharing[1]}
    builds = {arm: Build(built("proxy"), "build", built("proxy"), (), tuple(options.get(arm, ()))) for arm in arms}
    with crew() as programs:
        bench = block.Bench(asked, placement, builds, directory, logs, programs)
        new = bench.subjects["new"]
        peer = bench.subjects[PEER] if both else start_peer(bench, sharing[1])
        wait_until_met([new, peer])
        costs_s = {arm: bench.warm_up(arm) for arm in arms}
        count = max(CONNECTIONS, round(PORTION_S / costs_s["base"]))
        clocks = block.Clocks(peer)
        told_before, peer_before, peer_s = shared(new), shared(peer), clocks.read_s()
        first = chooser.sample(arms, len(arms))
        for order in (first, first[::-1]):
            bench.measure(order, count)
        told = shared(new)
        announced = told["sessions_announced"] - told_before["sessions_announced"]
        applied = taken(peer, peer_before, announced)
        peer_s = clocks.read_s() - peer_s
        if applied < TAKEN * announced or announced < 2 * count:
            raise Failed(f"of {2 * count} sessions {announced} were told and {applied} taken")
        bench.check_busy()
        for arm in arms:
            with block.named(arm):
                bench.check_arm(arm)
        for program in programs:
            program.popen.terminate()
    costs = {arm: trial.cost_us for arm, trial in bench.trials.items()}
    base_us = math.sqrt(costs["base"] * costs["again"])
    sharers_us = math.sqrt(costs["new"] * costs[PEER]) if both else costs["new"]
    return Costs(
        base_us, math.log(sharers_us / base_us), math.log(costs["again"] / costs["base"]),
        None if both else 1e6 * peer_s / applied,
        announced / (told["datagrams_sent"] - told_before["datagrams_sent"]))
