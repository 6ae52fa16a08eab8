"""What sharing sessions between hosts is worth and what it costs: two proxies on one machine, each as if on a host of
its own, on the first CPU; the load on the last.

share   Sessions born on one host are tried on the other five milliseconds later, while a load keeps both busy.
cost    CPU time of all of a proxy's processes for a full handshake, with sharing and without, in interleaved rounds:
        where only this host has new sessions, and where the other has as many, which then come here.
lookup  CPU time to find a session among a thousand and among a million, and the memory that each takes; and what the
        difference is in a whole resumed handshake.

flood   Handshakes a second and CPU time for each, at full load, while a hundred thousand random datagrams a second come
        to the host, and while as many go to a socket that nobody reads, in interleaved rounds. They come from the last
        CPU: two CPUs of one core slow each other down, whatever they do, so both are equally busy in both.

On loopback the sender pays for part of the receiver's network work. Every figure is the median over the rounds."""
import argparse
import contextlib
import json
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

from . import sessions
from .certificates import certificate
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
SIZES = (1000, 1000000)
FLOOD_PER_S = 100000


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
    started: int = 0

    def server(self, programs: list[Program], command: list[str]) -> Program:
        self.started += 1
        program = start("subject", command, self.cpus[:1], self.directory / f"{self.started}.log")
        programs.append(program)
        wait_until_ready(program, lambda: printed_address(program, "listening") is not None, READY_LIMIT_S)
        return program

    def load_command(self, hosts: list[Host], version: str, reuse: str, *options: str) -> list[str]:
        return [str(built("loadgen")), "-c", str(CONNECTIONS), "--cpus", str(self.cpus[-1]), "--tls-version", version,
                "--reuse", reuse, "--requests-per-connection", "0", *options,
                *(f"https://{host.address}/" for host in hosts)]


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


def bench_cost(bench: Bench, rounds: int, _probes: int) -> bool:
    print(f"\nCPU us of a proxy for a full handshake, medians of {rounds} rounds\n\n"
          f"{'':<26}{'births':<12}{'alone':>8}{'shared':>8}{'more %':>8}")
    met = True
    for cert_key in ("rsa:2048", "ecdsa:P-256"):
        for loaded, births in ((1, "here only"), (2, "both hosts")):
            pairs = []
            with two_hosts(bench, "off", cert_key, ["--tickets", "off"]) as alone, \
                    two_hosts(bench, "unicast", cert_key, ["--tickets", "off"]) as shared:
                for _ in range(rounds):
                    pairs.append([handshakes(bench, hosts, loaded, "TLSv1.2", "never").cpu_us
                                  for hosts in (alone, shared)])
            more = 100 * (median([with_it / without for without, with_it in pairs]) - 1)
            met = met and more <= 3
            print(f"{'TLS 1.2 ' + cert_key:<26}{births:<12}{median([pair[0] for pair in pairs]):>8.1f}"
                  f"{median([pair[1] for pair in pairs]):>8.1f}{more:>8.2f}", flush=True)
    print(f"\n<= 3 % more: {'met' if met else 'NOT MET'}")
    return met


def bench_lookup(bench: Bench, rounds: int, _probes: int) -> bool:
    found: dict[int, list[dict]] = {size: [] for size in SIZES}
    resumed = []
    with two_hosts(bench, "off", "rsa:2048", ["--tickets", "off"]) as hosts:
        for _ in range(rounds):
            resumed.append(handshakes(bench, hosts, 1, "TLSv1.2", "always").cpu_us)
            lines = subprocess.run(["taskset", "-c", str(bench.cpus[-1]), str(built("bench/session-store-cost")),
                                    *map(str, SIZES)], capture_output=True, text=True, check=True).stdout
            for size, line in zip(SIZES, lines.splitlines(), strict=True):
                found[size].append(json.loads(line))
    figures = {size: {name: median([one[name] for one in found[size]]) for name in found[size][0]} for size in SIZES}
    print(f"\n{'sessions':>10}{'store, ns':>12}{'whole look-up, ns':>20}{'bytes a session':>18}")
    for size in SIZES:
        one = figures[size]
        print(f"{size:>10}{one['store_ns']:>12.0f}{one['lookup_ns']:>20.0f}{one['bytes_per_session']:>18.1f}")
    few, many = (figures[size]["lookup_ns"] / 1000 for size in SIZES)
    handshake = median(resumed)
    ratio = (handshake + many - few) / handshake
    room = max(figures[size]["bytes_per_session"] for size in SIZES)
    print(f"\nlook-up among {SIZES[1]} / among {SIZES[0]}: {many / few:.2f}; of the store alone: "
          f"{figures[SIZES[1]]['store_ns'] / figures[SIZES[0]]['store_ns']:.2f}\n"
          f"a resumed handshake ({handshake:.1f} us of CPU): {ratio:.3f} "
          f"(<= 1.1: {'met' if ratio <= 1.1 else 'NOT MET'})\n"
          f"bytes a session: {room:.0f} (<= 700: {'met' if room <= 700 else 'NOT MET'})")
    return ratio <= 1.1 and room <= 700


@contextlib.contextmanager
def flood(bench: Bench, to: str, floods: list[dict]) -> Iterator[None]:
    """Adds to floods what it was in the end."""
    bench.started += 1
    log = bench.directory / f"flood-{bench.started}.log"
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
            for _ in range(rounds):
                with flood(bench, "127.0.0.1:%d" % unread.getsockname()[1], elsewhere):
                    calm = handshakes(bench, hosts, 1, "TLSv1.2", "never")
                with flood(bench, hosts[0].shared_cache, floods):
                    pairs.append((calm, handshakes(bench, hosts, 1, "TLSv1.2", "never")))
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
    result.add_argument("--rounds", type=int, default=5,
                        help="interleaved repeats of cost, lookup and flood (default 5)")
    result.add_argument("--duration", type=float, default=3.0, help="seconds of each run of cost and flood (default 3)")
    result.add_argument("--probes", type=int, default=1000, help="sessions tried in each row of share (default 1000)")
    result.add_argument("--part", action="append", choices=list(PARTS), help="only this, or these (default all)")
    return result


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    if arguments.rounds < 1 or arguments.probes < 1 or arguments.duration < 1:
        print("bench-sync: --rounds, --probes, --duration: at least 1", file=sys.stderr)
        return 2
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="tlsdyno-") as directory:
        bench = Bench(cpus, arguments.duration, Path(directory))
        try:
            require_built(["loadgen", "proxy", "echo-backend", "bench/session-store-cost", "bench/datagram-flood"])
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
