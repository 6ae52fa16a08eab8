"""The light engine against other people's TLS: without these, a cheap client may be cheap because it is wrong."""
from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import subprocess
import threading
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from programs import START_LIMIT_S, Running, make_certificate, run, running

SUITES_13 = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
ECDHE_12 = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305", "AES128-SHA256", "AES256-SHA384"]
ECDHE_10 = ["AES128-SHA", "AES256-SHA"]
RSA_12 = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA256", "AES256-SHA256"]
RSA_10 = ["AES128-SHA", "AES256-SHA"]
GROUPS = ["X25519", "P-256", "P-384", "P-521"]
KEYS = {"RSA": "rsa:2048", "ECDSA": "ecdsa:P-256"}
SIGALGS = {"RSA": "rsa_pss_rsae_sha256", "ECDSA": "ecdsa_secp256r1_sha256"}
VERSION_OPTION = {"TLSv1": "-tls1", "TLSv1.1": "-tls1_1", "TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}


@dataclass
class Certificates:
    rsa: tuple[Path, Path, Path]
    ecdsa: tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    return Certificates(make_certificate(folder, "rsa:2048"), make_certificate(folder, "ecdsa:P-256"))


# ---- Servers ----

class OpensslServer:
    """`openssl s_server -www`, one connection at a time, which shows its counters on every page."""

    def __init__(self, port: int, version: str) -> None:
        self.port = port
        self.version = version

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/"

    def counters(self) -> tuple[int, int]:
        """(handshakes, resumptions) so far, not counting the one that asks."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old versions are what is tested
            context.minimum_version = ssl.TLSVersion.TLSv1
        page = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=START_LIMIT_S) as plain, \
                context.wrap_socket(plain, suppress_ragged_eofs=True) as stream:
            stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while piece := stream.recv(65536):
                page += piece
        text = page.decode("ascii", "replace")

        def number(what: str) -> int:
            found = re.search(rf"(\d+) {re.escape(what)}", text)
            assert found, text
            return int(found.group(1))
        return number("server accepts that finished") - 1, number("session cache hits")


@contextlib.contextmanager
def openssl_server(certificates: Certificates, version: str, *options: str) -> Iterator[OpensslServer]:
    process = subprocess.Popen(
        ["openssl", "s_server", "-accept", "127.0.0.1:0", "-www", VERSION_OPTION[version],
         "-cert", certificates.rsa[0], "-key", certificates.rsa[1],
         "-dcert", certificates.ecdsa[0], "-dkey", certificates.ecdsa[1],
         "-cipher", "ALL:@SECLEVEL=0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        seen = []
        for line in process.stdout:
            seen.append(line)
            if found := re.match(r"ACCEPT .*:(\d+)$", line.strip()):
                break
        else:
            raise AssertionError(f"s_server did not start: {seen}")
        # What it says later must be read, or it will wait for us.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield OpensslServer(int(found.group(1)), version)
    finally:
        process.kill()
        process.wait()


# ---- loadgen ----

def load(url: str, *options: str, status: int = 0) -> dict:
    done = run("loadgen", "--engine", "light", "--json", "-", *options, url)
    assert done.returncode == status, (options, done.returncode, done.stdout, done.stderr)
    result = json.loads(done.stdout)
    assert result["engine"] == "light"
    return result


def assert_agreed(result: dict, version: str, suite: str, group: str, key: str) -> None:
    for row in result["negotiated"]:
        assert (row["tls_version"], row["cipher"]) == (version, suite), row
        if row["sigalg"]:
            full = row
    if "ECDHE" in suite or version == "TLSv1.3":
        assert full["group"] == group
        assert full["sigalg"].startswith(key.lower()), full
        if version in ("TLSv1.2", "TLSv1.3"):
            assert full["sigalg"] == SIGALGS[key]
    assert result["certificate"]["key"] == KEYS[key]


@dataclass
class Combination:
    suite: str
    key: str
    group: str

    def options(self, version: str) -> list[str]:
        # The curve of the certificate must be among those offered before TLS 1.3.
        groups = self.group if self.group == "P-256" or version == "TLSv1.3" else self.group + ":P-256"
        return ["--tls-version", version, "--cipher", self.suite, "--group", groups, *(
            ["--sigalgs", SIGALGS[self.key]] if version in ("TLSv1.2", "TLSv1.3") else [])]


def combinations(version: str) -> Iterator[Combination]:
    if version == "TLSv1.3":
        for suite in SUITES_13:
            for key in KEYS:
                for group in GROUPS:
                    yield Combination(suite, key, group)
        return
    for name in (ECDHE_12 if version == "TLSv1.2" else []) + ECDHE_10:
        for key in KEYS:
            for group in GROUPS:
                yield Combination(f"ECDHE-{key}-{name}", key, group)
    for name in (RSA_12 if version == "TLSv1.2" else []) + RSA_10:
        yield Combination(name, "RSA", "X25519")


RESUME_KINDS = [(version, kind) for version in VERSION_OPTION
                for kind in (["ticket"] if version == "TLSv1.3" else ["id", "ticket"])]


def counted(server: OpensslServer, combination: Combination, count: int, *options: str) -> tuple[dict, int, int]:
    """loadgen's result, and how many handshakes and resumptions the server saw in it."""
    before = server.counters()
    result = load(server.url, "-c", "1", "-n", str(count), *combination.options(server.version), *options)
    after = server.counters()
    # The first look at the counters is a handshake, too.
    return result, after[0] - before[0] - 1, after[1] - before[1]


@pytest.mark.parametrize("version", VERSION_OPTION)
def test_every_suite_group_and_key_in_full(certificates: Certificates, version: str) -> None:
    with openssl_server(certificates, version) as server:
        for combination in combinations(version):
            result, handshakes, resumed = counted(server, combination, 2)
            assert (handshakes, resumed) == (2, 0), combination
            assert result["totals"]["handshakes_full"] == result["totals"]["transactions"] == 2, combination
            assert_agreed(result, version, combination.suite, combination.group, combination.key)


@pytest.mark.parametrize("version,kind", RESUME_KINDS)
def test_every_suite_group_and_key_resumed(certificates: Certificates, version: str, kind: str) -> None:
    with openssl_server(certificates, version) as server:
        for combination in combinations(version):
            result, handshakes, resumed = counted(server, combination, 4, "--reuse", "always", "--resume-with", kind)
            assert (handshakes, resumed) == (4, 3), combination
            totals = result["totals"]
            assert (totals["handshakes_full"], totals["handshakes_resumed"]) == (1, 3), combination
            assert totals["resume_refused"] == 0
            assert_agreed(result, version, combination.suite, combination.group, combination.key)


@pytest.mark.parametrize("key_share", ["reuse", "fresh"])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("group", GROUPS)
def test_keys_of_its_own_agree_as_the_base_point_does(certificates: Certificates, key_share: str, version: str,
                                                      group: str) -> None:
    with openssl_server(certificates, version) as server:
        result = load(server.url, "-c", "1", "-n", "3", "--tls-version", version, "--key-share", key_share,
                      "--group", f"{group}:P-256" if group != "P-256" else group)
        assert result["totals"]["handshakes_full"] == 3
        assert {row["group"] for row in result["negotiated"]} == {group}


@pytest.mark.parametrize("key_share", ["base", "reuse", "fresh"])
def test_hello_retry_request(certificates: Certificates, key_share: str) -> None:
    """The server wants another group than the one we sent a share of; once in full, then with a PSK."""
    with openssl_server(certificates, "TLSv1.3", "-groups", "P-384") as server:
        result = load(server.url, "-c", "1", "-n", "4", "--reuse", "always", "--group", "X25519:P-384",
                      "--key-share", key_share)
        assert (result["totals"]["handshakes_full"], result["totals"]["handshakes_resumed"]) == (1, 3)
        assert {row["group"] for row in result["negotiated"]} == {"P-384"}


def test_a_request_for_a_client_certificate_is_answered_with_none(certificates: Certificates) -> None:
    for version in ("TLSv1.2", "TLSv1.3"):
        with openssl_server(certificates, version, "-verify", "1") as server:
            assert load(server.url, "-c", "1", "-n", "3")["totals"]["handshakes_full"] == 3


def test_a_refusal_by_the_server_is_an_alert(certificates: Certificates) -> None:
    with openssl_server(certificates, "TLSv1.3") as server:
        result = load(server.url, "-c", "1", "-n", "2", "--tls-version", "TLSv1.2", status=1)
        assert result["totals"]["errors"]["tls_alert"] == 2
    with openssl_server(certificates, "TLSv1.3", "-groups", "P-521") as server:
        result = load(server.url, "-c", "1", "-n", "2", "--group", "X25519", status=1)
        assert result["totals"]["errors"]["tls_alert"] == 2


# ---- The reference proxy counts what it sees ----

@contextlib.contextmanager
def proxy(certificates: Certificates, *options: str) -> Iterator[Running]:
    with running("echo-backend", "http") as backend, \
            running("proxy", "-f", "127.0.0.1:0", "--stats", "127.0.0.1:0", "-b", backend.address, *options,
                    str(certificates.ecdsa[2]), str(certificates.rsa[2])) as server:
        yield server


def proxy_counters(server: Running) -> dict:
    with urllib.request.urlopen(f"http://{server.announced['stats']}/stats.json", timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize("options", [
    ["--tls-version", "TLSv1.3"],
    ["--tls-version", "TLSv1.3", "--reuse", "always"],
    ["--tls-version", "TLSv1.3", "--reuse", "every:5"],
    ["--tls-version", "TLSv1.2", "--cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
    ["--tls-version", "TLSv1.2", "--cipher", "AES128-GCM-SHA256"],
    ["--tls-version", "TLSv1.2", "--reuse", "always", "--resume-with", "id"],
    ["--tls-version", "TLSv1.2", "--reuse", "every:5", "--resume-with", "ticket"],
    ["--requests-per-connection", "0", "--tls-version", "TLSv1.3"],
    ["--requests-per-connection", "0", "--tls-version", "TLSv1.3", "--close", "fin"],
    ["--requests-per-connection", "0", "--tls-version", "TLSv1.2", "--close", "fin"],
    ["--requests-per-connection", "0", "--tls-version", "TLSv1.3", "--reuse", "always"],
    ["--requests-per-connection", "7", "--tls-version", "TLSv1.3"],
], ids=" ".join)
def test_the_proxy_counts_the_same_handshakes(certificates: Certificates, options: list[str]) -> None:
    with proxy(certificates, "-c", "ALL") as server:
        result = load(f"https://{server.address}/?s=100", "-c", "10", "-n", "200", *options)
        counters = proxy_counters(server)
        totals = result["totals"]
        assert sum(totals["errors"].values()) == 0
        assert counters["handshakes_full"] == totals["handshakes_full"]
        assert counters["handshakes_resumed"] == totals["handshakes_resumed"]
        assert counters["handshakes_failed"] == 0
        if "always" in options:
            assert totals["handshakes_full"] == 10


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("size", ["0", "1", "16k", "17k", "1m"])
def test_bodies_of_every_size_come_back_byte_for_byte(certificates: Certificates, version: str, size: str) -> None:
    """Large ones go out in several records and partial writes while the echo comes in."""
    for cipher in (["TLS_CHACHA20_POLY1305_SHA256"] if version == "TLSv1.3" else
                   ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-SHA384"]):
        with proxy(certificates, "-c", "ALL") as server:
            result = load(f"https://{server.address}/", "-c", "3", "-n", "12", "--requests-per-connection", "3",
                          "--body-size", size, "--check-body", "--tls-version", version, "--cipher", cipher)
            assert result["totals"]["transactions"] == 12
            assert sum(result["totals"]["errors"].values()) == 0


def test_ten_thousand_records_on_one_connection(certificates: Certificates) -> None:
    """More connections than there are cached contexts, too: each record finds its own keys."""
    with proxy(certificates) as server:
        url = f"https://{server.address}/?s=1"
        few = load(url, "-c", "2", "-n", "5000", "--requests-per-connection", "inf")
        many = load(url, "-c", "700", "-n", "2800", "--requests-per-connection", "inf")
        assert few["totals"]["handshakes_full"] == 2
        assert many["totals"]["handshakes_full"] == 700
        assert sum(few["totals"]["errors"].values()) + sum(many["totals"]["errors"].values()) == 0


# ---- A server that is tampered with ----

class Tamperer:
    """A relay that flips one bit of what the server sends, in the record whose number it is told."""

    def __init__(self, target: tuple[str, int], record: int) -> None:
        self.target = target
        self.record = record
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(START_LIMIT_S)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.listener.getsockname()[1]}/"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(self.target, START_LIMIT_S) as server:
            client.settimeout(START_LIMIT_S)
            threading.Thread(target=self._copy, args=(client, server), daemon=True).start()
            stream = server.makefile("rb")
            count = 0
            while header := stream.read(5):
                body = bytearray(stream.read(int.from_bytes(header[3:5], "big")))
                if count == self.record:
                    # Not the length of an empty message: that would make us wait for what does not come.
                    body[-1 if len(body) > 4 else 0] ^= 1
                count += 1
                client.sendall(header + body)
            client.shutdown(socket.SHUT_WR)

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.listener.close()


@pytest.mark.parametrize("options", [
    ["--tls-version", "TLSv1.3"],
    ["--tls-version", "TLSv1.2"],
    ["--tls-version", "TLSv1.2", "--cipher", "AES128-GCM-SHA256"],
], ids=" ".join)
@pytest.mark.parametrize("record", range(4))
def test_one_flipped_bit_of_a_flight_is_a_protocol_error(certificates: Certificates, options: list[str],
                                                         record: int) -> None:
    with proxy(certificates) as server:
        tamperer = Tamperer(server.host_port, record)
        result = load(tamperer.url, "-c", "1", "-n", "2", "--requests-per-connection", "0", *options, status=1)
        tamperer.close()
        errors = result["totals"]["errors"]
        # Some bits are noticed by the server first (its own Finished check): it says so in an alert.
        assert errors["tls_protocol"] + errors["tls_alert"] == sum(errors.values()) == 2
        assert result["totals"]["handshakes_full"] == 0


# ---- What it is asked for ----

def test_what_light_does_not_speak_falls_to_openssl_and_says_so(certificates: Certificates) -> None:
    with proxy(certificates) as server:
        url = f"https://{server.address}/"
        done = run("loadgen", "-n", "2", "-c", "1", "--group", "X448:X25519", "--json", "-", url)
        assert done.returncode == 0
        assert json.loads(done.stdout)["engine"] == "openssl"
        assert "engine openssl, not light: --group: X448:X25519" in done.stderr
        done = run("loadgen", "-n", "2", "-c", "1", "--engine", "light", "--group", "X448", url)
        assert done.returncode == 2
        assert "--group: X448: the light engine does not speak it" in done.stderr
        done = run("loadgen", "-n", "2", "-c", "1", "--engine", "openssl", "--key-share", "base", url)
        assert done.returncode == 2


def test_help_and_result_say_that_there_is_no_secrecy(certificates: Certificates) -> None:
    assert "HAVE NO SECRECY" in " ".join(run("loadgen", "--help").stdout.split())
    with proxy(certificates) as server:
        assert "no secrecy" in load(f"https://{server.address}/", "-n", "2", "-c", "1")["engine_note"]
