"""Programs that stand in for the built ones, so that a test decides what the runner gets to see.

One script plays all four: the name it is called by says which, the environment variable SUITE_FAKE (JSON) says how."""
import json
import os
from pathlib import Path

SCRIPT = r'''#!/usr/bin/python3
import http.server, json, os, signal, socket, sys, threading, time
name, argv = os.path.basename(sys.argv[0]), sys.argv[1:]
recipe = json.loads(os.environ.get("SUITE_FAKE", "{}"))
here = os.path.dirname(os.path.abspath(sys.argv[0]))
loading = os.path.join(here, "loading")  # is there once a load has begun


def option(key, default=None):
    return argv[argv.index(key) + 1] if key in argv else default


def seconds(text):
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text.rstrip("s"))


def counters(port):
    """What the load counted of the proxy that listens there."""
    return os.path.join(here, f"counters-{port}.json")


def dies():
    if recipe.get("dies") != name:
        return
    if "once" in recipe:
        try:
            os.close(os.open(os.path.join(here, "died"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    print("I am not feeling well", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def burn(until):
    while not until():
        pass


def forever():
    if recipe.get("stubborn") == name:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if recipe.get("forks") == name and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(0.02)  # in each window it takes some CPU time


class Statistics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        counts = {"handshakes_full": 0, "handshakes_resumed": 0, "handshakes_failed": 0, "connections_accepted": 0}
        if os.path.exists(counters(self.server.port)):
            counts.update(json.load(open(counters(self.server.port))))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(counts).encode())

    def log_message(self, *_args):
        pass


def listen():
    if recipe.get("silent") == name:
        print("it cannot be done", file=sys.stderr, flush=True)
        sys.exit(1)
    if recipe.get("burns_before") == name:
        burn(lambda: time.process_time() > 1.0)
    if name == "echo-backend" and os.path.exists(loading):
        os.remove(loading)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    if name == "proxy":
        if os.path.exists(counters(port)):
            os.remove(counters(port))
        statistics = http.server.HTTPServer(("127.0.0.1", 0), Statistics)
        statistics.port = port
        threading.Thread(target=statistics.serve_forever, daemon=True).start()
        print("stats on 127.0.0.1:%d" % statistics.server_address[1], flush=True)
    print("listening on 127.0.0.1:%d" % port, flush=True)
    while {"dies", "strays", "burns"} & {key for key, value in recipe.items() if value == name}:
        if os.path.exists(loading):
            break
        time.sleep(0.01)
    if recipe.get("strays") == name:
        os.sched_setaffinity(0, range(os.cpu_count()))
    if recipe.get("burns") == name:
        burn(lambda: False)
    dies()
    forever()


def load():
    if recipe.get("only", option("--reuse")) != option("--reuse"):
        recipe.clear()
    open(loading, "w").close()
    if recipe.get("strays") == name:
        os.sched_setaffinity(0, range(os.cpu_count()))
    dies()
    length = seconds(option("-d"))
    time.sleep(seconds(option("--warmup")) + recipe.get("late_s", 0))
    begin, begin_ns = time.monotonic(), time.time_ns()
    if recipe.get("burns") == name:
        burn(lambda: time.monotonic() > begin + length)
    else:
        time.sleep(length)
    length = time.monotonic() - begin
    resumed = {"never": 0, "always": 1000}[option("--reuse")]
    counts = {"handshakes_full": 1000 - resumed, "handshakes_resumed": resumed}
    counts.update(recipe.get("counts", {}))
    body = int(argv[-1].partition("?s=")[2])
    totals = dict(counts, connections_opened=1000, transactions=1000, bytes_received=10 ** 7, bytes_sent=10 ** 6)
    result = {
        "version": "0", "engine": "fake", "started_unix_ns": begin_ns, "duration_s": length, "workers": 1,
        "connections": int(option("-c")), "transactions": 1000, "connections_opened": 1000, **counts,
        "resume_offered": resumed, "resume_refused": 0,
        "bytes_received": 10 ** 7, "bytes_sent": 10 ** 6,
        "rates": {"transactions_per_s": 1000 / length, "connections_per_s": 1000 / length,
                  "handshakes_full_per_s": counts["handshakes_full"] / length,
                  "handshakes_resumed_per_s": counts["handshakes_resumed"] / length},
        "latency_us": {"transaction": {"count": 1000, "mean": 5, "p50": 4, "p90": 6, "p99": 7, "p999": 8, "max": 9}},
        "negotiated": [{"tls_version": option("--tls-version"), "cipher": option("--cipher"),
                        "group": option("--group"), "count": 1000}],
        "certificates": [{"key": "ecdsa:P-256", "chain_bytes": 500, "count": 1000}], "errors": {}, "totals": totals,
        "half_rates": {"first": 500, "second": 500}, "response_body_bytes": {"min": body, "max": body},
    }
    result.update(recipe.get("result", {}))
    totals["errors"] = result["errors"]
    with open(counters(argv[-1].partition("://")[2].partition("/")[0].rpartition(":")[2]), "w") as file:
        json.dump({**{key: totals[key] for key in counts}, "connections_accepted": totals["connections_opened"],
                   **recipe.get("server_counts", {})}, file)
    with open(option("--json"), "w") as file:
        file.write(recipe["json"] if "json" in recipe else json.dumps(result))
    sys.exit(recipe.get("status", 1 if any(result["errors"].values()) else 0))


if name == "proxy" and "--version" in argv:
    print("proxy 0.0.fake")
elif name == "tls-floor":
    if recipe.get("silent") == name:
        print("it cannot be done", file=sys.stderr, flush=True)
        sys.exit(1)
    with open(option("--json"), "w") as file:
        json.dump({"cpu_us_per_op": 100.0}, file)
else:
    (load if name == "loadgen" else listen)()
'''

SCENARIO = """
title = "a scenario of a test"
[subject]
names = ["reference"]
[axes]
reuse = ["never", "always"]
[load]
cert_key = "ecdsa:P-256"
tls_version = "TLSv1.3"
cipher = "TLS_AES_128_GCM_SHA256"
connections = 4
duration = "400ms"
warmup = "100ms"
"""

ROOT = Path(__file__).resolve().parent.parent.parent
TLSDYNO = ROOT / "scripts" / "tlsdyno"


def build(directory: Path) -> Path:
    """A build directory of fakes."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("proxy", "echo-backend", "loadgen", "tls-floor"):
        program = directory / name
        program.write_text(SCRIPT)
        program.chmod(0o755)
    return directory


def environment(build_directory: Path, **recipe: object) -> dict[str, str]:
    temporary = build_directory.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    return {**os.environ, "TLSDYNO_BUILD_DIR": str(build_directory), "SUITE_FAKE": json.dumps(recipe),
            "TMPDIR": str(temporary)}


def sessions_below(directory: Path) -> list[str]:
    """Command lines of living processes that mention the directory: what a run of a test left behind."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(directory) in line:
                found.append(line)
    return found
