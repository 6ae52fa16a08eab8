"""What load generators cost: their own CPU time per operation, side by side in one run against the same servers.

Those that are compared run at once and take turns of a fraction of a second (turns.py); two turns of each, one in
either order, are a round. Every figure is the median over the rounds, every ratio the median of the rounds' own ratios,
shown with the middle half of them.

Handshakes are counted by the proxy, so a generator's CPU time is that of its turns and nothing else. The origin of the
kept-alive transactions does not count: there it is that of its whole life, start-up included, and what it did is what
it says. The server's CPU time is read from its processes' clocks around the same turns.

The light engine is measured as it is, and with --coalesce, which handles together what happens within so many
milliseconds, and has more connections so that the server is as busy with it as without. That pays where the generator
waits most of the time and where a response comes in several pieces; for many small transactions it only slows the
server down. TLS 1.2 handshakes are measured with --close rst as well.

A goal is held against what costs least (loadgen/README.md): a full handshake coalesced, and before TLS 1.3 with --close
rst, which is how s_time ends its connections too; large responses coalesced; all else as it is. The same figures of the
other way stand beside them without a goal, and what the options do to the rate of full handshakes.

On loopback the sender pays for part of the receiver's network work, so a generator that sends less often looks a
little cheaper, and the proxy a little dearer, than across a network."""
import argparse
import csv
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import counters, sessions
from .certificates import certificate
from .loading import printed_address
from .placement import cpu_list
from .processes import Failed, Interrupted, Program, crew, interruptible, start, wait_until_ready
from .programs import RESULTS, built, installed, require_built
from .refusal import Refused
from .statistics import median, middle_half
from .turns import LIFE_S, Contender, Ring, Spent, cpu_s
from .units import parse_time


@dataclass(frozen=True)
class Light:
    """How the light engine is used."""

    connections: int
    coalesce: str = "0"
    close: str = "notify"


# Enough to keep the server's core full. With many more, each waits so long that the kernel sends its last segment again
# (tail loss probes), which costs the client but is no work of a load generator.
CONNECTIONS = 10
# Where connections are kept alive nothing of that kind happens: as many as the scenarios have.
KEPT_ALIVE_CONNECTIONS = 50
LIGHT, COALESCED, RESET = "light", "coalesced", "reset"
NEW = {LIGHT: Light(CONNECTIONS), COALESCED: Light(24, "4ms")}
RESETS = {RESET: Light(24, "4ms", "rst")}
KEPT_ALIVE = {LIGHT: Light(KEPT_ALIVE_CONNECTIONS), COALESCED: Light(KEPT_ALIVE_CONNECTIONS, "0.5ms")}
HELD = 10000
HELD_HOW: dict[str, list[str]] = {LIGHT: [], COALESCED: ["--coalesce", "50ms"]}
HOLD_RAMP_S, HOLD_WARMUP_S, HOLD_S, HOLD_ROUNDS = 5, 5, 12, 2
FEW_RAMP_S, FEW_S = 0, 2  # for the memory that does not grow with connections
READY_LIMIT_S = 10.0
TURN_MIN_S, TURN_MAX_S = 0.02, 1.0  # those whose turn it is not would be taken for dead
LIFE_TURNS = 3  # of a kept-alive round, in either order
COLUMNS = ("part", "case", "tool", "round", "ops", "client_cpu_us_per_op", "server_cpu_us_per_op", "note")
FIGURE_COLUMNS = ("figure", "median", "low", "high", "goal", "verdict")


@dataclass(frozen=True)
class Handshake:
    """One kind of handshake."""

    name: str
    cert_key: str
    tls_version: str
    cipher: str
    group: str | None
    reuse: str = "never"
    resume_with: str = "any"


ECDSA_13 = Handshake("TLS 1.3 ECDSA P-256", "ecdsa:P-256", "TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519")
FULL = (
    ECDSA_13,
    Handshake("TLS 1.3 RSA-2048", "rsa:2048", "TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519"),
    Handshake("TLS 1.2 ECDHE-RSA-2048", "rsa:2048", "TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "X25519"),
    Handshake("TLS 1.2 RSA-2048 key exchange", "rsa:2048", "TLSv1.2", "AES128-GCM-SHA256", None),
)
RESUMED = (
    Handshake("TLS 1.2 session ID", "rsa:2048", "TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "X25519", "always", "id"),
    Handshake("TLS 1.2 ticket", "rsa:2048", "TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "X25519", "always", "ticket"),
    Handshake("TLS 1.3 PSK", "ecdsa:P-256", "TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519", "always", "ticket"),
)
SIZES = (0, 1024, 16384, 65536)
IN_PIECES = 16384  # a response of so many bytes is several records, and comes in several pieces


@dataclass
class Bench:
    cpus: tuple[int, ...]
    turn_s: float
    directory: Path
    parts: tuple[str, ...] = ()
    rows: list[dict[str, object]] = field(default_factory=list)
    # Share of a core, and KiB a connection.
    held: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {tool: [] for tool in HELD_HOW})

    def ring(self, program: Program) -> Ring:
        return Ring(program, self.cpus[-1:], self.turn_s, self.directory)

    def add(self, part: str, case: str, round_number: int, spent: dict[str, Spent]) -> None:
        for tool, cost in spent.items():
            self.rows.append({
                "part": part, "case": case, "tool": tool, "round": round_number, "ops": cost.ops,
                "client_cpu_us_per_op": f"{cost.client_s * 1e6 / cost.ops:.3f}",
                "server_cpu_us_per_op": f"{cost.server_s * 1e6 / cost.ops:.3f}",
                "note": f"{100 * cost.resumed / cost.ops:.2f} % resumed"})

    def figures(self, part: str, case: str, tool: str, column: str = "client_cpu_us_per_op") -> list[float]:
        return [float(str(row[column])) for row in self.rows
                if (row["part"], row["case"], row["tool"]) == (part, case, tool) and row.get(column)]


def server_cpu_s(programs: list[Program]) -> float:
    return sum(cpu_s(sessions.members(program.session)) for program in programs)


# ---- Contenders ----


def loadgen(bench: Bench, handshake: Handshake, name: str, engine: str, how: Light, address: str,
            requests: str = "0", path: str = "/") -> Contender:
    """Our own generator."""
    resume = ["--resume-with", handshake.resume_with] if handshake.reuse != "never" else []
    group = ["--group", handshake.group] if handshake.group else []
    return Contender(name, [
        str(built("loadgen")), "--engine", engine, "-c", str(how.connections), "-w", "1",
        "--cpus", str(bench.cpus[-1]), "-d", f"{LIFE_S}s", "--reuse", handshake.reuse, *resume,
        "--requests-per-connection", requests, "--tls-version", handshake.tls_version, "--cipher", handshake.cipher,
        *group, "--json", str(bench.directory / f"{name}.json"), "--coalesce", how.coalesce, "--close", how.close,
        f"https://{address}{path}"])


def check_loadgen(bench: Bench, name: str) -> dict[str, int]:
    """Its totals, of a whole life without errors."""
    result = json.loads((bench.directory / f"{name}.json").read_text())
    engine = "openssl" if name == "openssl" else "light"
    if result["engine"] != engine:
        raise Failed(f"loadgen used its {result['engine']} engine, not {engine}")
    totals: dict[str, int] = result["totals"]
    if errors := {kind: count for kind, count in result["totals"]["errors"].items() if count}:
        raise Failed(f"{name}: errors: {errors}")
    return totals


def s_time(handshake: Handshake, address: str) -> Contender:
    """OpenSSL's own timer of new connections: one at a time, blocking."""
    version = [] if handshake.tls_version == "TLSv1.3" else ["-tls1_2"]
    cipher = ["-ciphersuites" if handshake.tls_version == "TLSv1.3" else "-cipher", handshake.cipher]
    return Contender("s_time", ["openssl", "s_time", "-connect", address, "-new", "-time", str(LIFE_S), *version,
                                *cipher])


def wrk(address: str, path: str) -> Contender:
    return Contender("wrk", ["wrk", "-t1", f"-c{KEPT_ALIVE_CONNECTIONS}", f"-d{LIFE_S}s", f"https://{address}{path}"],
                     signal.SIGINT)


# ---- Parts ----


def server(bench: Bench, programs: list[Program], role: str, command: list[str], name: str) -> tuple[Program, str]:
    program = start(role, command, bench.cpus[:1], bench.directory / f"{name}.log")
    programs.append(program)
    wait_until_ready(program, lambda: printed_address(program, "listening") is not None, READY_LIMIT_S)
    return program, printed_address(program, "listening") or ""


def proxy_command(handshake: Handshake, backend: str) -> list[str]:
    ciphers = "--ciphersuites" if handshake.tls_version == "TLSv1.3" else "--ciphers"
    group = ["--groups", handshake.group] if handshake.group else []
    return [str(built("proxy")), "-q", "-f", "127.0.0.1:0", "-b", backend, "-n", "1",
            "--stats", "127.0.0.1:0", "--tickets", "off" if handshake.resume_with == "id" else "on",
            "--tls-min", handshake.tls_version, "--tls-max", handshake.tls_version, ciphers, handshake.cipher, *group,
            str(certificate(handshake.cert_key))]


def tools_of(handshake: Handshake, part: str) -> dict[str, Light]:
    """How the light engine is used. Before TLS 1.3 a full handshake ends with the server, so nothing is cut short by a
    client that resets the connection then. (s_time says nothing before it closes, either.)"""
    return {**NEW, **(RESETS if part == "full" and handshake.tls_version != "TLSv1.3" else {})}


def least(handshake: Handshake) -> str:
    """Which of them costs least."""
    return RESET if RESET in tools_of(handshake, "full") else COALESCED


def bench_handshakes(bench: Bench, rounds: int, programs: list[Program]) -> None:
    origin = [str(built("echo-backend")), "http", "-l", "127.0.0.1:0"]
    _, backend = server(bench, programs, "backend", origin, "backend")
    for handshake in (*FULL, *RESUMED):
        name = re.sub(r"[^A-Za-z0-9]+", "-", handshake.name)
        proxy, address = server(bench, programs, "subject", proxy_command(handshake, backend), name)
        statistics = printed_address(proxy, "stats") or ""

        def count(statistics: str = statistics) -> tuple[int, int]:
            page = counters.read(statistics)
            return page["handshakes_full"] + page["handshakes_resumed"], page["handshakes_resumed"]

        full = handshake.reuse == "never"
        for requests, part in (("0", "full"), ("1", "full + request")) if full else (("1", "resumed + request"),):
            own = [loadgen(bench, handshake, tool, "light", how, address, requests, "/?s=1024")
                   for tool, how in tools_of(handshake, part).items()]
            own.append(loadgen(bench, handshake, "openssl", "openssl", NEW[LIGHT], address, requests, "/?s=1024"))
            others = [s_time(handshake, address)] if part == "full" else []
            found = bench.ring(proxy).rounds(own + others, count, rounds)
            for round_number, spent in enumerate(found, start=1):
                check_resumed(spent, full)
                bench.add(part, handshake.name, round_number, spent)
            for contender in own:
                check_loadgen(bench, contender.name)


def check_resumed(spent: dict[str, Spent], full: bool) -> None:
    """As the proxy counted."""
    for name, cost in spent.items():
        if cost.resumed and full or cost.resumed < 0.99 * cost.ops and not full:
            raise Failed(f"{name}: {cost.resumed} of {cost.ops} handshakes were resumed")


def bench_keep_alive(bench: Bench, rounds: int, programs: list[Program]) -> None:
    """Straight at an HTTPS origin: what is measured is the generator."""
    origin, address = server(bench, programs, "subject", [
        str(built("echo-backend")), "https", "-l", "127.0.0.1:0", "--cert", str(certificate("ecdsa:P-256")),
        "--key", str(certificate("ecdsa:P-256"))], "origin")
    for size in SIZES:
        path = f"/?s={size}"
        own = [loadgen(bench, ECDSA_13, tool, "light", how, address, "inf", path) for tool, how in KEPT_ALIVE.items()]
        own.append(loadgen(bench, ECDSA_13, "openssl", "openssl", KEPT_ALIVE[LIGHT], address, "inf", path))
        # A round is a life: as long as rounds elsewhere together, but for the start of the programs.
        for round_number in range(1, 1 + max(1, rounds // LIFE_TURNS)):
            spent = bench.ring(origin).life([*own, wrk(address, path)], LIFE_TURNS)
            for contender in own:
                spent[contender.name] += Spent(ops=check_loadgen(bench, contender.name)["transactions"])
            spent["wrk"] += Spent(ops=wrk_requests(bench.directory / "wrk.log"))
            bench.add("keep-alive", f"{size} bytes", round_number, spent)


def wrk_requests(log: Path) -> int:
    """Of its last life: all of them wrote there."""
    found = re.findall(r"(\d+) requests in", log.read_text())
    if not found or not int(found[-1]):
        raise Failed(f"wrk: {log.read_text().strip()[-200:]}")
    return int(found[-1])


def hold(bench: Bench, connections: int, how: list[str], ramp_s: int, hold_s: int, address: str) -> tuple[float, float]:
    """Share of a core while so many connections are held, and memory in KiB of all processes of loadgen."""
    result_file = bench.directory / "hold.json"
    program = start("client", [
        str(built("loadgen")), "--engine", "light", "--hold", *how, "-c", str(connections), "-w", "1",
        "--cpus", str(bench.cpus[-1]), "--ramp", f"{ramp_s}s", "--warmup", f"{HOLD_WARMUP_S}s", "-d", f"{hold_s}s",
        "--json", str(result_file), f"https://{address}/?s=0"], bench.cpus[-1:], bench.directory / "hold.log")
    resident_kib = 0.0
    with crew() as programs:
        programs.append(program)
        while program.popen.poll() is None:
            resident_kib = max(resident_kib, sum(map(sessions.resident_kib, sessions.members(program.session))))
            time.sleep(0.5)
    if program.popen.returncode != 0:
        raise Failed(f"loadgen --hold ended with status {program.popen.returncode}: {program.log.read_text()[-300:]}")
    result = json.loads(result_file.read_text())
    if result["hold"]["open_at_end"] != connections:
        raise Failed(f"only {result['hold']['open_at_end']} of {connections} connections were held")
    return result["cpu"]["busy_fraction"], resident_kib


def bench_hold(bench: Bench, rounds: int, programs: list[Program]) -> None:
    """Idle but alive: each connection carries a transaction at loadgen's default pace."""
    _, address = server(bench, programs, "subject", [
        str(built("echo-backend")), "https", "-l", "127.0.0.1:0", "--cert", str(certificate("ecdsa:P-256")),
        "--key", str(certificate("ecdsa:P-256"))], "held")
    _, few_kib = hold(bench, 10, [], FEW_RAMP_S, FEW_S, address)
    for round_number in range(1, 1 + min(rounds, HOLD_ROUNDS)):
        for tool, how in HELD_HOW.items():
            busy, kib = hold(bench, HELD, how, HOLD_RAMP_S, HOLD_S, address)
            each_kib = (kib - few_kib) / (HELD - 10)
            bench.held[tool].append((busy, each_kib))
            bench.rows.append({"part": "hold", "case": f"{HELD} connections", "tool": tool, "round": round_number,
                               "ops": HELD, "note": f"{100 * busy:.2f} % of a core, {each_kib:.2f} KiB each"})


@dataclass(frozen=True)
class Figure:
    text: str
    ratios: list[float]
    at_least: float | None = None  # its goal, if it has one
    at_most: float | None = None

    @property
    def value(self) -> float:
        return median(self.ratios)

    @property
    def goal(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    @property
    def met(self) -> bool:
        """Also where there is no goal."""
        return ((self.at_least is None or self.value >= self.at_least)
                and (self.at_most is None or self.value <= self.at_most))

    @property
    def verdict(self) -> str:
        return "" if not self.goal else "met" if self.met else "NOT MET"


def ratios(above: list[float], below: list[float]) -> list[float]:
    return [over / under for over, under in zip(above, below, strict=True)]


def full_figures(bench: Bench, handshake: Handshake) -> Iterator[Figure]:
    name, best = handshake.name, least(handshake)
    limit = 0.35 if handshake.cert_key.startswith("ecdsa") else 0.15
    for tool in (best, LIGHT):
        judged = tool == best
        own = bench.figures("full", name, tool)
        yield Figure(f"{name}, full: s_time / {tool}", ratios(bench.figures("full", name, "s_time"), own),
                     at_least=10 if judged else None)
        yield Figure(f"{name}, full: openssl engine / {tool}", ratios(bench.figures("full", name, "openssl"), own),
                     at_least=5 if judged else None)
        yield Figure(f"{name}, full: {tool} / proxy",
                     ratios(own, bench.figures("full", name, tool, "server_cpu_us_per_op")),
                     at_most=limit if judged else None)
    yield Figure(f"{name}, full: handshakes in the same time, {best} / {LIGHT}",
                 ratios(*(bench.figures("full", name, tool, "ops") for tool in (best, LIGHT))))


def figures(bench: Bench) -> Iterator[Figure]:
    for handshake in FULL if "handshakes" in bench.parts else ():
        yield from full_figures(bench, handshake)
    for handshake in RESUMED if "handshakes" in bench.parts else ():
        part, name = "resumed + request", handshake.name
        for tool in NEW:
            yield Figure(f"{name}, {part}: {tool} / proxy",
                         ratios(bench.figures(part, name, tool),
                                bench.figures(part, name, tool, "server_cpu_us_per_op")),
                         at_most=0.7 if tool == LIGHT else None)
    for size in SIZES if "keep-alive" in bench.parts else ():
        name = f"{size} bytes"
        best = COALESCED if size >= IN_PIECES else LIGHT
        for tool in KEPT_ALIVE:
            yield Figure(f"keep-alive, {name}: wrk / {tool}",
                         ratios(bench.figures("keep-alive", name, "wrk"), bench.figures("keep-alive", name, tool)),
                         at_least=1.3 if tool == best else None)
    for tool, held in bench.held.items() if "hold" in bench.parts else ():
        judged = tool == LIGHT
        yield Figure(f"{HELD} connections held by {tool}, % of a core", [100 * busy for busy, _ in held],
                     at_most=2 if judged else None)
        yield Figure(f"{HELD} connections held by {tool}, KiB each", [kib for _, kib in held],
                     at_most=4 if judged else None)


def print_table(bench: Bench) -> None:
    heads = f"{LIGHT:>10}{COALESCED:>10}{RESET:>10}{'openssl':>10}{'other':>16}{'server':>10}"
    print(f"{'client CPU us per op, medians':<52}{heads}")
    seen = dict.fromkeys((str(row["part"]), str(row["case"])) for row in bench.rows if row["part"] != "hold")
    for part, case in seen:
        cells = []
        for tool in (LIGHT, COALESCED, RESET, "openssl"):
            values = bench.figures(part, case, tool)
            cells.append(f"{median(values):>10.1f}" if values else f"{'-':>10}")
        other = next((f"{tool} {median(values):.1f}" for tool in ("s_time", "wrk")
                      if (values := bench.figures(part, case, tool))), "-")
        served = median(bench.figures(part, case, "light", "server_cpu_us_per_op"))
        print(f"{part + ': ' + case:<52}{''.join(cells)}{other:>16}{served:>10.1f}")


def print_figures(found: list[Figure]) -> None:
    print(f"\n{'figure, median over the rounds and their middle half':<74}{'figure':>8}{'':>16}{'goal':>9}")
    for figure in found:
        low, high = middle_half(figure.ratios)
        print(f"{figure.text:<74}{figure.value:>8.2f}{f'{low:.2f} .. {high:.2f}':>16}{figure.goal or '-':>9}"
              f"  {figure.verdict}".rstrip())


def write_csv(file: Path, columns: tuple[str, ...], rows: list[dict[str, object]]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


PARTS = {"handshakes": bench_handshakes, "keep-alive": bench_keep_alive, "hold": bench_hold}


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="bench-loadgen", description=__doc__.splitlines()[0])
    result.add_argument("--rounds", type=int, default=10,
                        help=f"two turns of each contender, in either order (default 10); connections are held "
                             f"{HOLD_ROUNDS} times")
    result.add_argument("--turn", default="200ms", help="how long one runs while the others are stopped (default "
                        "200ms)")
    result.add_argument("--part", action="append", choices=list(PARTS), help="only this, or these (default all)")
    result.add_argument("--out", type=Path, help="where the CSV goes (default results/<time>-bench-loadgen)")
    return result


def measure(bench: Bench, rounds: int) -> None:
    for part in bench.parts:
        with crew() as programs:
            PARTS[part](bench, rounds, programs)


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    try:
        require_built(["loadgen", "proxy", "echo-backend"])
        for tool in ("wrk", "openssl"):
            if not installed(tool):
                raise Refused(tool, "", "is not installed: run scripts/install-deps bench-loadgen")
        try:
            turn_s = parse_time(arguments.turn)
        except ValueError as error:
            raise Refused("--turn", "", str(error)) from error
        if arguments.rounds < 1 or not TURN_MIN_S <= turn_s <= TURN_MAX_S:
            raise Refused("--rounds, --turn", "", f"at least 1 round of turns of {TURN_MIN_S:g} to {TURN_MAX_S:g} s")
        out = arguments.out or RESULTS / time.strftime("%Y%m%d-%H%M%S-bench-loadgen")
        out.mkdir(parents=True)
    except (Refused, OSError) as error:
        print(f"bench-loadgen: {error}", file=sys.stderr)
        return 2
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="tlsdyno-") as directory:
        bench = Bench(cpus, turn_s, Path(directory), tuple(arguments.part or PARTS))
        try:
            with interruptible():
                measure(bench, arguments.rounds)
        except (Failed, Refused) as error:
            print(f"bench-loadgen: {error}", file=sys.stderr)
            return 1
        except Interrupted as interruption:
            return interruption.exit_status
    found = list(figures(bench))
    write_csv(out / "bench.csv", COLUMNS, bench.rows)
    write_csv(out / "figures.csv", FIGURE_COLUMNS, [
        {"figure": figure.text, "median": f"{figure.value:.3f}", "low": f"{middle_half(figure.ratios)[0]:.3f}",
         "high": f"{middle_half(figure.ratios)[1]:.3f}", "goal": figure.goal, "verdict": figure.verdict}
        for figure in found])
    print(f"server on CPU {cpu_list(cpus[:1])}, generator on CPU {cpus[-1]}, {arguments.rounds} rounds of two turns of "
          f"{arguments.turn}")
    new, kept = NEW[COALESCED], KEPT_ALIVE[COALESCED]
    print(f"{LIGHT}, openssl: {CONNECTIONS} connections, {KEPT_ALIVE_CONNECTIONS} where they are kept alive; "
          f"{COALESCED}: light with -c {new.connections} --coalesce {new.coalesce}, kept alive -c {kept.connections} "
          f"--coalesce {kept.coalesce}, held {' '.join(HELD_HOW[COALESCED])}; {RESET}: {COALESCED}, with --close rst; "
          "s_time: one connection, which it ends with RST")
    print_table(bench)
    print_figures(found)
    print(f"\n{out / 'bench.csv'}, {out / 'figures.csv'}")
    return 0 if all(figure.met for figure in found) else 1
