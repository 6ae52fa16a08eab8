"""Sessions of the reference proxy: keys of tickets and what is in the cache, and for how long they are good."""
from __future__ import annotations

import base64
import os
import ssl
import subprocess
from pathlib import Path

import pytest

from programs import Running, make_certificate
from test_proxy import client_context, connected, counters, eventually, resume
from test_proxy_names import proxy, refusal
from test_proxy_tls import BOTH


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))[2]


def no_tickets(version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that resumes by session ID."""
    context = client_context(version)
    context.options |= ssl.OP_NO_TICKET
    return context


def visit(server: Running, context: ssl.SSLContext,
          session: ssl.SSLSession | None = None) -> tuple[bool, ssl.SSLSession | None]:
    """Whether the session was resumed, and the one to resume next."""
    with connected(server, context, session) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        return bool(tls.session_reused), tls.session


def conversation(server: Running, *options: str) -> str:
    """All that s_client has to say of a connection on which something went there and back: by then the tickets have
    come too. It writes data before what it has to say of them."""
    client = subprocess.Popen(["openssl", "s_client", "-connect", server.address, *options],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert client.stdin and client.stdout
    try:
        client.stdin.write(b"there and back\n")
        client.stdin.flush()
        said = b""
        while b"there and back\n" not in said:
            piece = os.read(client.stdout.fileno(), 65536)
            assert piece, said
            said += piece
        return (said + client.communicate()[0]).decode()
    finally:
        client.kill()
        client.wait()


# Tickets


@pytest.mark.parametrize("version", BOTH)
def test_tickets_end_with_their_key(version: ssl.TLSVersion, certificate: Path) -> None:
    """The session itself would live for an hour."""
    context = client_context(version)
    with proxy("-n", "2", "--ticket-rotation", "200ms", certificate) as server:
        _, session = visit(server, context)
        eventually(lambda: not visit(server, context, session)[0], "the ticket's key is gone")
        assert visit(server, context, session)[0] is False  # and stays so: served, by a full handshake


def test_a_resumed_connection_of_tls13_gets_a_new_ticket(certificate: Path) -> None:
    """Clients that use each ticket once, as they should, resume every time."""
    context, seen = client_context(ssl.TLSVersion.TLSv1_3), set()
    with proxy(certificate) as server:
        session = visit(server, context)[1]
        for _ in range(5):
            assert session and session.id not in seen
            seen.add(session.id)
            resumed, session = visit(server, context, session)
            assert resumed


def keys_file(path: Path, *keys: bytes) -> Path:
    path.write_text("# keys of tickets\n\n" + "".join(base64.b64encode(key).decode() + "\n" for key in keys))
    return path


@pytest.mark.parametrize("version", BOTH)
def test_proxies_with_one_key_file_take_each_others_tickets(version: ssl.TLSVersion, certificate: Path,
                                                            tmp_path: Path) -> None:
    """And as keys are replaced one after the other: a ticket of an old key is opened, and a new one given for it."""
    old, new = os.urandom(48), os.urandom(80)
    context = client_context(version)
    with proxy("--ticket-keys", keys_file(tmp_path / "old", old), certificate) as first, \
            proxy("--ticket-keys", keys_file(tmp_path / "both", new, old), certificate) as second, \
            proxy("--ticket-keys", keys_file(tmp_path / "new", new), certificate) as third:
        _, session = visit(first, context)
        assert visit(third, context, session)[0] is False
        resumed, session = visit(second, context, session)
        assert resumed
        assert visit(first, context, session)[0] is False  # it is of the new key now
        assert visit(third, context, session)[0] is True


@pytest.mark.parametrize("length", [48, 80])
def test_a_key_as_it_is_and_in_base64_is_the_same_key(length: int, certificate: Path, tmp_path: Path) -> None:
    key, context = os.urandom(length), client_context()
    (tmp_path / "binary").write_bytes(key)
    with proxy("--ticket-keys", tmp_path / "binary", certificate) as one, \
            proxy("--ticket-keys", keys_file(tmp_path / "text", key), certificate) as other:
        assert visit(other, context, visit(one, context)[1])[0] is True


def test_key_files_that_cannot_be_used_are_refused(certificate: Path, tmp_path: Path) -> None:
    good = base64.b64encode(os.urandom(48)).decode()
    other = base64.b64encode(os.urandom(80)).decode()
    twins = (base64.b64encode(b"the same name..." + os.urandom(32)).decode() for _ in range(2))
    many = (base64.b64encode(os.urandom(80)).decode() for _ in range(17))
    file = tmp_path / "keys"
    for content, complaint in {
            b"": "no key in it",
            b"# nothing but this\n\n": "no key in it",
            b"\x00" * 47: "neither text nor one key of 48 or 80 bytes",
            b"secret\n": "line 1: a key has 64 or 108 characters, 48 or 80 bytes in base64",
            f"{good}\n{good[:-1]}!\n".encode(): "line 2: not base64 of 48 or 80 bytes",
            f"# a comment\r\n{good}\r\n{good[:-1]}=\r\n".encode(): "line 3: not base64 of 48 or 80 bytes",
            f"{other[:-1]}A\n".encode(): "line 1: not base64 of 48 or 80 bytes",
            ("=" * 64).encode(): "line 1: not base64 of 48 or 80 bytes",
            "\n".join(twins).encode(): "line 2: its name, the first 16 bytes, is that of another key",
            "\n".join(many).encode(): "line 17: more than 16 keys",
            b"x" * 20000: "larger than 16 KiB"}.items():
        file.write_bytes(content)
        assert refusal("--ticket-keys", file, certificate) == f"--ticket-keys: {file}: {complaint}"
    file.write_text(good)  # without a newline at its end: good
    with proxy("--ticket-keys", file, certificate) as server:
        assert resume(server, client_context(), 2) == [True] * 2
    assert refusal("--ticket-keys", tmp_path, certificate) == \
        f"--ticket-keys: {tmp_path}: cannot be read: Is a directory"
    assert refusal("--ticket-keys", tmp_path / "missing", certificate) == \
        f"--ticket-keys: {tmp_path}/missing: cannot be read: No such file or directory"
    assert refusal("--ticket-keys", file, "--tickets", "off", certificate) == \
        "--ticket-keys: not together with --tickets off"


@pytest.mark.parametrize(("options", "tickets"), [([], 1), (["--num-tickets", "3"], 3), (["--num-tickets", "0"], 0),
                                                  (["--tickets", "off"], 1), (["--tickets", "off", "-C", "0"], 0)])
def test_a_new_connection_gets_as_many_tickets_as_asked_for(options: list[str], tickets: int,
                                                            certificate: Path) -> None:
    with proxy(*options, certificate) as server:
        assert conversation(server, "-tls1_3").count("Post-Handshake New Session Ticket arrived") == tickets


def test_the_lifetime_of_sessions_is_told_to_clients(certificate: Path) -> None:
    with proxy("--session-lifetime", "20m", certificate) as server:
        for version in ("-tls1_2", "-tls1_3"):
            assert "lifetime hint: 1200 (seconds)" in conversation(server, version)
    assert refusal("--session-lifetime", "8d", certificate).startswith("--session-lifetime: 8d: ")
    assert "must be at most" in refusal("--session-lifetime", "11000m", certificate)


# The cache


def test_what_tickets_make_unnecessary_is_not_in_the_cache(certificate: Path) -> None:
    with proxy(certificate) as server:
        for version in BOTH:
            assert resume(server, client_context(version), 3) == [True] * 3
        counted = counters(server)
        assert (counted["session_stores"], counted["session_hits"], counted["session_misses"]) == (0, 0, 0)


def test_the_cache_forgets_what_was_used_longest_ago_and_counts_it(certificate: Path) -> None:
    context = no_tickets(ssl.TLSVersion.TLSv1_2)
    with proxy("-C", "2", "-n", "2", certificate) as server:
        first, second = (visit(server, context)[1] for _ in range(2))
        assert visit(server, context, first)[0]  # now the second was used longest ago
        third = visit(server, context)[1]
        assert [visit(server, context, session)[0] for session in (first, third)] == [True, True]
        assert visit(server, context, second)[0] is False
        counted = counters(server)
        # The full handshake of the second's return made another session, and room for it.
        assert {name: counted[f"session_{name}"] for name in ("stores", "hits", "misses", "evictions", "expired")} == \
            {"stores": 4, "hits": 3, "misses": 1, "evictions": 2, "expired": 0}


def test_a_session_in_the_cache_expires_and_that_is_counted(certificate: Path) -> None:
    context = no_tickets(ssl.TLSVersion.TLSv1_2)
    with proxy("--session-lifetime", "1s", certificate) as server:
        _, session = visit(server, context)
        eventually(lambda: not visit(server, context, session)[0], "the session expires")
        counted = counters(server)
        assert (counted["session_expired"], counted["session_misses"]) == (1, 1)


def test_a_stateful_ticket_of_tls13_is_good_once(certificate: Path) -> None:
    context = client_context(ssl.TLSVersion.TLSv1_3)
    with proxy("--tickets", "off", "-n", "2", certificate) as server:
        _, session = visit(server, context)
        resumed, newer = visit(server, context, session)
        assert resumed
        assert visit(server, context, session)[0] is False
        assert visit(server, context, newer)[0] is True
        assert counters(server)["session_misses"] == 1
