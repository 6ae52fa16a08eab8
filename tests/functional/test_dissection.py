"""What the light engine says, read by somebody else: tshark finds nothing malformed, in the clear or, with the server's
own secrets, in what is encrypted, and finds the messages that ought to be there."""
from __future__ import annotations

import collections
import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from counting_server import LIMIT_S, load
from programs import make_certificate
from recorded_packets import Relay, write_capture

CLIENT_HELLO, SERVER_HELLO, TICKET, CERTIFICATE, SERVER_KEY_EXCHANGE, CLIENT_KEY_EXCHANGE, FINISHED, KEY_UPDATE = (
    1, 2, 4, 11, 12, 16, 20, 24)


@contextlib.contextmanager
def s_server(folder: Path, *options: str) -> Iterator[int]:
    certificate, key, _ = make_certificate(folder, "rsa:2048")
    ecdsa, ecdsa_key, _ = make_certificate(folder, "ecdsa:P-256")
    process = subprocess.Popen(
        ["openssl", "s_server", "-accept", "127.0.0.1:0", "-www", "-cert", certificate, "-key", key, "-dcert", ecdsa,
         "-dkey", ecdsa_key, "-cipher", "ALL:@SECLEVEL=0", "-keylogfile", folder / "secrets", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        port = next(int(found[1]) for line in process.stdout if (found := re.match(r"ACCEPT .*:(\d+)$", line.strip())))
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield port
    finally:
        process.kill()
        process.wait()


def tshark(capture: Path, secrets: Path, *options: str) -> list[str]:
    done = subprocess.run(["tshark", "-r", capture, "-o", f"tls.keylog_file:{secrets}", "-o",
                           "tcp.check_checksum:TRUE", "-d", "tcp.port==443,tls", *options], capture_output=True,
                          text=True, timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def messages(capture: Path, secrets: Path) -> collections.Counter[int]:
    found: collections.Counter[int] = collections.Counter()
    for line in tshark(capture, secrets, "-T", "fields", "-e", "tls.handshake.type"):
        found.update(int(kind) for kind in line.split(",") if kind)
    return found


@pytest.mark.parametrize("server, options, expected", [
    (["-tls1_3"], [], {CLIENT_HELLO: 4, SERVER_HELLO: 4, CERTIFICATE: 4, FINISHED: 8}),
    (["-tls1_3"], ["--reuse", "always"], {CLIENT_HELLO: 4, SERVER_HELLO: 4, CERTIFICATE: 1, FINISHED: 8, TICKET: 5}),
    (["-tls1_3", "-allow_no_dhe_kex"], ["--reuse", "always", "--psk-mode", "psk_ke"],
     {CLIENT_HELLO: 4, SERVER_HELLO: 4, CERTIFICATE: 1, FINISHED: 8}),
    (["-tls1_3", "-groups", "P-384"], ["--reuse", "always"],
     {CLIENT_HELLO: 8, SERVER_HELLO: 8, CERTIFICATE: 1, FINISHED: 8}),
    (["-tls1_3", "-verify", "1"], ["--key-share", "fresh"],
     {CLIENT_HELLO: 4, SERVER_HELLO: 4, CERTIFICATE: 8, FINISHED: 8}),
    (["-tls1_2"], [], {CLIENT_HELLO: 4, SERVER_HELLO: 4, SERVER_KEY_EXCHANGE: 4, CLIENT_KEY_EXCHANGE: 4, FINISHED: 8}),
    (["-tls1_2"], ["--cipher", "AES128-SHA256"],
     {CLIENT_HELLO: 4, SERVER_HELLO: 4, SERVER_KEY_EXCHANGE: 0, CLIENT_KEY_EXCHANGE: 4, FINISHED: 8}),
    (["-tls1_2"], ["--reuse", "always", "--resume-with", "id"],
     {CLIENT_HELLO: 4, SERVER_HELLO: 4, CLIENT_KEY_EXCHANGE: 1, FINISHED: 8, TICKET: 0}),
    (["-tls1_2"], ["--reuse", "always", "--resume-with", "ticket"],
     {CLIENT_HELLO: 4, SERVER_HELLO: 4, CLIENT_KEY_EXCHANGE: 1, FINISHED: 8}),
    (["-tls1_2", "-verify", "1"], [], {CLIENT_HELLO: 4, SERVER_HELLO: 4, CERTIFICATE: 8, FINISHED: 8}),
    (["-tls1"], ["--tls-version", "TLSv1", "--group", "P-521:P-256"],
     {CLIENT_HELLO: 4, SERVER_HELLO: 4, CLIENT_KEY_EXCHANGE: 4, FINISHED: 8}),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_nothing_is_malformed(tmp_path: Path, server: list[str], options: list[str], expected: dict[int, int]) -> None:
    capture, secrets = tmp_path / "capture", tmp_path / "secrets"
    with s_server(tmp_path, *server) as port:
        relay = Relay(("127.0.0.1", port))
        load("--engine", "light", "-c", 1, "-n", 4, "--alpn", "http/1.1", "--sni", "localhost", *options, relay.url)
        relay.close()
    assert len(relay.conversations) == 4
    write_capture(capture, relay.conversations)
    # Of notes and warnings, only those of the TCP that we made up ourselves could be meant.
    bad = tshark(capture, secrets, "-Y", "_ws.malformed || _ws.expert.severity >= Error || "
                 "(tls && _ws.expert.severity >= Warning && !tcp.analysis.flags)")
    assert not bad, "\n".join(bad)
    found = messages(capture, secrets)
    assert {kind: found[kind] for kind in expected} == expected
    # It read what is encrypted, too: our requests are seen.
    assert len(tshark(capture, secrets, "-Y", "http.request")) == 4


def test_a_malformed_one_would_be_seen(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    capture = tmp_path / "capture"
    with s_server(tmp_path, "-tls1_3") as port:
        relay = Relay(("127.0.0.1", port))
        load("--engine", "light", "-c", 1, "-n", 1, relay.url)
        relay.close()
    (is_client, hello), *rest = relay.conversations[0]
    assert is_client and hello[0] == 22
    at = hello.index(bytes((0, 51)), 80)  # key_share: its list says that it is longer than its extension
    wrong = hello[:at + 4] + b"\xff\xff" + hello[at + 6:]
    write_capture(capture, [[(True, wrong), *rest]])
    assert tshark(capture, tmp_path / "secrets", "-Y", "_ws.malformed || _ws.expert.severity >= Warning")
