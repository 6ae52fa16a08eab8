"""What loadgen refuses: one line that names what and where, and nothing starts."""
from __future__ import annotations

import re
import resource
import subprocess

import pytest

from counting_server import LIMIT_S, free_port, server_context, serving
from programs import make_certificate, program, run

HTTPS = "https://127.0.0.1:1/"
HTTP = "http://127.0.0.1:1/"


@pytest.mark.parametrize("arguments, line", [
    ([], "URL: none given"),
    (["127.0.0.1"], "127.0.0.1: not a URL"),
    (["ftp://127.0.0.1/"], "ftp://127.0.0.1/: only http"),
    (["https://127.0.0.1:99999/"], "https://127.0.0.1:99999/: not a URL"),
    (["https://me:secret@127.0.0.1/"], "https://me:secret@127.0.0.1/: a user name"),
    (["https://name.invalid/"], "https://name.invalid/: "),
    (["https://192.0.2.1/"], "https://192.0.2.1/: is not loopback: --i-own-the-target"),
    ([HTTPS, HTTP], f"{HTTP}: http:// and https:// cannot be mixed"),
    (["--nonsense", HTTPS], "--nonsense: unknown option"),
    (["-c", "0", HTTPS], "--connections: 0: must be at least 1"),
    (["-c", "x", HTTPS], "--connections: x: not a whole number"),
    (["-c", "1", "-w", "2", HTTPS], "--connections: 1: fewer than the 2 workers"),
    (["--cpus", "4095", HTTPS], "--cpus: 4095: "),
    (["-d", "soon", HTTPS], "--duration: soon: not a time"),
    (["--reuse", "often", HTTPS], "--reuse: often: must be"),
    (["--reuse", "always", HTTP], f"--reuse: {HTTP}: there is no TLS"),
    (["--cipher", "AES128-SHA", HTTP], f"--cipher: {HTTP}: there is no TLS"),
    (["--requests-per-connection", "0", HTTP], "--requests-per-connection: 0: "),
    (["--requests-per-connection", "-1", HTTPS], "--requests-per-connection: -1: must be a whole number or inf"),
    (["--cipher", "AES128-SHA:NONSENSE", HTTPS], "--cipher: AES128-SHA:NONSENSE: NONSENSE is unknown"),
    (["--cipher", "TLS_NONSENSE", HTTPS], "--cipher: TLS_NONSENSE: is unknown"),
    (["--cipher", "AES128-SHA", "--tls-version", "TLSv1.3", HTTPS], "--cipher: AES128-SHA: is not a TLS 1.3 suite"),
    (["--cipher", "TLS_AES_128_GCM_SHA256", "--tls-version", "TLSv1.2", HTTPS], "--cipher: TLS_AES_128_GCM_SHA256: "),
    (["--group", "P-1", HTTPS], "--group: P-1: is unknown"),
    (["--sigalgs", "rot13", HTTPS], "--sigalgs: rot13: is unknown"),
    (["--tls-version", "SSLv2", HTTPS], "--tls-version: SSLv2: must be one of"),
    (["--resume-with", "id", HTTPS], "--resume-with: id: nothing is resumed"),
    (["--reuse", "always", "--resume-with", "id", "--tls-version", "TLSv1.3", HTTPS],
     "--resume-with: id: a TLS 1.3 resumption is always by ticket (PSK)"),
    (["--reuse", "always", "--close", "rst", "--requests-per-connection", "0", HTTPS], "--close: rst: "),
    (["--psk-mode", "psk_ke", HTTPS], "--psk-mode: psk_ke: nothing is resumed with --reuse never"),
    (["--psk-mode", "any", HTTP], f"--psk-mode: {HTTP}: there is no TLS"),
    (["--psk-mode", "any", "--reuse", "always", "--tls-version", "TLSv1.2", HTTPS], "--psk-mode: only TLS 1.3"),
    (["--psk-mode", "psk_ke", "--reuse", "always", "--engine", "openssl", HTTPS],
     "--psk-mode: psk_ke: OpenSSL offers it together with psk_dhe_ke only (any)"),
    (["--body-size", "10", "--method", "GET", HTTPS], "--body-size: 10: a GET request has no body"),
    (["--check-body", HTTPS], "--check-body: nothing is echoed"),
    (["--header", "no colon", HTTPS], "--header: no colon: not NAME: VALUE"),
    (["--header", "Content-Length: 3", HTTPS], "--header: Content-Length: 3: "),
    (["--ca", "/nonexistent", HTTPS], "--ca: /nonexistent: is used with --verify-peer only"),
    (["--ca", "/nonexistent", "--verify-peer", HTTPS], "--ca: /nonexistent: No such file"),
    (["--json", "/nonexistent/x", HTTPS], "--json: /nonexistent/x: No such file"),
    (["--series", "/nonexistent/x", HTTPS], "--series: /nonexistent/x: No such file"),
    (["--sni", "x" * 256, HTTPS], "--sni: 256 letters: a server name has 255 at most"),
    (["--unix", "relative", HTTP], f"{HTTP}: --unix needs a path"),
    (["--coalesce", "1ms", "--rate", "10", HTTPS], "--coalesce: not in the open loop"),
    (["--coalesce", "1s", HTTPS], "--coalesce: 1s: must be at most"),
])
def test_bad_usage_is_one_line_and_nothing_starts(arguments, line):
    done = run("loadgen", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"loadgen: {line}")


def test_too_few_descriptors_are_told_with_the_numbers():
    done = subprocess.run([program("loadgen"), "-c", "5000", HTTPS], capture_output=True, text=True, timeout=LIMIT_S,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)))
    assert done.returncode == 2
    assert re.match(r"loadgen: --connections: 5000: a worker needs 50\d\d descriptors, and the limit is 256 ",
                    done.stderr)


def test_nobody_listening_is_status_3(tmp_path):
    for arguments, reason in [([f"https://127.0.0.1:{free_port()}/", "-w", "2"], "Connection refused"),
                              (["--unix", str(tmp_path / "none"), "http://x/"], "No such file")]:
        done = run("loadgen", "--json", str(tmp_path / "json"), *arguments)
        assert done.returncode == 3
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert reason in done.stderr
    with serving(server_context(make_certificate(tmp_path)[2])) as server:
        # One that is there does not make up for one that is not.
        assert run("loadgen", "-c", "2", server.url, f"https://127.0.0.1:{free_port()}/").returncode == 3


def test_help_names_every_option_once():
    done = run("loadgen", "--help")
    assert done.returncode == 0
    names = re.findall(r"^ {2,6}(?:-\w, )?--([\w-]+)", done.stdout, re.MULTILINE)
    assert len(names) == len(set(names)) > 25
    assert run("loadgen", "--version").stdout.startswith("loadgen ")
