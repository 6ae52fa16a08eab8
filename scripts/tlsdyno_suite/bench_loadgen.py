"""What load generators cost: their own CPU time per operation, side by side in one run against the same servers.

A generator's CPU time is that of its whole life, start-up included, as the kernel reports it when the process ends, so
all are measured alike and from outside. The proxy's is read from its processes' clocks around the same run. Rounds are
interleaved; every figure is the median over the rounds, every ratio the median of the rounds' own ratios.

The light engine is measured twice: as it is, and with --coalesce, which handles together what happens within two
milliseconds (0.3 where connections are kept alive). That pays where the generator waits most of the time and where a
response comes in several pieces; for many small transactions it only slows the server down.

On loopback the sender pays for part of the receiver's network work, so a generator that sends less often looks a
little cheaper, and the proxy a little dearer, than across a network."""
import argparse
import contextlib
import csv
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import sessions
from .certificates import certificate
from .placement import cpu_list
from .processes import Failed, Interrupted, Program, crew, interruptible, start, wait_until_ready
from .programs import RESULTS, built, installed, require_built
from .refusal import Refused
from .loading import printed_address
from .sampler import process_clock
from .statistics import median
from .units import format_time, parse_time

# Enough to keep the server's core full. With many more, each waits so long that the kernel sends its last segment again
# (tail loss probes), which costs the client but is no work of a load generator.
CONNECTIONS = 10
# Where connections are kept alive nothing of that kind happens: as many as the scenarios have.
KEPT_ALIVE_CONNECTIONS = 50
HELD = 10000
HOLD_RAMP_S, HOLD_S = 8, 15
READY_LIMIT_S = 10.0
# With ten connections the server is as busy with it as without.
COALESCE = "2ms"
COALESCE_KEPT_ALIVE = "0.3ms"
COALESCED = "coalesced"
DRAIN_LIMIT_S = 30.0
COLUMNS = ("part", "case", "tool", "round", "ops", "client_cpu_us_per_op", "server_cpu_us_per_op", "note")


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


@dataclass
class Sample:
    ops: int
    client_us: float
    server_us: float | None = None
    note: str = ""


@dataclass
class Bench:
    cpus: tuple[int, ...]
    duration_s: float
    warmup_s: float
    directory: Path
    rows: list[dict[str, object]] = field(default_factory=list)
    parts: tuple[str, ...] = ()
    connections: int | None = None  # None: as the part has them
    held: list[tuple[float, float]] = field(default_factory=list)  # share of a core, KiB a connection

    def connections_of(self, requests: str) -> str:
        return str(self.connections or (KEPT_ALIVE_CONNECTIONS if requests == "inf" else CONNECTIONS))

    @property
    def client_cpu(self) -> str:
        return str(self.cpus[-1])

    def add(self, part: str, case: str, tool: str, round_number: int, sample: Sample) -> None:
        self.rows.append({
            "part": part, "case": case, "tool": tool, "round": round_number, "ops": sample.ops,
            "client_cpu_us_per_op": f"{sample.client_us:.3f}",
            "server_cpu_us_per_op": "" if sample.server_us is None else f"{sample.server_us:.3f}", "note": sample.note})

    def figures(self, part: str, case: str, tool: str, column: str = "client_cpu_us_per_op") -> list[float]:
        return [float(str(row[column])) for row in self.rows
                if (row["part"], row["case"], row["tool"]) == (part, case, tool) and row.get(column)]


def run_client(bench: Bench, command: list[str]) -> tuple[float, str]:
    """CPU seconds of the program's whole life, and what it printed."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(["taskset", "-c", bench.client_cpu, *command], stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            deadline = time.monotonic() + bench.warmup_s + bench.duration_s + DRAIN_LIMIT_S
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    process.returncode = os.waitstatus_to_exitcode(status)
                    break
                if time.monotonic() > deadline:
                    raise Failed(f"{command[0]} did not end")
                time.sleep(0.02)
        finally:
            if process.returncode is None:
                for member in sessions.members(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(member, 9)
                process.wait()
        output.seek(0)
        text = output.read()
    if process.returncode != 0:
        raise Failed(f"{Path(command[0]).name} ended with status {process.returncode}: {text.strip()[-300:]}")
    return usage.ru_utime + usage.ru_stime, text


def server_cpu_s(programs: list[Program]) -> float:
    total = 0.0
    for program in programs:
        for pid in sessions.members(program.session):
            with contextlib.suppress(OSError):
                total += time.clock_gettime(process_clock(pid))
    return total


def loadgen(bench: Bench, handshake: Handshake, engine: str, address: str, servers: list[Program],
            requests: str = "0", path: str = "/", coalesce: str = "0") -> Sample:
    """One run of our own generator. Its warm-up counts too: the proxy's clock and the generator's cover both."""
    result_file = bench.directory / "loadgen.json"
    resume = ["--resume-with", handshake.resume_with] if handshake.reuse != "never" else []
    group = ["--group", handshake.group] if handshake.group else []
    before = server_cpu_s(servers)
    client_s, _ = run_client(bench, [
        str(built("loadgen")), "--engine", engine, "-c", bench.connections_of(requests), "-w", "1",
        "--cpus", bench.client_cpu,
        "-d", format_time(bench.duration_s), "--warmup", format_time(bench.warmup_s), "--reuse", handshake.reuse,
        *resume, "--requests-per-connection", requests, "--tls-version", handshake.tls_version,
        "--cipher", handshake.cipher, *group, "--json", str(result_file), "--coalesce", coalesce,
        f"https://{address}{path}"])
    server_s = server_cpu_s(servers) - before
    result = json.loads(result_file.read_text())
    totals = result["totals"]
    if result["engine"] != engine:
        raise Failed(f"loadgen used its {result['engine']} engine, not {engine}")
    ops = totals["transactions"] if requests == "inf" else totals["handshakes_full"] + totals["handshakes_resumed"]
    share = totals["handshakes_resumed"] / max(1, totals["handshakes_full"] + totals["handshakes_resumed"])
    return Sample(ops, client_s * 1e6 / ops, server_s * 1e6 / ops, f"{100 * share:.2f} % resumed")


def s_time(bench: Bench, handshake: Handshake, address: str, servers: list[Program]) -> Sample:
    """OpenSSL's own timer of new connections: one at a time, blocking."""
    version = [] if handshake.tls_version == "TLSv1.3" else ["-tls1_2"]
    cipher = ["-ciphersuites" if handshake.tls_version == "TLSv1.3" else "-cipher", handshake.cipher]
    before = server_cpu_s(servers)
    client_s, text = run_client(bench, [
        "openssl", "s_time", "-connect", address, "-new", "-time", str(round(bench.duration_s)), *version, *cipher])
    server_s = server_cpu_s(servers) - before
    found = re.search(r"(\d+) connections in [\d.]+ real seconds", text)
    if not found or not int(found[1]):
        raise Failed(f"openssl s_time: {text.strip()[-200:]}")
    return Sample(int(found[1]), client_s * 1e6 / int(found[1]), server_s * 1e6 / int(found[1]))


def wrk(bench: Bench, address: str, path: str, servers: list[Program]) -> Sample:
    before = server_cpu_s(servers)
    client_s, text = run_client(bench, ["wrk", "-t1", f"-c{bench.connections_of('inf')}",
                                        f"-d{round(bench.duration_s)}s", f"https://{address}{path}"])
    server_s = server_cpu_s(servers) - before
    found = re.search(r"(\d+) requests in", text)
    if not found or not int(found[1]):
        raise Failed(f"wrk: {text.strip()[-200:]}")
    return Sample(int(found[1]), client_s * 1e6 / int(found[1]), server_s * 1e6 / int(found[1]))


def server(bench: Bench, programs: list[Program], role: str, command: list[str], name: str) -> tuple[Program, str]:
    program = start(role, command, bench.cpus[:1], bench.directory / f"{name}.log")
    programs.append(program)
    wait_until_ready(program, lambda: printed_address(program, "listening") is not None, READY_LIMIT_S)
    return program, printed_address(program, "listening") or ""


def proxy_command(handshake: Handshake, backend: str) -> list[str]:
    ciphers = "--ciphersuites" if handshake.tls_version == "TLSv1.3" else "--ciphers"
    group = ["--groups", handshake.group] if handshake.group else []
    return [str(built("proxy")), "-q", "-f", "127.0.0.1:0", "-b", backend, "-n", "1",
            "--tickets", "off" if handshake.resume_with == "id" else "on",
            "--tls-min", handshake.tls_version, "--tls-max", handshake.tls_version, ciphers, handshake.cipher, *group,
            str(certificate(handshake.cert_key))]


def bench_handshakes(bench: Bench, rounds: int, programs: list[Program]) -> None:
    origin = [str(built("echo-backend")), "http", "-l", "127.0.0.1:0"]
    _, backend = server(bench, programs, "backend", origin, "backend")
    proxies = {}
    for handshake in (*FULL, *RESUMED):
        name = re.sub(r"[^A-Za-z0-9]+", "-", handshake.name)
        proxies[handshake.name] = server(bench, programs, "subject", proxy_command(handshake, backend), name)
    for round_number in range(1, rounds + 1):
        for handshake in FULL:
            proxy, address = proxies[handshake.name]
            for engine in ("light", "openssl"):
                for requests, part in (("0", "full"), ("1", "full + request")):
                    sample = loadgen(bench, handshake, engine, address, [proxy], requests, "/?s=1024")
                    bench.add(part, handshake.name, engine, round_number, sample)
            for requests, part in (("0", "full"), ("1", "full + request")):
                sample = loadgen(bench, handshake, "light", address, [proxy], requests, "/?s=1024", COALESCE)
                bench.add(part, handshake.name, COALESCED, round_number, sample)
            bench.add("full", handshake.name, "s_time", round_number, s_time(bench, handshake, address, [proxy]))
        for handshake in RESUMED:
            proxy, address = proxies[handshake.name]
            for engine in ("light", "openssl"):
                sample = loadgen(bench, handshake, engine, address, [proxy], "1", "/?s=1024")
                bench.add("resumed + request", handshake.name, engine, round_number, sample)


def bench_keep_alive(bench: Bench, rounds: int, programs: list[Program]) -> None:
    """Straight at an HTTPS origin: what is measured is the generator."""
    origin, address = server(bench, programs, "subject", [
        str(built("echo-backend")), "https", "-l", "127.0.0.1:0", "--cert", str(certificate("ecdsa:P-256")),
        "--key", str(certificate("ecdsa:P-256"))], "origin")
    for round_number in range(1, rounds + 1):
        for size in SIZES:
            path = f"/?s={size}"
            for engine in ("light", "openssl"):
                sample = loadgen(bench, ECDSA_13, engine, address, [origin], "inf", path)
                bench.add("keep-alive", f"{size} bytes", engine, round_number, sample)
            sample = loadgen(bench, ECDSA_13, "light", address, [origin], "inf", path, COALESCE_KEPT_ALIVE)
            bench.add("keep-alive", f"{size} bytes", COALESCED, round_number, sample)
            bench.add("keep-alive", f"{size} bytes", "wrk", round_number, wrk(bench, address, path, [origin]))


def hold(bench: Bench, connections: int, address: str) -> tuple[float, float]:
    """Share of a core while so many connections are held, and memory in KiB of all processes of loadgen."""
    result_file = bench.directory / "hold.json"
    program = start("client", [
        str(built("loadgen")), "--engine", "light", "--hold", "-c", str(connections), "-w", "1", "--cpus",
        bench.client_cpu, "--ramp", f"{HOLD_RAMP_S}s", "--warmup", "2s", "-d", f"{HOLD_S}s", "--json", str(result_file),
        f"https://{address}/?s=0"], bench.cpus[-1:], bench.directory / "hold.log")
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
    for round_number in range(1, rounds + 1):
        few_busy, few_kib = hold(bench, 10, address)
        busy, kib = hold(bench, HELD, address)
        bench.held.append((busy, (kib - few_kib) / (HELD - 10)))
        bench.rows.append({"part": "hold", "case": f"{HELD} connections", "tool": "light", "round": round_number,
                           "ops": HELD, "note": f"{100 * busy:.2f} % of a core ({100 * few_busy:.2f} % with 10), "
                           f"{bench.held[-1][1]:.2f} KiB a connection"})


@dataclass(frozen=True)
class Goal:
    text: str
    limit: float
    at_most: bool
    ratios: list[float]

    @property
    def figure(self) -> float:
        return median(self.ratios)

    @property
    def met(self) -> bool:
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit


def ratios(above: list[float], below: list[float]) -> list[float]:
    return [over / under for over, under in zip(above, below, strict=True)]


def goals(bench: Bench) -> Iterator[Goal]:
    for handshake in FULL if "handshakes" in bench.parts else ():
        name = handshake.name
        limit = 0.35 if handshake.cert_key.startswith("ecdsa") else 0.15
        for tool in ("light", COALESCED):
            own = bench.figures("full", name, tool)
            yield Goal(f"{name}, full: s_time / {tool}", 10, False, ratios(bench.figures("full", name, "s_time"), own))
            yield Goal(f"{name}, full: openssl engine / {tool}", 5, False,
                       ratios(bench.figures("full", name, "openssl"), own))
            for part in ("full", "full + request"):
                yield Goal(f"{name}, {part}: {tool} / proxy", limit, True,
                           ratios(bench.figures(part, name, tool),
                                  bench.figures(part, name, tool, "server_cpu_us_per_op")))
    for handshake in RESUMED if "handshakes" in bench.parts else ():
        part, name = "resumed + request", handshake.name
        served = bench.figures(part, name, "light", "server_cpu_us_per_op")
        yield Goal(f"{name}, {part}: light / proxy", 0.7, True, ratios(bench.figures(part, name, "light"), served))
    for size in SIZES if "keep-alive" in bench.parts else ():
        name = f"{size} bytes"
        for tool in ("light", COALESCED):
            yield Goal(f"keep-alive, {name}: wrk / {tool}", 1.3, False,
                       ratios(bench.figures("keep-alive", name, "wrk"), bench.figures("keep-alive", name, tool)))
    if bench.held:
        yield Goal(f"{HELD} connections held, % of a core", 2, True, [100 * busy for busy, _ in bench.held])
        yield Goal(f"{HELD} connections held, KiB each", 4, True, [kib for _, kib in bench.held])


def print_table(bench: Bench) -> None:
    heads = f"{'light':>10}{COALESCED:>10}{'openssl':>10}{'other':>16}{'server':>10}"
    print(f"{'client CPU us per op, medians':<52}{heads}")
    seen = dict.fromkeys((str(row["part"]), str(row["case"])) for row in bench.rows if row["part"] != "hold")
    for part, case in seen:
        cells = []
        for tool in ("light", COALESCED, "openssl"):
            values = bench.figures(part, case, tool)
            cells.append(f"{median(values):>10.1f}" if values else f"{'-':>10}")
        other = next((f"{tool} {median(values):.1f}" for tool in ("s_time", "wrk")
                      if (values := bench.figures(part, case, tool))), "-")
        served = median(bench.figures(part, case, "light", "server_cpu_us_per_op"))
        print(f"{part + ': ' + case:<52}{''.join(cells)}{other:>16}{served:>10.1f}")


def print_goals(found: list[Goal]) -> None:
    print(f"\n{'figure, median over the rounds':<72}{'figure':>8}{'goal':>9}")
    for goal in found:
        sign = "<=" if goal.at_most else ">="
        print(f"{goal.text:<72}{goal.figure:>8.2f}{sign:>4}{goal.limit:>5g}  {'met' if goal.met else 'NOT MET'}")


PARTS = {"handshakes": bench_handshakes, "keep-alive": bench_keep_alive, "hold": bench_hold}


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="bench-loadgen", description=__doc__.splitlines()[0])
    result.add_argument("--rounds", type=int, default=3, help="interleaved repeats (default 3)")
    result.add_argument("--duration", default="3s", help="of each run (default 3s)")
    result.add_argument("--connections", type=int,
                        help=f"of each generator (default {CONNECTIONS}; {KEPT_ALIVE_CONNECTIONS} where they are kept "
                             f"alive; {HELD} are held)")
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
            duration_s = parse_time(arguments.duration)
        except ValueError as error:
            raise Refused("--duration", "", str(error)) from error
        if arguments.rounds < 1 or duration_s < 1:
            raise Refused("--rounds, --duration", "", "at least 1 round of 1 s")
        if arguments.connections is not None and not 1 <= arguments.connections <= HELD:
            raise Refused("--connections", "", f"1 to {HELD}")
        out = arguments.out or RESULTS / time.strftime("%Y%m%d-%H%M%S-bench-loadgen")
        out.mkdir(parents=True)
    except (Refused, OSError) as error:
        print(f"bench-loadgen: {error}", file=sys.stderr)
        return 2
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="tlsdyno-") as directory:
        bench = Bench(cpus, duration_s, 0.5, Path(directory), parts=tuple(arguments.part or PARTS),
                      connections=arguments.connections)
        try:
            with interruptible():
                measure(bench, arguments.rounds)
        except (Failed, Refused) as error:
            print(f"bench-loadgen: {error}", file=sys.stderr)
            return 1
        except Interrupted as interruption:
            return interruption.exit_status
    with (out / "bench.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(bench.rows)
    print(f"server on CPU {cpu_list(cpus[:1])}, generator on CPU {bench.client_cpu}, "
          f"{bench.connections_of('1')} connections, "
          f"{bench.connections_of('inf')} where they are kept alive, {arguments.rounds} rounds")
    print_table(bench)
    print_goals(list(goals(bench)))
    print(f"\n{out / 'bench.csv'}")
    return 0
