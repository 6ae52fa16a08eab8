"""testssl.sh against the proxy as it is without options: whatever it calls MEDIUM or worse is an error, except that the
certificate is one of our own making. Takes a minute, so it is not among the tests: make testssl."""
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from authority import openssl
from programs import KEY_OPTIONS, running

# Protocols, ciphers, forward secrecy, preferences, certificates, known attacks: all but what is in HTTP headers, which
# are the backend's.
CHECKS = ["-p", "-s", "-f", "-P", "-S", "-U"]
SEVERE = {"MEDIUM", "HIGH", "CRITICAL", "FATAL"}
SELF_SIGNED = {"cert_chain_of_trust", "cert_revocation"}


def certificate(folder: Path, key: str) -> str:
    """Valid for as long as public ones may be, so that nothing is said of its dates."""
    private, public = folder / f"{key}.key", folder / f"{key}.crt"
    openssl("req", "-x509", "-nodes", *KEY_OPTIONS[key], "-days", 390, "-subj", "/CN=localhost", "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", private, "-out", public)
    both = folder / f"{key}.pem"
    both.write_text(private.read_text() + public.read_text())
    return str(both)


def findings(folder: Path) -> list[dict[str, str]]:
    files = [certificate(folder, key) for key in ("ecdsa:P-256", "rsa:2048")]
    report = folder / "findings.json"
    with running("echo-backend", "http", "-l", "127.0.0.1:0") as backend, \
            running("proxy", "-f", "127.0.0.1:0", "-b", backend.address, *files) as server:
        done = subprocess.run(["testssl", *CHECKS, "--nodns", "min", "--warnings", "batch", "--color", "0", "--quiet",
                               "--jsonfile", str(report), server.address],
                              capture_output=True, text=True, timeout=900, check=False, stdin=subprocess.DEVNULL)
    if not report.exists():
        raise SystemExit(f"testssl: no report\n{done.stdout}{done.stderr}")
    return json.loads(report.read_text())


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        found = findings(Path(folder))
    severe = [finding for finding in found
              if finding["severity"] in SEVERE and finding["id"].split()[0] not in SELF_SIGNED]
    for finding in severe:
        print(f"testssl: {finding['severity']}: {finding['id']}: {finding['finding']}")
    # A scan that could not be made finds nothing: these it must have seen.
    seen = {finding["id"]: finding["severity"] for finding in found}
    for must in ("TLS1_2", "TLS1_3", "secure_renego", "heartbleed"):
        if seen.get(must) != "OK":
            severe.append({})
            print(f"testssl: {must}: {seen.get(must, 'not looked at')}")
    print(f"testssl: {len(found)} findings, {len(severe)} of severity MEDIUM or worse")
    return 1 if severe else 0


if __name__ == "__main__":
    sys.exit(main())
