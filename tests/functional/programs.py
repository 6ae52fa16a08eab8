"""The built programs, started for a test and always stopped; and what they need to run."""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("TLSDYNO_BUILD_DIR", ROOT / "build")).resolve()
START_LIMIT_S = 60  # a slow machine is not a fault


def program(name: str) -> str:
    return str(BUILD / name)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def name_of(pid: int) -> str:
    """What a process calls itself; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Running:
    """A server that said where it listens. `errors` grows while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.announced: dict[str, str] = {}
        self.addresses: list[str] = []  # of all frontends
        self.errors: list[str] = []
        self._errors_reader = threading.Thread(target=self._read_errors, daemon=True)
        self._errors_reader.start()

    def _read_errors(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.errors.append(line.rstrip("\n"))

    def wait_until_listening(self, frontends: int = 1) -> None:
        """Reads the `WHAT on ADDRESS` lines up to `listening on`, which are the last: one of each frontend."""
        assert self.process.stdout
        alarm = threading.Timer(START_LIMIT_S, self.process.kill)
        alarm.start()
        try:
            for line in self.process.stdout:
                what, _, address = line.strip().partition(" on ")
                self.announced[what] = address
                if what == "listening":
                    self.addresses.append(address)
                if len(self.addresses) == frontends:
                    return
        finally:
            alarm.cancel()
        self.process.wait()
        self._errors_reader.join(5)
        raise AssertionError(f"{self.process.args} did not start: {self.errors}")

    @property
    def address(self) -> str:
        """Of the first frontend."""
        return self.addresses[0]

    @property
    def host_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)

    def workers(self) -> list[int]:
        """Process numbers of the workers: the children of the master, but for those that show statistics or share
        sessions."""
        return [pid for pid in children(self.process.pid) if name_of(pid) not in ("proxy-stats", "proxy-sync", "")]


@contextlib.contextmanager
def running(name: str, *arguments: str, within: Sequence[str] = (), frontends: int = 1) -> Iterator[Running]:
    """The server `name`, from its `listening on` lines to the end of the block. `within`: a command that becomes it."""
    process = subprocess.Popen([*within, program(name), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               stdin=subprocess.DEVNULL, text=True, start_new_session=True)
    server = Running(process)
    try:
        server.wait_until_listening(frontends)
        yield server
    finally:
        process.kill()  # its workers end with it
        process.wait()
        server._errors_reader.join(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # one that hangs: it would hold the pipe that is read here
        server._errors_reader.join()
        assert process.stdout and process.stderr
        process.stdout.close()
        process.stderr.close()


def preloaded(name: str, tmp_path: Path, setting: str) -> list[str]:
    """A command that runs another with a library, made of a C file here, and what this looks for in its environment."""
    library = tmp_path / f"{name}.so"
    if not library.exists():
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library),
                        str(Path(__file__).with_name(f"{name}.c"))], check=True)
    return ["env", f"LD_PRELOAD={library}", setting, "ASAN_OPTIONS=verify_asan_link_order=0"]


def run(name: str, *arguments: str, timeout: float = 120,
        within: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """A program that ends by itself. `within`: a command that becomes it."""
    return subprocess.run([*within, program(name), *arguments], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, check=False)


def is_alive(pid: int) -> bool:
    """True for a process that still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


KEY_OPTIONS = {
    "rsa:2048": ["-newkey", "rsa:2048"],
    "rsa:4096": ["-newkey", "rsa:4096"],
    "ecdsa:P-256": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
}


def make_certificate(folder: Path, key: str = "ecdsa:P-256", name: str = "localhost",
                     address: str = "127.0.0.1") -> tuple[Path, Path, Path]:
    """A self-signed certificate for `address` and `name`: (certificate, key, both in one file)."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = key.replace(":", "-") + "-" + name
    certificate, private, both = (folder / f"{stem}.{end}" for end in ("crt", "key", "pem"))
    subprocess.run(["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName=DNS:{name},IP:{address}", *KEY_OPTIONS[key],
                    "-keyout", str(private), "-out", str(certificate)], check=True, capture_output=True)
    both.write_text(private.read_text() + certificate.read_text())
    return certificate, private, both
