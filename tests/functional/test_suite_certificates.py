"""Certificates: every kind of key that a scenario may name, made once however many ask at once."""
import subprocess
import sys

import pytest
from suite_fakes import ROOT
from tlsdyno_suite.certificates import certificate


@pytest.mark.parametrize("cert_key, word", [
    ("rsa:2048", "2048 bit"), ("ecdsa:P-256", "NIST CURVE: P-256"), ("ecdsa:P-384", "NIST CURVE: P-384"),
    ("ed25519", "ED25519")])
def test_a_file_holds_the_chain_and_the_key_asked_for(tmp_path, monkeypatch, cert_key, word):
    monkeypatch.setenv("TLSDYNO_BUILD_DIR", str(tmp_path))
    path = certificate(cert_key)
    text = path.read_text()
    assert text.index("BEGIN CERTIFICATE") < text.index("PRIVATE KEY")
    shown = subprocess.run(["openssl", "x509", "-in", str(path), "-noout", "-text", "-pubkey"], capture_output=True,
                           text=True, check=True).stdout
    assert word in shown and "IP Address:127.0.0.1" in shown
    public = subprocess.run(["openssl", "pkey", "-in", str(path), "-pubout"], capture_output=True, text=True,
                            check=True).stdout
    assert public in shown
    assert path.stat().st_mode & 0o077 == 0


def test_several_runs_at_once_agree_on_one_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TLSDYNO_BUILD_DIR", str(tmp_path))
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "scripts")!r})
sys.dont_write_bytecode = True
from tlsdyno_suite.certificates import certificate
print(certificate("ecdsa:P-256").read_text())
"""
    makers = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(4)]
    texts = {maker.communicate()[0] for maker in makers}
    assert len(texts) == 1 and all(maker.returncode == 0 for maker in makers)
    assert [path.name for path in (tmp_path / "certs").iterdir()] == ["ecdsa-p-256.pem"]
