"""What sharing sessions between hosts is worth and what it costs: two proxies on one machine, each as if on a host of
its own, on the first CPU; the load on the last.

share   Sessions born on one host are tried on the other five milliseconds later, while a load keeps both busy.
cost    CPU time of all of a proxy's processes for a full handshake, with sharing beside without, all at once: where
        only one host has new sessions, which is what a host pays for telling of its own, beside what the other pays
        for each that it takes; and where both have as many, and pay for both. Both are judged.
lookup  CPU time to find a session among a thousand and among a million, of the store alone and with all that the TLS
        library makes of it, and the memory that each takes; and that of a whole resumed handshake, of any of a
        thousand and of any of a million, all at once, which is judged.

flood   Handshakes a second and CPU time for each, at full load, while a hundred thousand random datagrams a second come
        to the host, and while as many go to a socket that nobody reads, in interleaved rounds. They come from the last
        CPU: two CPUs of one core slow each other down, whatever they do, so both are equally busy in both.

On loopback the sender pays for part of the receiver's network work, and for waking it. Every figure is the median over
the rounds (of cost, three blocks each). What is asked at once takes turns on one CPU, each proxy at a third of the rate
that it could have, or a quarter: what a host that takes sessions spends on waking up, so many times a second, counts
for as many times more."""
import argparse
import contextlib
import json
import math
import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import sessions, sync_cost, sync_lookup
from .certificates import certificate
from .placement import Placement
from .processes import Failed, Interrupted, Program, crew, interruptible, start, wait_until_ready
from .programs import built, require_built
from .refusal import Refused
from .loading import printed_address
from .sampler import process_clock
from .statistics import median

READY_LIMIT_S = 10.0
AGE_S = 0.005
CONNECTIONS = 20
MODES = ("off", "unicast", "multicast", "pull")
KINDS: dict[str, tuple[ssl.TLSVersion, list[str]]] = {  # what resumes: TLS version, options of the proxy
    "TLS 1.2 session ID": (ssl.TLSVersion.TLSv1_2, ["--tickets", "off"]),
    "TLS 1.3 stateful ticket": (ssl.TLSVersion.TLSv1_3, ["--tickets", "off"]),
    "TLS 1.2 ticket": (ssl.TLSVersion.TLSv1_2, []),
    "TLS 1.3 ticket": (ssl.TLSVersion.TLSv1_3, []),
}
VERSION_NAMES = {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}
FEW, MANY = 1000, 1000000  # sessions
FLOOD_PER_S = 100000
COST_BLOCKS = 3  # a round: one is off by a hundredth of a handshake, which is a third of the limit


@dataclass
class Host:
    program: Program
    address: str
    stats: str
    shared_cache: str

    def counters(self) -> dict:
        with urllib.request.urlopen(f"http://{self.stats}/stats.json", timeout=10) as response:
            return json.load(response)

    def cpu_s(self) -> float:
        total = 0.0
        for pid in sessions.members(self.program.session):
            with contextlib.suppress(OSError):
                total += time.clock_gettime(process_clock(pid))
        return total


@dataclass
class Bench:
    cpus: tuple[int, ...]
    duration_s: float
    directory: Path
    sizes: tuple[int, int] = (FEW, MANY)
    started: int = 0

    @property
    def placement(self) -> Placement:
        return Placement(self.cpus[:1], self.cpus[-1:], self.cpus[-1:])

    def log_name(self) -> Path:
        self.started += 1
        return self.directory / f"{self.started}"

    def server(self, programs: list[Program], command: list[str]) -> Program:
        program = start("subject", command, self.cpus[:1], Path(f"{self.log_name()}.log"))
        programs.append(program)
        wait_until_ready(program, lambda: printed_address(program, "listening") is not None, READY_LIMIT_S)
        return program

    def load_command(self, hosts: list[Host], version: str, reuse: str, *options: str) -> list[str]:
        return [str(built("loadgen")), "-c", str(CONNECTIONS), "--cpus", str(self.cpus[-1]), "--tls-version", version,
                "--reuse", reuse, "--requests-per-connection", "0", *options,
                *(f"https://{host.address}/" for host in hosts)]


@contextlib.contextmanager
def pinned(bench: Bench) -> Iterator[None]:
    """Who reads clocks does it where the load is, not on the CPU of what is measured."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, bench.cpus[-1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def sharing(mode: str, chance: random.Random) -> list[list[str]]:
    """Options of the two hosts. Addresses are drawn, so that two runs at once do not meet."""
    if mode == "off":
        return [[], []]
    port, net = chance.randrange(20000, 30000), f"{chance.randrange(1, 255)}.{chance.randrange(1, 255)}"
    if mode == "multicast":
        return [["-U", f"239.77.{net}:{port}", "-M", "lo,0"]] * 2
    one, other = f"127.77.{net}:{port}", f"127.78.{net}:{port}"
    more = ["--shared-cache-pull", "5ms"] if mode == "pull" else []
    return [["-U", one, "-P", other, *more], ["-U", other, "-P", one, *more]]


@contextlib.contextmanager
def two_hosts(bench: Bench, mode: str, cert_key: str, options: list[str]) -> Iterator[list[Host]]:
    with crew() as programs:
        origin = bench.server(programs, [str(built("echo-backend")), "http", "-l", "127.0.0.1:0"])
        hosts = []
        for own in sharing(mode, random.SystemRandom()):
            program = bench.server(programs, [
                str(built("proxy")), "-q", "-f", "127.0.0.1:0", "-b", printed_address(origin, "listening") or "",
                "--stats", "127.0.0.1:0", *options, *own, str(certificate(cert_key))])
            hosts.append(Host(program, printed_address(program, "listening") or "",
                              printed_address(program, "stats") or "",
                              printed_address(program, "shared cache") or ""))
        deadline = time.monotonic() + READY_LIMIT_S
        while mode != "off" and any(host.counters()["shared_cache"]["catch_ups_done"] < 1 for host in hosts):
            if time.monotonic() > deadline:
                raise Failed(f"{mode}: the hosts do not hear each other")
            time.sleep(0.05)
        yield hosts


def connect(host: Host, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    address, _, port = host.address.rpartition(":")
    plain = socket.create_connection((address, int(port)), timeout=30)
    return context.wrap_socket(plain, session=session)


def is_shared(born: Host, tried: Host, context: ssl.SSLContext) -> bool:
    with connect(born, context, None) as tls:
        begun = time.monotonic()
        if context.minimum_version == ssl.TLSVersion.TLSv1_3:  # its ticket comes after the handshake
            tls.sendall(b"GET /?s=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            tls.recv(65536)
        session = tls.session
        time.sleep(max(0.0, AGE_S - (time.monotonic() - begun)))
        with connect(tried, context, session) as again:
            return bool(again.session_reused)


def share(bench: Bench, mode: str, kind: str, probes: int) -> tuple[float, dict]:
    """Share of the sessions that resumed on the other host; and what the first host has counted."""
    version, options = KINDS[kind]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    with two_hosts(bench, mode, "rsa:2048", options) as hosts:
        load = start("client", bench.load_command(hosts, VERSION_NAMES[version], "every:2", "-d", "1000s"),
                     bench.cpus[-1:], bench.directory / "load.log")
        with crew() as programs:
            programs.append(load)
            time.sleep(0.5)
            resumed = 0
            for number in range(probes):
                resumed += is_shared(hosts[number % 2], hosts[1 - number % 2], context)
            if load.popen.poll() is not None:
                raise Failed(f"the load ended: {load.log.read_text()[-200:]}")
            return 100 * resumed / probes, hosts[0].counters()


def bench_share(bench: Bench, _rounds: int, probes: int) -> bool:
    print(f"sessions resumed on the other host 5 ms after birth, both hosts busy, {probes} each\n\n"
          f"{'':<26}{'mode':<11}{'resumed %':>10}{'lag us':>8}{'bytes a session':>17}{'sessions a datagram':>21}")
    met = True
    for kind, (_, options) in KINDS.items():
        for mode in MODES if options else MODES[:3]:
            resumed, counted = share(bench, mode, kind, probes)
            shared = counted.get("shared_cache", {})
            announced, sent = shared.get("sessions_announced", 0), shared.get("datagrams_sent", 0)
            lag = f"{shared['lag_us_sum'] / shared['lag_count']:.0f}" if shared.get("lag_count") else "-"
            figures = (f"{shared['bytes_sent'] / announced:>17.0f}{announced / sent:>21.2f}" if announced
                       else f"{'-':>17}{'-':>21}")
            print(f"{kind:<26}{mode:<11}{resumed:>10.2f}{lag:>8}{figures}", flush=True)
            met = met and (resumed == 0 if mode == "off" else resumed >= 99.9)
    print(f"\n>= 99.9 % with sharing, 0 % without: {'met' if met else 'NOT MET'}")
    return met


@dataclass
class Handshakes:
    cpu_us: float  # of the loaded hosts, for each
    per_s: float


def handshakes(bench: Bench, hosts: list[Host], loaded: int, version: str, reuse: str) -> Handshakes:
    def done() -> int:
        return sum(counted["handshakes_full"] + counted["handshakes_resumed"]
                   for counted in (host.counters() for host in hosts[:loaded]))

    before, done_before = sum(host.cpu_s() for host in hosts[:loaded]), done()
    process = subprocess.run(
        bench.load_command(hosts[:loaded], version, reuse, "-d", f"{bench.duration_s:g}s", "--json", "-"),
        capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise Failed(f"loadgen ended with status {process.returncode}: {process.stderr.strip()[-200:]}")
    spent_us = (sum(host.cpu_s() for host in hosts[:loaded]) - before) * 1e6
    return Handshakes(spent_us / (done() - done_before), json.loads(process.stdout)["rates"]["connections_per_s"])


def limits(values: list[float]) -> str:
    return f"{min(values):.2f} .. {max(values):.2f}"


def bench_cost(bench: Bench, rounds: int, _probes: int) -> bool:
    blocks = COST_BLOCKS * rounds
    print(f"\nCPU us of a proxy for a full handshake, all at once, medians and limits of {blocks} blocks\n\n"
          f"{'':<26}{'births':<12}{'alone':>8}{'shared, more %':>16}{'':>17}{'alone again, more %':>21}{'':>17}"
          f"{'sessions a datagram':>21}{'to take one':>13}")
    judged = []
    chance = random.SystemRandom()
    for cert_key in ("rsa:2048", "ecdsa:P-256"):
        for births, both in (("here only", False), ("both hosts", True)):
            with pinned(bench):
                found = [sync_cost.measure_block(
                    sync_cost.cell(cert_key, "TLSv1.2"), bench.placement, sharing("unicast", chance), both, chance,
                    bench.directory, str(bench.log_name())) for _ in range(blocks)]
            more, twin = ([100 * math.expm1(getattr(one, name)) for one in found] for name in ("more", "twin"))
            took = [one.taking_us for one in found if one.taking_us is not None]
            print(f"{'TLS 1.2 ' + cert_key:<26}{births:<12}{median([one.base_us for one in found]):>8.1f}"
                  f"{median(more):>16.2f}{limits(more):>17}{median(twin):>21.2f}{limits(twin):>17}"
                  f"{median([one.batch for one in found]):>21.2f}{f'{median(took):.1f} us' if took else '-':>13}",
                  flush=True)
            judged.append(median(more))
    met = max(judged) <= 3
    print(f"\n<= 3 % more: {'met' if met else 'NOT MET'}")
    return met


def store_costs(bench: Bench) -> dict[int, dict[str, float]]:
    """By size, what session-store-cost says."""
    lines = subprocess.run(["taskset", "-c", str(bench.cpus[-1]), str(built("bench/session-store-cost")),
                            *map(str, bench.sizes)], capture_output=True, text=True, check=True).stdout
    return {one["sessions"]: one for one in map(json.loads, lines.splitlines())}


def bench_lookup(bench: Bench, rounds: int, _probes: int) -> bool:
    few, many = bench.sizes
    costs = [store_costs(bench) for _ in range(rounds)]
    print(f"\n{'sessions':>10}{'store, ns':>12}{'whole look-up, ns':>20}{'bytes a session':>18}")
    for size in bench.sizes:
        store_ns, lookup_ns, room = (median([one[size][name] for one in costs])
                                     for name in ("store_ns", "lookup_ns", "bytes_per_session"))
        print(f"{size:>10}{store_ns:>12.0f}{lookup_ns:>20.0f}{room:>18.1f}", flush=True)
    room = max(one[size]["bytes_per_session"] for one in costs for size in bench.sizes)
    with pinned(bench), sync_lookup.filled(bench.sizes, bench.placement, bench.directory) as resuming:
        found = sync_lookup.measure(resuming, rounds, random.SystemRandom())
    alike = [math.sqrt(one["base"] * one["again"]) for one in found]
    twins = [one["again"] / one["base"] for one in found]
    ratios = {
        "of the store alone": [one[many]["store_ns"] / one[few]["store_ns"] for one in costs],
        "and with decoding": [one[many]["lookup_ns"] / one[few]["lookup_ns"] for one in costs],
        f"a resumed handshake, {median(alike):.1f} us of CPU": [one["new"] / us for one, us in zip(found, alike)]}
    print(f"\nlook-up among {many} / among {few}")
    for name, values in ratios.items():
        print(f"{name:<44}{median(values):>8.3f}{limits(values):>17}")
    ratio = median(values)
    print(f"{'the same, of two proxies with as many':<44}{median(twins):>8.3f}{limits(twins):>17}\n"
          f"a resumed handshake: <= 1.1: {'met' if ratio <= 1.1 else 'NOT MET'}\n"
          f"bytes a session: {room:.0f} (<= 700: {'met' if room <= 700 else 'NOT MET'})")
    return ratio <= 1.1 and room <= 700


@contextlib.contextmanager
def flood(bench: Bench, to: str, floods: list[dict]) -> Iterator[None]:
    """Adds to floods what it was in the end."""
    log = Path(f"{bench.log_name()}-flood.log")
    with crew() as programs:
        attack = start("client", [str(built("bench/datagram-flood")), to, str(FLOOD_PER_S), str(10 ** 12)],
                       bench.cpus[-1:], log)
        programs.append(attack)
        time.sleep(0.5)  # until the system drops it
        yield
        if attack.popen.poll() is not None:
            raise Failed(f"datagram-flood ended: {log.read_text()[-200:]}")
    floods.append(json.loads(log.read_text()))


def bench_flood(bench: Bench, rounds: int, _probes: int) -> bool:
    print(f"\na host at full load, and {FLOOD_PER_S} random datagrams a second past it and to it, medians of {rounds} "
          f"rounds\n\n{'':<26}{'handshakes/s':>14}{'flooded':>12}{'less %':>8}{'CPU us each':>13}{'flooded':>12}"
          f"{'more %':>8}")
    met = True
    floods: list[dict] = []
    elsewhere: list[dict] = []
    counted = 0
    for cert_key in ("rsa:2048", "ecdsa:P-256"):
        pairs = []
        with two_hosts(bench, "unicast", cert_key, ["--tickets", "off"]) as hosts, \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unread:
            unread.bind(("127.0.0.1", 0))
            sides = (("127.0.0.1:%d" % unread.getsockname()[1], elsewhere), (hosts[0].shared_cache, floods))
            for number in range(rounds):
                pair = {}
                for to, seen in sides[::-1 if number % 2 else 1]:  # each is first as often as the other
                    with flood(bench, to, seen):
                        pair[to] = handshakes(bench, hosts, 1, "TLSv1.2", "never")
                pairs.append(tuple(pair[to] for to, _ in sides))
            time.sleep(0.5)  # until the last of it is counted
            shared = hosts[0].counters()["shared_cache"]
            counted += sum(shared["rejected"].values()) + shared["datagrams_dropped"]
        less = 100 * (1 - median([flooded.per_s / calm.per_s for calm, flooded in pairs]))
        more = 100 * (median([flooded.cpu_us / calm.cpu_us for calm, flooded in pairs]) - 1)
        met = met and less <= 5 and more <= 5
        rates, costs = ([[getattr(one, name) for one in pair] for pair in pairs] for name in ("per_s", "cpu_us"))
        print(f"{'TLS 1.2 ' + cert_key:<26}{median([calm for calm, _ in rates]):>14.0f}"
              f"{median([flooded for _, flooded in rates]):>12.0f}{less:>8.2f}"
              f"{median([calm for calm, _ in costs]):>13.1f}{median([flooded for _, flooded in costs]):>12.1f}"
              f"{more:>8.2f}", flush=True)
    sent = sum(one["sent"] for one in floods)
    print(f"\ndatagrams a second: {sent / sum(one['seconds'] for one in floods):.0f}, counted by the host: "
          f"{100 * counted / sent:.2f} %; each cost the other CPU "
          f"{1e6 * sum(one['cpu_s'] for one in floods) / sent:.2f} us, to send it and to drop it\n"
          f"<= 5 % fewer handshakes a second, <= 5 % more CPU time for each: {'met' if met else 'NOT MET'}")
    return met


PARTS = {"share": bench_share, "cost": bench_cost, "lookup": bench_lookup, "flood": bench_flood}


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="bench-sync", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--rounds", type=int, default=8,
                        help="repeats of lookup and flood, and three times as many of cost (default 8)")
    result.add_argument("--duration", type=float, default=3.0, help="seconds of each run of flood (default 3)")
    result.add_argument("--probes", type=int, default=1000, help="sessions tried in each row of share (default 1000)")
    result.add_argument("--sessions", type=int, default=MANY,
                        help=f"how many are held against {FEW} in lookup (default {MANY})")
    result.add_argument("--part", action="append", choices=list(PARTS), help="only this, or these (default all)")
    return result


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    if arguments.rounds < 1 or arguments.probes < 1 or arguments.duration < 1 or arguments.sessions < 1:
        print("bench-sync: --rounds, --probes, --duration, --sessions: at least 1", file=sys.stderr)
        return 2
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="tlsdyno-") as directory:
        bench = Bench(cpus, arguments.duration, Path(directory), (FEW, arguments.sessions))
        try:
            require_built(["loadgen", "proxy", "echo-backend", "bench/session-store-cost", "bench/session-resumer",
                           "bench/datagram-flood"])
            with interruptible():
                met = [PARTS[part](bench, arguments.rounds, arguments.probes) for part in arguments.part or PARTS]
        except Refused as error:
            print(f"bench-sync: {error}", file=sys.stderr)
            return 2
        except (Failed, OSError, subprocess.CalledProcessError) as error:
            print(f"bench-sync: {error}", file=sys.stderr)
            return 1
        except Interrupted as interruption:
            return interruption.exit_status
    return 0 if all(met) else 1
