"""What the reference proxy negotiates: protocols, staples, client certificates, versions, and what it refuses."""
from __future__ import annotations

import re
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from authority import Authority
from programs import Running, make_certificate
from proxies import TlsPeer
from test_proxy import client_context, connected, counters, eventually
from test_proxy_names import proxy, refusal, served

BOTH = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Path:
    return authority.issue("localhost", "localhost")


def s_client(server: Running, *options: str, say: str = "") -> str:
    done = subprocess.run(["openssl", "s_client", "-connect", server.address, *options], input=say,
                          capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def exchange(server: Running, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
    """A byte there and back."""
    with connected(server, context, session) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        assert bool(session) == tls.session_reused
        return tls.session


# ALPN


def agreed(server: Running, context: ssl.SSLContext, offer: list[str],
           session: ssl.SSLSession | None = None) -> tuple[str | None, ssl.SSLSession | None]:
    context.set_alpn_protocols(offer)
    with connected(server, context, session) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        assert bool(session) == tls.session_reused
        return tls.selected_alpn_protocol(), tls.session


@pytest.mark.parametrize("version", BOTH)
def test_the_servers_first_protocol_that_the_client_has_is_agreed(version: ssl.TLSVersion, certificate: Path) -> None:
    with proxy("--alpn", "h2,http/1.1", certificate) as server:
        for offer, chosen in ((["http/1.1", "h2"], "h2"), (["http/1.1", "spdy"], "http/1.1"), (["h2"], "h2")):
            assert agreed(server, client_context(version), offer)[0] == chosen
        exchange(server, client_context(version))  # a client without ALPN is served
        with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
            agreed(server, client_context(version), ["spdy"])
        eventually(lambda: counters(server)["closed"]["handshake_failed"] == 1, "the refusal is counted")


@pytest.mark.parametrize("version", BOTH)
def test_a_resumed_connection_agrees_as_a_new_one_would(version: ssl.TLSVersion, certificate: Path) -> None:
    context = client_context(version)
    with proxy("--alpn", "h2,http/1.1", certificate) as server:
        chosen, session = agreed(server, context, ["h2", "http/1.1"])
        assert chosen == "h2"
        assert agreed(server, context, ["h2", "http/1.1"], session)[0] == "h2"
        assert agreed(server, context, ["http/1.1"], session)[0] == "http/1.1"
        with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
            agreed(server, context, ["spdy"], session)


def test_without_alpn_nothing_is_agreed_and_everybody_served(certificate: Path) -> None:
    with proxy(certificate) as server:
        assert agreed(server, client_context(), ["h2"])[0] is None


@pytest.mark.parametrize(("protocols", "complaint"), [
    ("h2,", "the name of a protocol has 1 to 255 bytes"),
    (",", "the name of a protocol has 1 to 255 bytes"),
    ("x" * 256, "the name of a protocol has 1 to 255 bytes"),
    ("h2,h3,h2", "h2 comes twice"),
    (",".join(str(number) for number in range(1000)), "more than 1024 bytes"),
])
def test_bad_protocol_lists_are_refused(protocols: str, complaint: str, certificate: Path) -> None:
    refused = refusal("--alpn", protocols, certificate)
    assert refused.startswith("--alpn: ") and complaint in refused


# OCSP


def stapled(server: Running, version: str, *options: str) -> str:
    said = s_client(server, "-status", version, *options)
    assert "Verify return code" in said
    return said.partition("OCSP response: ")[2].partition("======================================\n---")[0]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_staple_goes_with_the_certificate_that_it_is_about(version: str, authority: Authority) -> None:
    one, two = authority.issue("stapled", "stapled.example"), authority.issue("bare", "bare.example")
    other = authority.issue("also-stapled", "also.example")
    options = ["--ocsp", authority.staple(one), "--ocsp", authority.staple(other, days=None), one, two, other]
    with proxy(*options) as server:
        number = {}
        for host in ("stapled.example", "also.example"):
            said = stapled(server, version, "-servername", host, "-CAfile", str(authority.certificate))
            assert "Response Status: successful" in said and "Cert Status: good" in said
            number[host] = re.search("Serial Number: (.*)", said)[1]  # type: ignore[index]
        assert number["stapled.example"] != number["also.example"]
        assert stapled(server, version, "-servername", "bare.example").startswith("no response sent")
        assert "OCSP" not in s_client(server, version)  # nobody asked


def test_one_response_may_be_about_several_certificates(authority: Authority) -> None:
    files = [authority.issue(name, name) for name in ("a.example", "b.example")]
    with proxy("--ocsp", authority.staple(*files), *files) as server:
        for host in ("a.example", "b.example"):
            assert "Response Status: successful" in stapled(server, "-tls1_3", "-servername", host)


def with_dates(staple: Path, this_update: float, next_update: float) -> Path:
    """The response with other dates, in seconds from now. Its signature does not hold any more: that is for clients."""
    def stamp(seconds: float) -> bytes:
        return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + seconds)).encode()

    content = staple.read_bytes()
    # producedAt, thisUpdate, nextUpdate, as GeneralizedTime: tag, length and text
    dates = re.findall(rb"\x18\x0f\d{14}Z", content)
    assert len(dates) == 3
    before, _, rest = content.partition(dates[1])
    if dates[0] == dates[1]:
        between, _, rest = rest.partition(dates[1])
        before += dates[0] + between
    changed = staple.with_suffix(".changed")
    rest = rest.replace(dates[2], b"\x18\x0f" + stamp(next_update))
    changed.write_bytes(before + b"\x18\x0f" + stamp(this_update) + rest)
    return changed


def test_a_staple_is_not_sent_any_more_once_it_has_expired(authority: Authority) -> None:
    file = authority.issue("expiring", "expiring.example")
    limit = 2
    while True:
        began = int(time.time())
        staple = with_dates(authority.staple(file), -60, limit)
        try:
            with proxy("--ocsp", staple, file) as server:
                said = stapled(server, "-tls1_3")
                assert "Response Status: successful" in said or time.time() >= began + limit
                eventually(lambda: stapled(server, "-tls1_3").startswith("no response sent"), "the staple is left out")
                break
        except AssertionError as error:
            assert "expired on" in str(error)  # before the proxy was ready
            limit *= 2


def test_staples_that_are_of_no_use_are_refused(authority: Authority, tmp_path: Path) -> None:
    file, other, revoked = (authority.issue(name, name) for name in ("used", "unused", "revoked"))
    authority.revoke(revoked)
    garbage, unsuccessful = tmp_path / "garbage", tmp_path / "try-later"
    garbage.write_bytes(b"garbage")
    unsuccessful.write_bytes(bytes.fromhex("30030a0103"))  # OCSPResponse { tryLater }
    whole = authority.staple(file).read_bytes()
    longer = tmp_path / "longer"
    longer.write_bytes(whole + b"x")
    for staple, complaint in {
            tmp_path / "missing": "cannot be read: No such file or directory",
            tmp_path: "cannot be read: Is a directory",
            garbage: "not an OCSP response in DER",
            longer: "not an OCSP response in DER",
            unsuccessful: "the responder did not answer: trylater",
            authority.staple(other): "about none of the certificates",
            with_dates(authority.staple(file), -60, -30): "expired on 20",
            with_dates(authority.staple(file), 4000, 8000): "not valid before 20"}.items():
        assert refusal("--ocsp", staple, file).startswith(f"--ocsp: {staple}: {complaint}")
    assert refusal("--ocsp", authority.staple(revoked), revoked).endswith(": says that the certificate is revoked")


# Certificates of clients


def client_with(version: ssl.TLSVersion, file: Path | None) -> ssl.SSLContext:
    context = client_context(version)
    if file:
        context.load_cert_chain(file)
    return context


@pytest.mark.parametrize("version", BOTH)
def test_only_clients_with_a_good_certificate_are_served(version: ssl.TLSVersion, certificate: Path,
                                                         authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger", "A stranger").issue("a stranger's client")
    expired = authority.issue("an expired client", days=(-10, -1))
    missing = "HANDSHAKE_FAILURE" if version == ssl.TLSVersion.TLSv1_2 else "CERTIFICATE_REQUIRED"
    with proxy("--client-ca", authority.certificate, certificate) as server:
        exchange(server, client_with(version, authority.issue("a client")))
        for file, alert in ((None, missing), (stranger, "UNKNOWN_CA"), (expired, "CERTIFICATE_EXPIRED")):
            with pytest.raises(ssl.SSLError, match=alert):
                exchange(server, client_with(version, file))
        eventually(lambda: counters(server)["closed"]["handshake_failed"] == 3, "the refusals are counted")


@pytest.mark.parametrize("version", BOTH)
def test_an_optional_certificate_may_be_missing_but_not_bad(version: ssl.TLSVersion, certificate: Path,
                                                            authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger", "A stranger").issue("a stranger's client")
    with proxy("--client-ca", authority.certificate, "--client-verify", "optional", certificate) as server:
        exchange(server, client_with(version, None))
        exchange(server, client_with(version, authority.issue("a client")))
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            exchange(server, client_with(version, stranger))


def test_a_client_that_goes_on_talking_hears_why_it_is_refused(certificate: Path, authority: Authority) -> None:
    """With TLS 1.3 it may send a request before it is refused; what is unread when a socket is closed resets it."""
    with proxy("--client-ca", authority.certificate, certificate) as server:
        for _ in range(5):
            with socket.create_connection(server.host_port, timeout=60) as plain:
                peer = TlsPeer(plain, client_with(ssl.TLSVersion.TLSv1_3, None), last_flight_with=bytes(1 << 15))
                with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
                    peer.recv(1)


@pytest.mark.parametrize("tickets", ["on", "off"])
@pytest.mark.parametrize("version", BOTH)
def test_a_verified_client_resumes(version: ssl.TLSVersion, tickets: str, certificate: Path,
                                   authority: Authority) -> None:
    """By ticket and from the cache, whose places are large enough for the client's certificate too."""
    context = client_with(version, authority.issue("a client", key="rsa:2048"))
    with proxy("--client-ca", authority.certificate, "--tickets", tickets, "-n", "2", certificate) as server:
        session = exchange(server, context)
        for _ in range(5):
            session = exchange(server, context, session)
        counted = counters(server)
        assert (counted["handshakes_full"], counted["handshakes_resumed"]) == (1, 5)
        assert counted["session_too_large"] == 0


@pytest.mark.parametrize("version", BOTH)
def test_a_session_is_not_resumed_where_its_client_would_not_have_been_verified(
        version: ssl.TLSVersion, certificate: Path, authority: Authority, tmp_path: Path) -> None:
    """Proxies that share their ticket keys, one of which lets everybody in."""
    keys = tmp_path / "keys"
    keys.write_bytes(bytes(range(80)))
    context = client_with(version, authority.issue("a client"))
    other = Authority(tmp_path / "other", "Another authority").certificate
    with proxy("--ticket-keys", keys, certificate) as everybody, \
            proxy("--ticket-keys", keys, "--client-ca", authority.certificate, certificate) as members, \
            proxy("--ticket-keys", keys, "--client-ca", authority.certificate, certificate) as same_members, \
            proxy("--ticket-keys", keys, "--client-ca", other, certificate) as others, \
            proxy("--ticket-keys", keys, "--client-ca", authority.certificate, "--client-verify", "optional",
                  certificate) as guests:
        session = exchange(everybody, context)
        exchange(everybody, context, session)
        with connected(members, context, session) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x" and not tls.session_reused
            session = tls.session
        exchange(same_members, context, session)
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            exchange(others, context, session)
        nobody = client_with(version, None)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"):
            exchange(members, nobody, exchange(guests, nobody))


def test_bad_authorities_are_refused(certificate: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_text("garbage\n")
    assert refusal("--client-ca", tmp_path / "missing", certificate).endswith(
        "cannot be read: No such file or directory")
    assert refusal("--client-ca", tmp_path / "garbage", certificate) == \
        f"--client-ca: {tmp_path}/garbage: no certificate can be read"
    for verify in ("optional", "required"):
        assert refusal("--client-verify", verify, certificate) == "--client-verify: only with --client-ca"


# Versions and ciphers


@pytest.mark.parametrize(("flag", "versions"), [
    ("--tls", {"-tls1": True, "-tls1_1": False, "-tls1_2": False, "-tls1_3": False}),
    ("--ssl", {"-tls1": True, "-tls1_1": True, "-tls1_2": True, "-tls1_3": True}),
    ("--quiet", {"-tls1": False, "-tls1_1": False, "-tls1_2": True, "-tls1_3": True}),
])
def test_studs_version_flags_mean_what_they_meant(flag: str, versions: dict[str, bool], tmp_path: Path) -> None:
    rsa = make_certificate(tmp_path, "rsa:2048")[2]
    with proxy(flag, rsa) as server:
        for version, spoken in versions.items():
            said = s_client(server, version, "-cipher", "ALL:@SECLEVEL=0")
            assert ("New, (NONE)" not in said) == spoken, version


def test_versions_that_contradict_each_other_are_refused(certificate: Path) -> None:
    assert refusal("--tls", "--ssl", certificate) == "--ssl: not together with --tls"
    for flag in ("--tls", "--ssl"):
        for other in ("--tls-min", "--tls-max"):
            assert refusal(flag, other, "TLSv1.2", certificate) == f"{flag}: not together with --tls-min or --tls-max"
    assert refusal("--tls-max", "TLSv1.1", certificate).startswith("--tls-max: lower than TLSv1.2")
    assert refusal("--tls-min", "TLSv1.3", "--tls-max", "TLSv1.2", certificate) == "--tls-max: lower than --tls-min"


def test_dhe_is_spoken_with_parameters_of_the_keys_strength(tmp_path: Path) -> None:
    rsa = make_certificate(tmp_path, "rsa:2048")[2]
    with proxy("-c", "DHE-RSA-AES128-GCM-SHA256", "--tls-max", "TLSv1.2", rsa) as server:
        said = s_client(server)
        assert "Cipher is DHE-RSA-AES128-GCM-SHA256" in said and "Server Temp Key: DH, 2048 bits" in said


def test_by_default_every_suite_is_forward_secret_and_authenticated(tmp_path: Path) -> None:
    rsa = make_certificate(tmp_path, "rsa:2048")[2]
    with proxy(rsa) as server:
        for cipher in ("AES128-GCM-SHA256", "AES128-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES128-SHA256",
                       "DHE-RSA-AES128-GCM-SHA256"):
            assert "New, (NONE)" in s_client(server, "-tls1_2", "-cipher", cipher), cipher
        for cipher in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"):
            assert f"Cipher is {cipher}" in s_client(server, "-tls1_2", "-cipher", cipher)


@pytest.mark.parametrize(("options", "agreed_on"), [([], "ECDHE-RSA-AES256-GCM-SHA384"),
                                                    (["-O"], "ECDHE-RSA-CHACHA20-POLY1305")])
def test_whose_order_of_ciphers_decides_is_as_asked(options: list[str], agreed_on: str, tmp_path: Path) -> None:
    rsa = make_certificate(tmp_path, "rsa:2048")[2]
    ciphers = ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"]
    with proxy("-c", ":".join(reversed(ciphers)), *options, rsa) as server:
        assert f"Cipher is {agreed_on}" in s_client(server, "-tls1_2", "-cipher", ":".join(ciphers))


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_groups_suites_and_signatures_are_those_asked_for(version: str, tmp_path: Path) -> None:
    rsa = make_certificate(tmp_path, "rsa:2048")[2]
    with proxy("--groups", "P-384:X25519", "--sigalgs", "RSA-PSS+SHA512", "--ciphersuites", "TLS_AES_256_GCM_SHA384",
               rsa) as server:
        said = s_client(server, version, "-groups", "P-384:X25519")
        assert "Server Temp Key: ECDH, " in said and ", 384 bits" in said
        assert "Peer signing digest: SHA512" in said and "Peer signature type: RSA-PSS" in said
        if version == "-tls1_3":
            assert "Cipher is TLS_AES_256_GCM_SHA384" in said
        assert "New, (NONE)" in s_client(server, version, "-sigalgs", "RSA-PSS+SHA256")
        # A client whose first share is of another group is asked for one of these.
        assert "Server Temp Key: X25519" in s_client(server, version, "-groups", "P-521:X25519")


def test_a_client_that_asks_to_renegotiate_gets_an_alert_and_keeps_its_connection(certificate: Path) -> None:
    with proxy(certificate) as server:
        client = subprocess.Popen(["openssl", "s_client", "-connect", server.address, "-tls1_2", "-msg"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert client.stdin and client.stdout
        try:
            client.stdin.write("before\n")
            client.stdin.flush()
            for line in client.stdout:
                if line == "before\n":
                    break
            client.stdin.write("R\n")
            client.stdin.flush()
            said = []
            for line in client.stdout:
                said.append(line)
                if "no_renegotiation" in line or "no renegotiation" in line:
                    break
            assert any("ClientHello" in line for line in said), said  # it was really tried
        finally:
            client.kill()
            client.communicate()
        counted = counters(server)
        assert counted["handshakes_full"] == 1


# Engine or provider


@pytest.mark.parametrize("name", ["legacy", "loader_attic"])
def test_a_provider_and_an_engine_are_both_taken_by_their_name(name: str, certificate: Path) -> None:
    with proxy("-e", name, certificate) as server:
        assert served(server, None) == "localhost"


def test_an_engine_that_is_not_there_is_refused(certificate: Path) -> None:
    assert refusal("-e", "nonsense", certificate) == \
        "--engine: nonsense: neither a provider nor an engine of that name can be used here"


def test_what_only_a_client_of_the_backend_needs_is_refused_without_it(certificate: Path) -> None:
    for option in ("--ca", "--verify-name"):
        assert refusal(option, "localhost", certificate) == f"{option}: only with --client"
