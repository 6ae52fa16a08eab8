"""tls-floor does what it is asked to, or says so: a floor for something else would make every subject look wrong."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from programs import is_alive, make_certificate, program, run


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("certificates")
    return {key: make_certificate(folder, key)[2] for key in ("ecdsa:P-256", "rsa:2048")}


def arguments(certificate: Path, mode: str, *more: str) -> list[str]:
    return ["--cert", str(certificate), "--mode", mode, "--request-bytes", "100", "--response-bytes", "1100",
            "--duration", "20ms", *more]


WORK = [
    ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519", "ecdsa:P-256", []),
    ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256", "P-256", "rsa:2048", []),
    ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "X25519", "rsa:2048", []),
    ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", "P-384", "ecdsa:P-256", []),
    ("TLSv1.2", "AES128-SHA", "", "rsa:2048", []),
    ("TLSv1.1", "ECDHE-RSA-AES128-SHA", "P-256", "rsa:2048", []),
    ("TLSv1", "AES256-SHA", "", "rsa:2048", []),
]


@pytest.mark.parametrize("version, cipher, group, key, more", WORK)
@pytest.mark.parametrize("mode", ["full", "resumed", "keep-alive", "relay"])
def test_what_is_asked_is_what_is_measured(certificates, version, cipher, group, key, more, mode):
    done = run("tls-floor", *arguments(certificates[key], mode), "--tls-version", version, "--cipher", cipher,
               *(["--group", group] if group else []), "--json", "-")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["mode"] == mode
    assert (result["tls_version"], result["cipher"], result["cert_key"]) == (version, cipher, key)
    assert result["group"] == ("" if mode == "resumed" and version != "TLSv1.3" else group)
    assert result["ops"] > 0 and result["cpu_us_per_op"] > 0


def test_only_the_servers_side_is_timed(certificates):
    """With ECDSA the client has the dearer part of a full handshake: a floor with it would more than double."""
    done = run("tls-floor", *arguments(certificates["ecdsa:P-256"], "full"), "--tls-version", "TLSv1.3", "--json", "-")
    assert 0.1 < json.loads(done.stdout)["server_share"] < 0.6


@pytest.mark.parametrize("kind", ["id", "ticket", "any"])
def test_both_kinds_of_resumption(certificates, kind):
    done = run("tls-floor", *arguments(certificates["rsa:2048"], "resumed"), "--tls-version", "TLSv1.2",
               "--resume-with", kind, "--json", "-")
    assert json.loads(done.stdout)["resume_with"] == ("id" if kind == "id" else "ticket")


@pytest.mark.parametrize("size", ["1", "64k", "3m"])
@pytest.mark.parametrize("mode", ["full", "keep-alive"])
def test_sizes_beyond_a_record_and_beyond_the_pipe(certificates, mode, size):
    done = run("tls-floor", "--cert", str(certificates["ecdsa:P-256"]), "--mode", mode, "--tls-version", "TLSv1.3",
               "--request-bytes", size, "--response-bytes", size, "--duration", "20ms")
    assert done.returncode == 0, done.stderr
    assert "us of server CPU" in done.stdout


RELAY = ["--mode", "relay", "--tls-version", "TLSv1.3"]


@pytest.mark.parametrize("request_bytes, response_bytes", [("1", "1"), ("48", "16451"), ("8m", "1"), ("1", "8m")])
@pytest.mark.parametrize("origin", ["tcp", "unix"])
def test_a_relay_moves_what_fits_into_no_socket(certificates, origin, request_bytes, response_bytes):
    """Whoever waits for the other end of a message that is under way would stand still for ever."""
    done = run("tls-floor", "--cert", str(certificates["ecdsa:P-256"]), *RELAY, "--request-bytes", request_bytes,
               "--response-bytes", response_bytes, "--duration", "20ms", "--origin", origin, "--json", "-")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["origin"] == origin and result["mode"] == "relay"
    assert result["ops"] % 50 == 0 and result["ops"] > 0 and result["cpu_us_per_op"] > 0


def test_only_the_relay_is_timed(certificates):
    """Its peers do the same work between them, and are other processes."""
    done = run("tls-floor", *arguments(certificates["ecdsa:P-256"], "relay"), "--tls-version", "TLSv1.3", "--json", "-")
    assert 0.1 < json.loads(done.stdout)["server_share"] < 0.8


def test_a_relay_costs_more_than_its_records(certificates):
    """By its system calls: ten times as much. Without them it would be no floor of a relay."""
    cost = {mode: json.loads(run("tls-floor", *arguments(certificates["ecdsa:P-256"], mode), "--tls-version", "TLSv1.3",
                                 "--json", "-").stdout)["cpu_us_per_op"] for mode in ("keep-alive", "relay")}
    assert cost["relay"] > 1.5 * cost["keep-alive"]


def peers_of(relay: subprocess.Popen[str]) -> list[int]:
    """Both of them, once they are there and at work."""
    while True:
        children = Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text().split()
        if len(children) == 2:
            return [int(pid) for pid in children]
        assert relay.poll() is None, relay.communicate()
        time.sleep(0.01)


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start_relay(certificates) -> subprocess.Popen[str]:
    return subprocess.Popen([program("tls-floor"), *arguments(certificates["ecdsa:P-256"], "relay"), "--tls-version",
                             "TLSv1.3", "--duration", "60s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("which", [0, 1])
def test_a_peer_that_dies_ends_the_relay_in_one_line(certificates, which):
    relay = start_relay(certificates)
    peers = peers_of(relay)
    os.kill(peers[which], signal.SIGKILL)
    _, errors = relay.communicate(timeout=60)
    assert relay.returncode == 1
    assert errors.startswith("tls-floor: relay: ") and len(errors.splitlines()) == 1
    wait_until_gone(peers)


def test_a_relay_that_dies_takes_its_peers_with_it(certificates):
    relay = start_relay(certificates)
    peers = peers_of(relay)
    relay.kill()
    _, errors = relay.communicate(timeout=60)
    wait_until_gone(peers)
    assert errors == ""


@pytest.mark.parametrize("more, line", [
    (["--tls-version", "TLSv1.3", "--cipher", "AES128-SHA"], "--cipher: AES128-SHA: is unknown"),
    (["--tls-version", "TLSv1.3", "--group", "P-1"], "--group: P-1: is unknown"),
    (["--tls-version", "SSLv3"], "--tls-version: SSLv3: must be one of"),
    (["--tls-version", "TLSv1.3", "--resume-with", "id"], "--resume-with: id: a TLS 1.3 resumption"),
    (["--tls-version", "TLSv1.3", "--cert", "/nonexistent"], "/nonexistent: cannot be read"),
    (["--tls-version", "TLSv1.3", "--origin", "unix"], "--origin: unix: there is none in mode resumed"),
    ([], "--tls-version: must be given"),
])
def test_bad_usage_is_one_line(certificates, more, line):
    done = run("tls-floor", *arguments(certificates["ecdsa:P-256"], "resumed", *more))
    assert done.returncode == 2
    assert done.stderr.startswith(f"tls-floor: {line}")
    assert len(done.stderr.splitlines()) == 1


def test_a_cipher_that_does_not_go_with_the_key_is_a_failure(certificates):
    done = run("tls-floor", *arguments(certificates["ecdsa:P-256"], "full"), "--tls-version", "TLSv1.2", "--cipher",
               "ECDHE-RSA-AES128-GCM-SHA256")
    assert done.returncode == 1
    assert "no shared cipher" in done.stderr
