"""A reload takes all that it can change, or nothing; what it has taken is in force, what it was refused is not."""
from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from authority import Authority
from programs import Running, make_certificate, running
from proxies import backend, client_context, connected, counters, echo, eventually, proxy
from test_proxy_life import configured, reload, served_name
from test_proxy_tls import client_with, s_client

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("reload") / "authority")


def visit(server: Running, context: ssl.SSLContext,
          session: ssl.SSLSession | None = None) -> tuple[bool | None, ssl.SSLSession | None]:
    """A byte there and back: (whether the session was resumed, the session to offer next)."""
    with connected(server, context, session) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        return tls.session_reused, tls.session


def uses(server: Running, library: str) -> bool:
    """Whether the workers have a provider's or an engine's library; all of them or none."""
    found = {library in Path(f"/proc/{pid}/maps").read_text() for pid in server.workers()}
    assert len(found) == 1
    return found.pop()


def set_lines(config: Path, *lines: str) -> None:
    """What the file has beyond the first four lines, which no test changes."""
    config.write_text("\n".join([*config.read_text().splitlines()[:4], *lines, ""]))


def reload_with(server: Running, config: Path, *lines: str) -> None:
    before = counters(server)["reloads"]
    set_lines(config, *lines)
    reload(server)
    assert counters(server)["reloads"] == before + 1, server.errors


def refuse(server: Running, config: Path, complaint: str, *lines: str) -> None:
    """A reload that is refused, with one line."""
    refused, told, workers = counters(server)["reloads_refused"], len(server.errors), server.workers()
    set_lines(config, *lines)
    reload(server)
    assert counters(server)["reloads_refused"] == refused + 1
    eventually(lambda: len(server.errors) == told + 1, "one line")
    assert server.errors[-1].startswith(f"proxy: reload: {complaint}"), server.errors
    assert server.errors[-1].endswith(": the old configuration stays")
    assert server.workers() == workers


@pytest.mark.parametrize("version", [V12, V13])
def test_other_keys_of_tickets_are_in_force(version: ssl.TLSVersion, tmp_path: Path) -> None:
    keys, context = tmp_path / "keys", client_context(version)
    first, second = os.urandom(80), os.urandom(80)
    keys.write_bytes(first)
    with backend(echo) as to, configured(tmp_path, to, f"ticket-keys = {keys}", "quiet = yes") as (server, config, _):
        _, session = visit(server, context)
        keys.write_bytes(second)
        assert visit(server, context, session)[0], "nobody has asked for a reload"
        reload_with(server, config, f"ticket-keys = {keys}", "quiet = yes")
        resumed, other = visit(server, context, session)
        assert not resumed and visit(server, context, other)[0]
        # The file that cannot be read leaves the last keys in force.
        keys.write_text("no keys\n")
        refuse(server, config, f"--ticket-keys: {keys}: line 1: ", f"ticket-keys = {keys}", "quiet = yes")
        assert visit(server, context, other)[0]
        # Without a file, keys are random: none of those of before.
        reload_with(server, config, "quiet = yes")
        resumed, other = visit(server, context, other)
        assert not resumed and visit(server, context, other)[0]


def test_another_staple_is_in_force(authority: Authority, tmp_path: Path) -> None:
    stapled = authority.issue("stapled", "stapled.example")
    staple = authority.staple(stapled)

    def is_stapled(server: Running) -> bool:
        said = s_client(server, "-status")
        assert ("OCSP Response Status: successful" in said) != ("OCSP response: no response sent" in said)
        return "OCSP Response Status: successful" in said

    with backend(echo) as to, configured(tmp_path, to, "quiet = yes") as (server, config, pem):
        pem.write_text(stapled.read_text())
        reload_with(server, config, "quiet = yes")
        assert not is_stapled(server)
        reload_with(server, config, "quiet = yes", f"ocsp = {staple}")
        assert is_stapled(server)
        (tmp_path / "garbage").write_text("garbage")
        refuse(server, config, f"--ocsp: {tmp_path}/garbage: not an OCSP response", "quiet = yes",
               f"ocsp = {tmp_path}/garbage")
        assert is_stapled(server)
        reload_with(server, config, "quiet = yes")
        assert not is_stapled(server)


@pytest.mark.parametrize("version", [V12, V13])
def test_another_authority_of_clients_is_in_force(version: ssl.TLSVersion, authority: Authority,
                                                  tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "Another authority")
    nobody, mine, theirs = (client_with(version, file) for file in (None, authority.issue("mine"),
                                                                    other.issue("theirs")))

    def served(server: Running, context: ssl.SSLContext) -> bool:
        try:
            return visit(server, context)[0] is not None
        except ssl.SSLError:
            return False

    with backend(echo) as to, configured(tmp_path, to, "quiet = yes") as (server, config, _):
        assert [served(server, context) for context in (nobody, mine, theirs)] == [True, True, True]
        reload_with(server, config, "quiet = yes", f"client-ca = {authority.certificate}")
        assert [served(server, context) for context in (nobody, mine, theirs)] == [False, True, False]
        reload_with(server, config, "quiet = yes", f"client-ca = {other.certificate}", "client-verify = optional")
        assert [served(server, context) for context in (nobody, mine, theirs)] == [True, False, True]
        refuse(server, config, f"--client-ca: {tmp_path}/none: cannot be read", "quiet = yes",
               f"client-ca = {tmp_path}/none")
        assert [served(server, context) for context in (nobody, mine, theirs)] == [True, False, True]
        reload_with(server, config, "quiet = yes")
        assert [served(server, context) for context in (nobody, mine, theirs)] == [True, True, True]


@pytest.mark.parametrize("version", [V12, V13])
def test_sessions_with_certificates_fit_the_cache_after_a_reload_that_asks_for_them(
        version: ssl.TLSVersion, authority: Authority, tmp_path: Path) -> None:
    """The places of the cache that the proxy was started with are too small for them."""
    stateful = ("tickets = off", "quiet = yes")
    context = client_with(version, authority.issue("a client", key="rsa:2048"))
    with backend(echo) as to, configured(tmp_path, to, *stateful) as (server, config, _):
        _, before = visit(server, context)
        for asks in (True, False, True):
            lines = [f"client-ca = {authority.certificate}"] if asks else []
            reload_with(server, config, *stateful, *lines)
            resumed, session = visit(server, context, before)
            assert not resumed, "it was begun where clients were verified in another way"
            assert visit(server, context, session)[0]
            _, before = visit(server, context)
        assert counters(server)["session_too_large"] == 0


@pytest.mark.parametrize(("name", "library"), [("legacy", "legacy.so"), ("loader_attic", "loader_attic.so")])
def test_another_engine_is_in_force(name: str, library: str, tmp_path: Path) -> None:
    with backend(echo) as to, configured(tmp_path, to, "quiet = yes") as (server, config, _):
        refuse(server, config, "--engine: nonsense: ", "quiet = yes", "engine = nonsense")
        assert not uses(server, library)
        reload_with(server, config, "quiet = yes", f"engine = {name}")
        assert uses(server, library) and served_name(server) == "old"
        # A good one with something else that is not; and a worker that is forked after it.
        refuse(server, config, "--ciphers: NOTHING: ", "quiet = yes", "ciphers = NOTHING")
        old, told = server.workers(), len(server.errors)
        os.kill(old[0], signal.SIGKILL)
        eventually(lambda: server.workers() not in ([], old), "the worker is replaced")
        assert served_name(server) == "old"
        reload_with(server, config, "quiet = yes")
        assert served_name(server) == "old"
        assert len(server.errors) == told + 1  # the worker that was killed


def test_an_engine_of_a_reload_that_was_refused_does_nothing(tmp_path: Path) -> None:
    """The engine is good enough to be taken up, and something else is not. With this one no handshake would succeed."""
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "broken_provider.so",
                    Path(__file__).parent / "broken_provider.c"], check=True)
    pem = make_certificate(tmp_path, name="old")[2]
    config = tmp_path / "proxy.conf"
    with backend(echo) as to:
        config.write_text(f"quiet = yes\nfrontend = 127.0.0.1:0\nstats = 127.0.0.1:0\nbackend = {to}\n")
        with running("proxy", "--config", str(config), str(pem),
                     within=["env", f"OPENSSL_MODULES={tmp_path}"]) as server:
            refuse(server, config, "--ciphers: NOTHING: ", "engine = broken_provider", "ciphers = NOTHING")
            old = server.workers()
            os.kill(old[0], signal.SIGKILL)
            eventually(lambda: server.workers() not in ([], old), "the worker is replaced")
            assert served_name(server) == "old"
            # It is what it seems to be.
            reload_with(server, config, "engine = broken_provider")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                served_name(server)


FIXED: dict[str, Callable[[Path], str]] = {
    "stats": lambda folder: "stats = 127.0.0.1:1",
    "top-clients": lambda folder: "top-clients = 3", "session-cache": lambda folder: "session-cache = 7",
    "workers": lambda folder: "workers = 2", "backlog": lambda folder: "backlog = 7",
    "keepalive": lambda folder: "keepalive = 7", "maxconn": lambda folder: "maxconn = 7",
    "user": lambda folder: "user = nobody", "group": lambda folder: "group = nogroup",
    "chroot": lambda folder: f"chroot = {folder}", "pidfile": lambda folder: f"pidfile = {folder}/pid",
    "daemon": lambda folder: "daemon = yes", "syslog": lambda folder: "syslog = yes",
    "syslog-facility": lambda folder: "syslog-facility = local3",
}


def test_no_option_that_is_fixed_for_life_can_be_changed(tmp_path: Path) -> None:
    with backend(echo) as to, configured(tmp_path, to) as (server, config, _), connected(server) as early:
        for option, line in FIXED.items():
            refuse(server, config, f"--{option}: cannot be changed while the proxy runs", line(tmp_path),
                   "tls-max = TLSv1.2")
        for tls in (early, None):
            with contextlib.nullcontext(tls) if tls else connected(server) as client:
                client.sendall(b"as before")
                assert client.recv(9) == b"as before" and client.version() == "TLSv1.3"
        assert not (tmp_path / "pid").exists()


SHARING = "shared-cache = 127.0.0.1:0"


def test_how_sessions_are_shared_cannot_be_changed(tmp_path: Path) -> None:
    with backend(echo) as to, configured(tmp_path, to, SHARING, "tickets = off") as (server, config, pem):
        for option, lines in {
                "shared-cache": [], "shared-cache-peer": [SHARING, "shared-cache-peer = 127.0.0.1:1"],
                "shared-cache-key": [SHARING, f"shared-cache-key = {pem}"],
                "shared-cache-pull": [SHARING, "shared-cache-pull = 5ms"],
                "shared-cache-format": [SHARING, "shared-cache-format = stud"]}.items():
            refuse(server, config, f"--{option}: cannot be changed while the proxy runs", "tickets = off", *lines)


@pytest.mark.parametrize(("option", "line"), [("tickets", "tickets = off"), ("ticket-keys", "ticket-keys = {keys}")])
def test_random_keys_of_tickets_that_would_not_be_shared_are_refused(option: str, line: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(os.urandom(80))
    with backend(echo) as to, configured(tmp_path, to, SHARING, line.format(keys=keys)) as (server, config, _):
        refuse(server, config, f"--{option}: cannot begin to share random ticket keys while the proxy runs", SHARING)
        # Neither are the operator's keys shared, nor none.
        reload_with(server, config, SHARING, f"ticket-keys = {keys}")
        reload_with(server, config, SHARING, "tickets = off")


def test_random_keys_of_tickets_that_were_shared_are_so_again(tmp_path: Path) -> None:
    with backend(echo) as to, configured(tmp_path, to, SHARING) as (server, config, pem), \
            proxy(to, str(pem), "-U", "127.0.0.1:0", "-P", server.announced["shared cache"]) as other:
        reload_with(server, config, SHARING, "tickets = off")
        reload_with(server, config, SHARING)
        context = client_context(V13)
        _, ticket = visit(server, context)
        eventually(lambda: visit(other, context, ticket)[0] is True, "it resumes")


@pytest.mark.parametrize(("to", "complaint"), [
    ("no.such.host.invalid:80", "--backend: no.such.host.invalid:80: "),
    ("127.0.0.1:0", "{config}:3: backend: 127.0.0.1:0: port 0"),
    ("localhost", "{config}:3: backend: localhost: not HOST:PORT"),
])
def test_a_backend_that_cannot_be_is_refused(to: str, complaint: str, tmp_path: Path) -> None:
    with backend(echo) as good, configured(tmp_path, good) as (server, config, pem):
        config.write_text(config.read_text().replace(good, to))
        pem.write_text(make_certificate(tmp_path, name="new")[2].read_text())
        refuse(server, config, complaint.format(config=config))
        visit(server, client_context())
        assert served_name(server) == "old"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the root")
def test_the_root_directory_outlives_the_file_that_named_it(tmp_path: Path) -> None:
    """It is needed for every worker that is ever forked, long after the text that it was read from is gone."""
    lines = ("quiet = yes", f"chroot = {tmp_path}")
    with backend(echo) as to, configured(tmp_path, to, *lines) as (server, config, _):
        for _ in range(3):
            reload_with(server, config, *lines)
        old = server.workers()
        os.kill(old[0], signal.SIGKILL)
        eventually(lambda: server.workers() not in ([], old), "the worker is replaced")
        visit(server, client_context())
        root, = (f"/proc/{pid}/root" for pid in server.workers())
        eventually(lambda: os.readlink(root) == str(tmp_path), "it is in it")
        assert server.errors == ["proxy: worker 0 killed by signal 9"]
