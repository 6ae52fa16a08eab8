"""Keys and self-signed certificates, made once with the openssl command and kept below build/certs."""
import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

from .programs import build_directory
from .refusal import Refused

LIFETIME_DAYS = "3650"


def key_arguments(cert_key: str) -> list[str]:
    kind, _, size = cert_key.partition(":")
    if kind == "rsa":
        return ["-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{size}"]
    if kind == "ecdsa":
        return ["-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{size}", "-pkeyopt", "ec_param_enc:named_curve"]
    return ["-algorithm", "ED25519"]


def run(arguments: list[str]) -> None:
    try:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Refused("openssl", "", "is not installed; keys and certificates are made with it") from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().splitlines()[-1:] or [f"exit status {error.returncode}"]
        raise Refused("openssl", arguments[0], last[0]) from error


def certificate(cert_key: str) -> Path:
    """One PEM file with the chain and then the key. The same file serves every subject and every run, so that base
    and new, or one product and another, never differ by their keys."""
    directory = build_directory() / "certs"
    path = directory / (cert_key.replace(":", "-").lower() + ".pem")
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".making-") as making:
        key, chain, whole = (Path(making) / name for name in ("key", "chain", "whole"))
        run(["genpkey", *key_arguments(cert_key), "-out", str(key)])
        run(["req", "-x509", "-new", "-key", str(key), "-out", str(chain), "-days", LIFETIME_DAYS, "-sha256",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        whole.touch(mode=0o600)
        whole.write_text(chain.read_text() + key.read_text())
        # A link appears whole or not at all, and never replaces: of two runs that make the same key the second takes
        # the first's.
        with contextlib.suppress(FileExistsError):
            os.link(whole, path)
    return path
