"""Blocks of the configuration file: what is asked of one frontend or certificate holds there and nowhere else."""
from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authority import Authority
from programs import Running, program, run, running
from proxies import backend, client_context, counters, echo, eventually
from test_proxy_frontends import dial, own_address, visit
from test_proxy_life import reload
from test_proxy_tls import client_with

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
ANY_PORT = ("host = 127.0.0.1", "port = 0")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("blocks") / "authority")


@pytest.fixture(scope="module")
def sites(authority: Authority) -> dict[str, Path]:
    """Certificates whose common name is the key."""
    made = {name: authority.issue(name, f"{name}.example.com") for name in ("site1", "site2", "site3", "default")}
    return {**made, "wild": authority.issue("wild", "*.example.com")}


def block(name: str, *lines: str) -> str:
    return "\n".join([f"{name} = {{", *("    " + line for text in lines for line in text.split("\n")), "}"])


def frontend(*lines: str, at: tuple[str, ...] = ANY_PORT) -> str:
    return block("frontend", *at, *lines)


def write(folder: Path, *lines: str) -> str:
    config = folder / "proxy.conf"
    config.write_text("\n".join(["stats = 127.0.0.1:0", *lines, ""]))
    return str(config)


@contextlib.contextmanager
def proxy(folder: Path, *lines: str, frontends: int = 1) -> Iterator[Running]:
    with backend(echo) as to:
        with running("proxy", "--config", write(folder, f"backend = {to}", *lines), frontends=frontends) as server:
            yield server


def refusal(folder: Path, *lines: str) -> str:
    """What is said, once, of a file that is refused; without the program and the file."""
    config = write(folder, "backend = 127.0.0.1:1", *lines)
    refused = run("proxy", "-t", "--config", config)
    assert refused.returncode == 2 and refused.stdout == "" and refused.stderr.count("\n") == 1, refused.stderr
    return refused.stderr.removeprefix("proxy: ").removeprefix(f"{config}:").rstrip("\n")


def host(site: str) -> str:
    return f"{site}.example.com"


# Certificates of a frontend


def test_frontends_of_the_command_line_have_certificates_of_their_own(sites: dict[str, Path]) -> None:
    with backend(echo) as to, \
            running("proxy", "-b", to, "-f", f"127.0.0.1:0+{sites['site1']}", "-f", f"[::1]:0+{sites['site2']}",
                    "-f", "127.0.0.1:0", str(sites["default"]), frontends=3) as server:
        for name in (None, host("site1"), host("site2"), host("default")):
            assert [visit(address, name) for address in server.addresses] == ["site1", "site2", "default"]
    refused = run("proxy", "-t", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0+/no/such/file")
    assert refused.stderr == ("proxy: --frontend: 127.0.0.1:0+/no/such/file: /no/such/file: cannot be read: No such "
                              "file or directory\n")
    refused = run("proxy", "-t", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0+")
    assert refused.stderr == "proxy: --frontend: 127.0.0.1:0+: not HOST:PORT+FILE\n"


def test_each_frontend_has_a_default_certificate_and_may_match_those_of_all(sites: dict[str, Path],
                                                                            tmp_path: Path) -> None:
    with proxy(tmp_path, frontend(f"pem-file = {sites['site1']}"),
               frontend(f"pem-file = {sites['site2']}", "match-global-certs = on"),
               frontend(f"pem-file = {sites['site3']}", "match-global-certs = off"), frontend(),
               f"pem-file = {sites['default']}", f"pem-file = {sites['site1']}", f"pem-file = {sites['site3']}",
               frontends=4) as server:
        for name, expected in ((None, ["site1", "site2", "site3", "default"]),
                               (host("site1"), ["site1", "site1", "site3", "site1"]),
                               (host("site3"), ["site1", "site3", "site3", "site3"]),
                               (host("nobody"), ["site1", "site2", "site3", "default"])):
            assert [visit(address, name) for address in server.addresses] == expected, name


def test_wildcards_and_refused_names_are_those_of_the_frontend(sites: dict[str, Path], tmp_path: Path) -> None:
    with proxy(tmp_path, "sni-nomatch-abort = on", frontend(f"pem-file = {sites['wild']}", "sni-nomatch-abort = off"),
               frontend(f"pem-file = {sites['wild']}", f"pem-file = {sites['site1']}"),
               frontend(f"pem-file = {sites['site2']}"),
               frontend(f"pem-file = {sites['site3']}", "match-global-certs = on"), f"pem-file = {sites['default']}",
               frontend(), frontends=5) as server:
        wild, both, strict, matching, common = server.addresses
        assert visit(wild, host("foo")) == visit(both, host("bar")) == visit(wild, "asdf") == "wild"
        assert visit(both, host("site1")) == "site1"
        assert visit(matching, host("default")) == visit(common, host("default")) == "default"
        assert visit(strict) == "site2"
        for address, name in ((both, "asdf"), (strict, "asdf"), (strict, host("default")), (matching, host("site1")),
                              (common, host("site2"))):
            with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
                visit(address, name)


def test_a_key_may_be_in_a_file_of_its_own(sites: dict[str, Path], tmp_path: Path) -> None:
    def pem(site: str, key: str) -> str:
        return block("pem-file", f"cert = {sites[site].with_suffix('.crt')}",
                     f"private-key = {sites[key].with_suffix('.key')}")

    with proxy(tmp_path, pem("default", "default"), frontend(), frontend(pem("site1", "site1"), pem("site2", "site2")),
               frontends=2) as server:
        assert [visit(address) for address in server.addresses] == ["default", "site1"]
        assert visit(server.addresses[1], host("site2")) == "site2"
    assert refusal(tmp_path, pem("site1", "site2")) == (
        f"{sites['site2'].with_suffix('.key')}: the private key does not match the certificate: "
        f"{sites['site1'].with_suffix('.crt')}")
    assert refusal(tmp_path, frontend(pem("site1", "site2"))).startswith("3: frontend: ")


# A folder of certificates


def test_all_certificates_of_a_folder_are_served_or_those_called_as_asked(sites: dict[str, Path],
                                                                          tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    (folder / "folder.pem").mkdir(parents=True)
    (folder / ".hidden.pem").write_text("no certificate at all")
    for site in ("site1", "site2", "default"):
        shutil.copy(sites[site], folder / f"{site}.pem")
    (folder / "link.crt").symlink_to(sites["site3"])
    lines = (f"pem-dir = {folder}", "sni-nomatch-abort = yes", "frontend = 127.0.0.1:0")
    with proxy(tmp_path, *lines) as server:
        assert visit(server.address) == "default"  # the first by its name
        for site in ("site1", "site2", "site3", "default"):
            assert visit(server.address, host(site)) == site
        # It is looked at again on a reload, and one that is bad refuses it.
        (folder / "default.pem").unlink()
        (folder / "wild.pem").write_text("no certificate at all")
        reload(server)
        eventually(lambda: len(server.errors) == 1, "it is refused")
        assert server.errors[0].startswith(f"proxy: reload: {folder}/wild.pem: ")
        shutil.copy(sites["wild"], folder / "wild.pem")
        reload(server)
        assert visit(server.address) == "site3" and visit(server.address, host("default")) == "wild"
    with proxy(tmp_path, f"pem-file = {sites['default']}", 'pem-dir-glob = "*ite*"', *lines) as server:
        assert visit(server.address) == "default"
        for site in ("site1", "site2"):
            assert visit(server.address, host(site)) == site
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            visit(server.address, host("site3"))
    # The command line's certificates stand for the file's, a folder or not.
    for arguments, served in (([str(sites["site3"])], "site3"), (["--pem-dir", str(folder)], "site3"),
                              (["--pem-dir", str(folder), "--pem-dir-glob", "*1*"], "site1"),
                              (["--pem-dir", str(folder), str(sites["site2"])], "site2")):
        config = write(tmp_path, "backend = 127.0.0.1:1", f"pem-file = {sites['default']}", *lines[:1])
        if arguments[0] == "--pem-dir" and served == "site2":
            (folder / "site2.pem").unlink()  # not twice
        with backend(echo) as to, running("proxy", "--config", config, "-b", to, "-f", "127.0.0.1:0",
                                          *arguments) as server:
            assert visit(server.address) == served
    assert refusal(tmp_path, f"pem-dir = {tmp_path}/none") == f"--pem-dir: {tmp_path}/none: No such file or directory"
    assert refusal(tmp_path, f"pem-dir = {folder}", "pem-dir-glob = x*") == (
        f"--pem-dir: {folder}: no file there is called like --pem-dir-glob")
    assert refusal(tmp_path, f"pem-dir = {folder}/folder.pem") == f"--pem-dir: {folder}/folder.pem: no file is there"
    assert refusal(tmp_path, "pem-dir-glob = x*") == "--pem-dir-glob: only with --pem-dir"


# Staples


def is_stapled(address: str, name: str) -> bool:
    said = subprocess.run(["openssl", "s_client", "-connect", address, "-servername", name, "-status"], input="",
                          capture_output=True, text=True, timeout=60, check=False).stdout
    assert ("OCSP Response Status: successful" in said) != ("OCSP response: no response sent" in said)
    return "OCSP Response Status: successful" in said


def test_a_staple_may_be_given_with_its_certificate_and_is_verified_where_asked(
        authority: Authority, tmp_path: Path) -> None:
    one, two = authority.issue("one", "one.example"), authority.issue("two", "two.example")
    staple = authority.staple(one)

    def pem(*lines: str, certificate: Path = one) -> str:
        return block("pem-file", f"cert = {certificate}", f"ocsp-resp-file = {staple}", *lines)

    with proxy(tmp_path, pem(), f"pem-file = {two}", frontend(), frontend(pem(), f"pem-file = {two}"),
               frontends=2) as server:
        for address in server.addresses:
            assert is_stapled(address, "one.example") and not is_stapled(address, "two.example")
    assert refusal(tmp_path, pem(certificate=two)) == f"--ocsp: {staple}: not about {two}"

    def said(trusted: Path, *lines: str) -> str:
        config = write(tmp_path, "backend = 127.0.0.1:1", *lines)
        return subprocess.run([program("proxy"), "-t", "--config", config], capture_output=True, text=True, timeout=60,
                              check=False, env={**os.environ, "SSL_CERT_FILE": str(trusted)}).stderr

    stranger = Authority(tmp_path / "stranger", "A stranger").certificate
    unverified = f"proxy: --ocsp: {staple}: its signature cannot be verified: "
    for lines in ((pem("ocsp-verify-staple = on"),), ("ocsp-verify-staple = on", pem()),
                  ("ocsp-verify-staple = on", f"ocsp = {staple}", f"pem-file = {one}")):
        assert said(stranger, *lines).startswith(unverified)
        assert said(authority.certificate, *lines) == ""
    assert unverified.removeprefix("proxy: ") in said(stranger, frontend(pem("ocsp-verify-staple = on")))
    assert said(stranger, "ocsp-verify-staple = on", pem("ocsp-verify-staple = off")) == ""


# Versions, ciphers, protocols


def agreed(address: str, version: ssl.TLSVersion | None = None) -> tuple[str | None, str]:
    """Version and cipher; ("refused", "")."""
    context = client_context(version)
    if version is None or version < V12:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = version or ssl.TLSVersion.TLSv1
    with dial(address) as plain:
        try:
            with context.wrap_socket(plain) as tls:
                cipher = tls.cipher()
                return tls.version(), cipher[0] if cipher else ""
        except (ssl.SSLError, ConnectionError):
            return "refused", ""


def test_each_frontend_has_its_own_versions_and_ciphers(sites: dict[str, Path], certificates: Path,
                                                        tmp_path: Path) -> None:
    rsa = certificates / "rsa-2048-localhost.pem"
    with proxy(tmp_path, "backend-connect-timeout = 20", "ssl-handshake-timeout = 31",
               frontend(f"pem-file = {rsa}", "ciphers = HIGH", "prefer-server-ciphers = on", "tls = on"),
               frontend("tls-protos = SSLv3 TLSv1.0 TLSv1.2"), frontend("tls-max = TLSv1.2", "ciphers = AES256-SHA256"),
               frontend("tls-min = TLSv1.3", "ciphersuites = TLS_CHACHA20_POLY1305_SHA256"), frontend(),
               f"pem-file = {rsa}", "tls-protos = TLSv1.2 TLSv1.3", frontends=5) as server:
        versions = [version for version in ssl.TLSVersion if ssl.TLSVersion.TLSv1 <= version <= V13]
        served = [[agreed(address, version)[0] for version in versions] for address in server.addresses]
        assert served == [["TLSv1", "refused", "refused", "refused"], ["TLSv1", "refused", "TLSv1.2", "refused"],
                          ["refused", "refused", "TLSv1.2", "refused"], ["refused", "refused", "refused", "TLSv1.3"],
                          ["refused", "refused", "TLSv1.2", "TLSv1.3"]]
        assert agreed(server.addresses[2], V12)[1] == "AES256-SHA256"
        assert agreed(server.addresses[3], V13)[1] == "TLS_CHACHA20_POLY1305_SHA256"
        assert agreed(server.addresses[4], V12)[1] != "AES256-SHA256"


def test_each_frontend_has_its_own_application_protocols_and_groups(sites: dict[str, Path], tmp_path: Path) -> None:
    with proxy(tmp_path, f"pem-file = {sites['default']}", "alpn = http/1.1", frontend('alpn-protos = "h2, http/1.1"'),
               frontend("ecdh-curve = P-384"), frontends=2) as server:
        for address, protocol in zip(server.addresses, ("h2", "http/1.1")):
            context = client_context()
            context.set_alpn_protocols(["http/1.1", "h2"])
            with dial(address) as plain, context.wrap_socket(plain) as tls:
                assert tls.selected_alpn_protocol() == protocol
        said = subprocess.run(["openssl", "s_client", "-connect", server.addresses[1]], input="", capture_output=True,
                              text=True, timeout=60, check=False).stdout
        assert "ECDH, secp384r1, 384 bits" in said


@pytest.mark.parametrize("lines", [
    ("tls-protos = SSLv3 TLSv1.0 TLSv1.1 TLSv1.2", "ssl = on"), ("ssl = on", "tls-protos = TLSv1.2"),
    ("tls-protos = TLSv1.0", "tls = on"), ("tls = on", "tls-protos = TLSv1.2"), ("tls = on", "ssl = on"),
    ("tls-protos = TLSv1.2", "tls-min = TLSv1.2"),
])
def test_versions_that_are_asked_for_in_two_ways_are_refused_in_a_frontend_and_outside(
        lines: tuple[str, ...], sites: dict[str, Path], tmp_path: Path) -> None:
    file = f"pem-file = {sites['default']}"
    everywhere = refusal(tmp_path, file, *lines)
    assert everywhere.startswith("--") and ": not together with --" in everywhere
    assert refusal(tmp_path, file, frontend(*lines)) == f"4: frontend: {everywhere}"
    # What a frontend says takes the place of all that is said elsewhere.
    write(tmp_path, "backend = 127.0.0.1:1", file, lines[0], frontend(lines[1]))
    assert run("proxy", "-t", "--config", str(tmp_path / "proxy.conf")).returncode == 0


# Certificates of clients


def is_served(address: str, name: str | None, context: ssl.SSLContext) -> bool:
    try:
        visit(address, name, context)
        return True
    except (ssl.SSLError, ConnectionError):
        return False


@pytest.mark.parametrize("version", [V12, V13])
def test_a_frontend_may_ask_clients_for_certificates_and_another_not(version: ssl.TLSVersion, sites: dict[str, Path],
                                                                     authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "Another authority")
    asks = f"client-verify-ca = {authority.certificate}"
    contexts = [client_with(version, file) for file in (None, authority.issue("mine"), other.issue("theirs"))]
    with proxy(tmp_path, f"pem-file = {sites['default']}", frontend(asks, "client-verify = required"),
               frontend(asks, "client-verify = optional"), frontend(), frontends=3) as server:
        assert [[is_served(address, None, context) for context in contexts] for address in server.addresses] == [
            [False, True, False], [True, True, False], [True, True, True]]
    with proxy(tmp_path, f"pem-file = {sites['default']}", asks, frontend("client-verify = none"), frontend(),
               frontend(f"client-ca = {other.certificate}"), frontends=3) as server:
        assert [[is_served(address, None, context) for context in contexts] for address in server.addresses] == [
            [True, True, True], [False, True, False], [False, False, True]]
    assert refusal(tmp_path, f"pem-file = {sites['default']}", frontend("client-verify = required")) == (
        "4: frontend: --client-verify: only with --client-ca")


@pytest.mark.parametrize("version", [V12, V13])
def test_a_certificate_may_be_for_clients_with_a_certificate_only(
        version: ssl.TLSVersion, sites: dict[str, Path], authority: Authority, tmp_path: Path) -> None:
    def asks(site: str, *lines: str) -> str:
        return block("pem-file", f"cert = {sites[site]}", *lines)

    nobody, mine = client_with(version, None), client_with(version, authority.issue("client"))
    required = (f"client-verify-ca = {authority.certificate}", "client-verify = required")
    with proxy(tmp_path, f"pem-file = {sites['default']}", asks("site1", *required), frontend(),
               frontend(f"pem-file = {sites['site2']}", asks("site3", *required)),
               frontend(*required, asks("site1"), asks("site2", "client-verify = none"),
                        asks("site3", "client-verify = optional")), frontends=3) as server:
        one, two, three = server.addresses
        for address, name, without in ((one, None, True), (one, host("default"), True), (one, host("site1"), False),
                                       (one, host("SITE1"), False), (two, host("site2"), True), (two, None, True),
                                       (two, host("site3"), False), (three, None, False), (three, host("site1"), False),
                                       (three, host("site2"), True), (three, host("site3"), True)):
            assert is_served(address, name, nobody) == without, (address, name)
            assert is_served(address, name, mine), (address, name)
    assert refusal(tmp_path, asks("site1", "client-verify = optional")) == (
        f"{sites['site1']}: client-verify: only with client-ca")
    assert "has clients verified in another way for site1.example.com" in refusal(
        tmp_path, asks("site1", *required), f"pem-file = {authority.issue('site1', host('site1'), key='rsa:2048')}")


@pytest.mark.parametrize("where", ["all", "frontend", "certificate"])
def test_authorities_of_clients_are_read_also_where_nobody_is_asked(where: str, sites: dict[str, Path],
                                                                    tmp_path: Path) -> None:
    """A path that is wrong shows when it is written, not when somebody asks for certificates one day."""
    site, path = f"cert = {sites['site1']}", tmp_path / "nowhere"
    lines = (f"client-ca = {path}", "client-verify = none")
    whole = {"all": [block("pem-file", site), *lines],
             "frontend": [frontend(block("pem-file", site), *lines)],
             "certificate": [block("pem-file", site, *lines)]}[where]
    place = "3: frontend: " if where == "frontend" else ""
    assert refusal(tmp_path, *whole) == f"{place}--client-ca: {path}: cannot be read: No such file or directory"
    path.write_text("no certificate\n")
    assert refusal(tmp_path, *whole) == f"{place}--client-ca: {path}: no certificate can be read"
    path.write_text(sites["default"].read_text())
    with proxy(tmp_path, *whole, *([] if where == "frontend" else [frontend()])) as server:
        assert is_served(server.address, None, client_with(V13, None))


@pytest.mark.parametrize("word", ["client-verify = none", "client-ca = x", "ocsp-resp-file = x",
                                  "ocsp-verify-staple = on"])
def test_what_a_certificate_has_for_clients_is_refused_where_there_are_none(word: str, sites: dict[str, Path],
                                                                            tmp_path: Path) -> None:
    option = word.split(" ", maxsplit=1)[0]
    assert refusal(tmp_path, "client = yes", block("pem-file", f"cert = {sites['site1']}", word)) == (
        f"{sites['site1']}: {option}: not together with --client")


# Sessions


def resumed(address: str, context: ssl.SSLContext, name: str | None,
            session: ssl.SSLSession | None = None) -> tuple[bool | None, ssl.SSLSession | None]:
    with dial(address) as plain, context.wrap_socket(plain, server_hostname=name, session=session) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        return tls.session_reused, tls.session


@pytest.mark.parametrize("tickets", ["on", "off"])
@pytest.mark.parametrize("version", [V12, V13])
def test_no_session_leads_to_where_its_client_would_have_been_asked_for_a_certificate(
        version: ssl.TLSVersion, tickets: str, sites: dict[str, Path], authority: Authority, tmp_path: Path) -> None:
    """Begun under a name that asks for nothing, it is offered under one that does."""
    nobody, mine = client_with(version, None), client_with(version, authority.issue("another client"))
    asks = block("pem-file", f"cert = {sites['site1']}", f"client-ca = {authority.certificate}")
    with proxy(tmp_path, f"tickets = {tickets}", f"pem-file = {sites['default']}", asks, "frontend = 127.0.0.1:0",
               frontend(f"client-ca = {authority.certificate}"), frontends=2) as server:
        one, two = server.addresses
        assert resumed(one, nobody, host("default"), resumed(one, nobody, host("default"))[1])[0]
        for address, name in ((one, host("site1")), (two, host("default"))):
            session = resumed(one, nobody, host("default"))[1]
            with pytest.raises((ssl.SSLError, ConnectionError)):
                resumed(address, nobody, name, session)
            session = resumed(one, mine, host("default"))[1]
            assert not resumed(address, mine, name, session)[0]
            assert resumed(address, mine, name, resumed(address, mine, name)[1])[0]
        assert counters(server)["closed"]["worker_died"] == 0


@pytest.mark.parametrize("version", [V12, V13])
def test_sessions_are_common_to_frontends_of_which_nothing_particular_is_asked(
        version: ssl.TLSVersion, sites: dict[str, Path], tmp_path: Path) -> None:
    context = client_context(version)
    with proxy(tmp_path, f"pem-file = {sites['default']}", frontend(), frontend(), frontend("sigalgs = ECDSA+SHA256"),
               frontend(f"pem-file = {sites['site1']}"), frontends=4) as server:
        plain, other, strict, own = server.addresses
        assert resumed(other, context, None, resumed(plain, context, None)[1])[0]
        for address in (strict, own):
            assert not resumed(address, context, None, resumed(plain, context, None)[1])[0]
            assert not resumed(plain, context, None, resumed(address, context, None)[1])[0]
            assert resumed(address, context, None, resumed(address, context, None)[1])[0]


# Files that are refused


@pytest.mark.parametrize(("lines", "complaint"), [
    ((frontend(at=("host = localhost", 'port = ""')),), "3: frontend: port: is missing"),
    ((frontend(at=("port = 443",)),), "3: frontend: host: is missing"),
    ((frontend(at=("host = /some.sock", "port = 443")),), "3: frontend: port: a UNIX socket has none"),
    ((frontend(at=("host = localhost", "port = http")),),
     "3: frontend: localhost, port http: the port is not a number"),
    ((frontend(at=("host = no.such.host.invalid", "port = 443")),), "3: frontend: "),
    (("workers = 1", frontend("nonsense = 1")), "7: frontend: nonsense: 1: unknown option"),
    ((frontend("workers = 2"),), "6: frontend: workers: 2: unknown option"),
    ((frontend("sni-nomatch-abort = maybe"),), "6: frontend: sni-nomatch-abort: maybe: must be on or off"),
    ((frontend("tls-protos = TLSv1.4"),), "6: frontend: tls-protos: TLSv1.4: must be of SSLv3 "),
    ((frontend("tls-protos = SSLv3"),), "6: frontend: tls-protos: SSLv3: names no version of TLS"),
    ((frontend("ciphers = NOTHING"),), "3: frontend: --ciphers: NOTHING: "),
    ((frontend("tls-min = TLSv1.3", "tls-max = TLSv1.2"),), "3: frontend: --tls-max: lower than --tls-min"),
    ((frontend("client-ca = /no/such/file"),), "3: frontend: --client-ca: /no/such/file: cannot be read"),
    ((frontend("pem-file = /no/such/file"),), "3: frontend: /no/such/file: cannot be read"),
    ((frontend(block("pem-file", "private-key = x")),), "6: frontend: pem-file: cert: is missing"),
    ((block("pem-file", "private-key = x"),), "3: pem-file: cert: is missing"),
    ((block("pem-file", "cert = x", block("pem-file", "cert = x")),), "5: pem-file: pem-file: {: unknown option"),
    ((frontend(), "frontend = {", "host = localhost", "port = 443"), "7: frontend: the block is not closed"),
    ((frontend(), "}"), "7: there is no block to close"),
    (("backend = {",), "3: backend: {: "),
    ((frontend(at=("host = fd22:5979:45f3:9471::1", "port = 443")),
      frontend(at=("host = [fd22:5979:45f3:9471::1]", "port = 443"))),
     "7: frontend: another frontend has the same address"),
])
def test_a_bad_block_is_refused_with_its_line(lines: tuple[str, ...], complaint: str, sites: dict[str, Path],
                                              tmp_path: Path) -> None:
    good = [] if lines[0].startswith("pem-file") else [f"pem-file = {sites['default']}"]
    assert refusal(tmp_path, *lines, *good).startswith(complaint)


def test_a_frontend_without_any_certificate_is_refused(sites: dict[str, Path], tmp_path: Path) -> None:
    assert refusal(tmp_path, frontend(f"pem-file = {sites['site1']}"), frontend()).startswith("no certificate: ")
    assert refusal(tmp_path, "client = yes", frontend("tls-min = TLSv1.3")) == (
        "4: frontend: has TLS of its own: not together with --client")
    assert refusal(tmp_path, frontend(f"pem-file = {sites['site1']}"), "ocsp = x").startswith("--ocsp: about none of ")


# Reloads


def test_a_reload_changes_what_is_particular_to_a_frontend_or_nothing(sites: dict[str, Path], tmp_path: Path) -> None:
    first, second = own_address(), own_address()

    def lines(site: str, *more: str) -> list[str]:
        at = {address: tuple(f"{key} = {value}" for key, value in zip(("host", "port"), address.split(":")))
              for address in (first, second)}
        return [f"pem-file = {sites['default']}", frontend(f"pem-file = {sites[site]}", *more, at=at[first]),
                frontend(at=at[second])]

    with backend(echo) as to:
        config = write(tmp_path, f"backend = {to}", *lines("site1"))
        with running("proxy", "--config", config, frontends=2) as server:
            assert (visit(first), visit(second)) == ("site1", "default")
            write(tmp_path, f"backend = {to}", *lines("site2", "tls-max = TLSv1.2"))
            reload(server)
            assert (visit(first), visit(second)) == ("site2", "default")
            assert agreed(first)[0] == "TLSv1.2" and agreed(second)[0] == "TLSv1.3"
            write(tmp_path, f"backend = {to}", *lines("site3", "ciphers = NOTHING"))
            reload(server)
            eventually(lambda: len(server.errors) == 2, "it is refused")
            assert server.errors[1].startswith(f"proxy: reload: {config}:4: frontend: --ciphers: NOTHING: ")
            assert (visit(first), visit(second)) == ("site2", "default")


def test_a_block_that_a_reload_found_broken_leaves_nothing_to_the_next(sites: dict[str, Path], tmp_path: Path) -> None:
    file = f"pem-file = {sites['default']}"
    with backend(echo) as to:
        config = write(tmp_path, f"backend = {to}", "frontend = 127.0.0.1:0", file)
        with running("proxy", "--config", config) as server:
            write(tmp_path, f"backend = {to}", "frontend = {", "pem-file = x", "nonsense")
            reload(server)
            eventually(lambda: len(server.errors) == 1, "it is refused")
            write(tmp_path, f"backend = {to}", block("pem-file", f"cert = {sites['site1']}"), "frontend = 127.0.0.1:0")
            reload(server)
            assert visit(server.address) == "site1"
