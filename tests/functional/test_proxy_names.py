"""Several certificates: which of them a client gets for the name that it asks for, and which are refused."""
from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authority import Authority, openssl
from programs import Running, make_certificate, run, running
from test_proxy import backend, client_context, counters, echo, eventually

RSA, ECDSA = "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("names") / "authority")


@contextlib.contextmanager
def proxy(*arguments: object) -> Iterator[Running]:
    with backend(echo) as to, running("proxy", "-f", "127.0.0.1:0", "-b", to, "--stats", "127.0.0.1:0",
                                      *map(str, arguments)) as server:
        yield server


def common_name(der: bytes) -> str:
    shown = subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "multiline"],
                           input=der, capture_output=True, check=True).stdout.decode()
    return shown.partition("commonName")[2].partition("=")[2].strip()


def served(server: Running, host: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
           cipher: str = "") -> str:
    """The common name of the certificate that a client gets who asks for `host`."""
    context = client_context(version)
    if cipher:
        context.set_ciphers(cipher)
    with socket.create_connection(server.host_port, timeout=60) as plain:
        with context.wrap_socket(plain, server_hostname=host) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            return common_name(tls.getpeercert(binary_form=True) or b"")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_gets_the_certificate_of_the_name_it_asks_for(version: ssl.TLSVersion, authority: Authority) -> None:
    files = [authority.issue("first", "first.example", "also-first.example"),
             authority.issue("wild", "*.wild.example"),
             authority.issue("exact", "www.wild.example"),
             authority.issue("old.example")]  # by its common name: it has no other
    with proxy(*files) as server:
        for host, name in {None: "first", "first.example": "first", "ALSO-First.Example": "first",
                           "www.wild.example": "exact", "WWW.WILD.EXAMPLE": "exact",
                           "other.wild.example": "wild", "OTHER.wild.example": "wild",
                           "one.two.wild.example": "first", "wild.example": "first",
                           "old.example": "old.example", "first": "first", "nobody.example": "first"}.items():
            assert served(server, host, version) == name, host


def test_a_common_name_does_not_count_beside_other_names(authority: Authority) -> None:
    with proxy(authority.issue("default.example"), authority.issue("cn.example", "san.example")) as server:
        assert served(server, "cn.example") == "default.example"
        assert served(server, "san.example") == "cn.example"


def test_each_name_has_its_rsa_and_its_ecdsa_certificate(authority: Authority) -> None:
    files = [authority.issue("one", "one.example", key=key) for key in ("rsa:2048", "ecdsa:P-256")]
    files += [authority.issue("two", "two.example", key=key) for key in ("ecdsa:P-256", "rsa:2048")]
    files += [authority.issue("three", "three.example", key="rsa:2048")]
    with proxy(*files) as server:
        for cipher in (RSA, ECDSA):
            for host, name in {None: "one", "one.example": "one", "two.example": "two", "nobody": "one"}.items():
                assert served(server, host, ssl.TLSVersion.TLSv1_2, cipher) == name
        assert served(server, "three.example", ssl.TLSVersion.TLSv1_2, RSA) == "three"
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            served(server, "three.example", ssl.TLSVersion.TLSv1_2, ECDSA)


def test_hundreds_of_certificates_are_each_found(tmp_path: Path) -> None:
    """Self-signed with one key: what takes long is the making of keys."""
    key = make_certificate(tmp_path)[1]
    text, files = key.read_text(), []
    for number in range(300):
        file = tmp_path / f"{number}.pem"
        openssl("req", "-x509", "-key", key, "-days", 30, "-subj", f"/CN=host-{number}", "-out", file,
                "-addext", f"subjectAltName=DNS:host-{number}.example,DNS:*.wild-{number}.example")
        file.write_text(file.read_text() + text)
        files.append(file)
    with proxy(*files) as server:
        for number in (0, 1, 150, 298, 299):
            assert served(server, f"host-{number}.example") == f"host-{number}"
            assert served(server, f"any.wild-{number}.example") == f"host-{number}"


def test_an_unknown_name_is_refused_with_its_alert_where_that_is_asked_for(authority: Authority) -> None:
    file = authority.issue("known", "known.example", "*.known.example")
    with proxy("--sni-nomatch-abort", file) as server:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert served(server, "known.example", version) == "known"
            assert served(server, "www.known.example", version) == "known"
            assert served(server, None, version) == "known"  # asks for none
            with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
                served(server, "unknown.example", version)
        eventually(lambda: counters(server)["closed"]["handshake_failed"] == 2, "both are counted")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_of_a_name_is_resumed_for_that_name(version: ssl.TLSVersion, authority: Authority) -> None:
    context, session, resumed = client_context(version), None, []
    with proxy("-n", "2", authority.issue("one", "one.example"), authority.issue("two", "two.example")) as server:
        for _ in range(5):
            with socket.create_connection(server.host_port, timeout=60) as plain:
                with context.wrap_socket(plain, server_hostname="two.example", session=session) as tls:
                    tls.sendall(b"x")
                    assert tls.recv(1) == b"x"
                    resumed.append(tls.session_reused)
                    session = tls.session
        assert resumed == [False] + 4 * [True]


# Refused at the start


def refusal(*arguments: object) -> str:
    """The one line with which the proxy refuses to start."""
    refused = run("proxy", "-t", "-b", "127.0.0.1:1", *map(str, arguments))
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.startswith("proxy: ") and refused.stderr.count("\n") == 1
    return refused.stderr.removeprefix("proxy: ").rstrip("\n")


def test_two_certificates_for_one_name_with_keys_of_one_type_are_refused(authority: Authority) -> None:
    one = authority.issue("one", "one.example", "both.example")
    other = authority.issue("other", "other.example", "BOTH.example")
    assert refusal(one, other) == f"{other}: {one} has a key of the same type for both.example already"
    assert refusal(one, one).startswith(f"{one}: {one} has a key of the same type for ")
    nameless = authority.issue("")
    copy = Path(shutil.copy(nameless, nameless.with_suffix(".copy")))
    assert refusal(one, nameless, copy) == f"{copy}: {nameless} has a key of the same type for no name at all already"


def test_certificates_out_of_their_time_are_refused_with_the_date(authority: Authority) -> None:
    expired = authority.issue("expired", days=(-10, -1))
    future = authority.issue("future", days=(1, 10))
    assert refusal(expired).startswith(f"{expired}: the certificate expired on: 20")
    assert refusal(expired).endswith(" UTC")
    assert refusal(future).startswith(f"{future}: the certificate is not valid before: 20")


def test_credentials_that_cannot_be_used_are_called_what_they_are(authority: Authority, tmp_path: Path) -> None:
    good = authority.issue("good")
    only_key, only_certificate = good.with_suffix(".key"), good.with_suffix(".crt")
    encrypted = tmp_path / "encrypted.pem"
    openssl("ec", "-in", only_key, "-aes128", "-passout", "pass:secret", "-out", encrypted)
    encrypted.write_text(encrypted.read_text() + only_certificate.read_text())
    broken_chain = tmp_path / "chain.pem"
    broken_chain.write_text(good.read_text() + "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    weak = tmp_path / "weak.pem"
    openssl("req", "-x509", "-nodes", "-newkey", "rsa:1024", "-days", 1, "-subj", "/CN=weak", "-keyout", weak,
            "-out", tmp_path / "weak.crt")
    weak.write_text(weak.read_text() + (tmp_path / "weak.crt").read_text())
    assert refusal(encrypted) == f"{encrypted}: the private key is encrypted: give it without a passphrase"
    assert refusal(only_certificate) == f"{only_certificate}: no private key can be read: there is none in this file"
    assert refusal(only_key) == f"{only_key}: no certificate can be read: there is none in this file"
    assert refusal(broken_chain).startswith(f"{broken_chain}: a certificate of the chain cannot be read: ")
    assert refusal(weak) == f"{weak}: refused by the TLS library: ee key too small"
    # Not only of the first.
    assert refusal(authority.issue("first"), weak) == f"{weak}: refused by the TLS library: ee key too small"


def test_a_chain_is_sent_as_it_is_in_the_file(authority: Authority) -> None:
    with proxy(authority.issue("chained")) as server:
        shown = subprocess.run(["openssl", "s_client", "-connect", server.address, "-CAfile",
                                str(authority.certificate), "-showcerts"],
                               input="", capture_output=True, text=True, timeout=60, check=False).stdout
        assert shown.count("BEGIN CERTIFICATE") == 2 and "Verify return code: 0 (ok)" in shown


def test_a_certificate_without_any_name_serves_who_asks_for_none(authority: Authority) -> None:
    with proxy(authority.issue("named", "named.example", key="rsa:2048"), authority.issue("")) as server:
        assert served(server, None, ssl.TLSVersion.TLSv1_2, ECDSA) == ""
        assert served(server, "named.example", ssl.TLSVersion.TLSv1_2, RSA) == "named"
