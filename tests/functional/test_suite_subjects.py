"""The drivers, with the real products: each relays, speaks what the cell asks for, and really resumes."""
import contextlib
import os
import resource
import socket
import socketserver
import ssl
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from programs import BUILD
from tlsdyno_suite import machine, port, sessions
from tlsdyno_suite.cell import Cell
from tlsdyno_suite.certificates import certificate
from tlsdyno_suite.processes import crew
from tlsdyno_suite.refusal import Refused
from tlsdyno_suite.runner import start_subject
from tlsdyno_suite.subjects import DRIVERS, Task, check_paths

MODERN = Cell(subject="", case="", cert_key="ecdsa:P-256", tls_version="TLSv1.3", cipher="TLS_AES_128_GCM_SHA256",
              group="X25519", reuse="always", resume_with="ticket", requests_per_connection=1, request_bytes=0,
              response_bytes=0, connections=50, cores=1, backend="tcp", loop="closed")
OLD = replace(MODERN, cert_key="rsa:2048", tls_version="TLSv1.2", cipher="ECDHE-RSA-AES128-GCM-SHA256")
CELLS = {"TLS 1.3 ticket": MODERN, "TLS 1.2 ticket": OLD, "TLS 1.2 ID": replace(OLD, resume_with="id")}
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
# The relays that can be here: an article's other names for the reference are no others.
RELAYS = [name for name, driver in DRIVERS.items()
          if not (driver.origin or driver.external or driver.variant or name.startswith("tls-off"))]
RESUMING = [name for name in RELAYS if DRIVERS[name].resumes]
WEAK = replace(OLD, cert_key="rsa:1024", tls_version="TLSv1", cipher="AES256-SHA", resume_with="id")


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


@contextlib.contextmanager
def echo_server(path: str | None):
    """Its address: the path, or a port of its own."""
    if path is None:
        server: socketserver.BaseServer = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
        path = "127.0.0.1:%d" % server.server_address[1]
    else:
        server = socketserver.ThreadingUnixStreamServer(path, Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(params=["tcp", "unix"])
def backend(request, tmp_path):
    with echo_server(None if request.param == "tcp" else str(tmp_path / "echo.sock")) as address:
        yield address


@pytest.fixture
def echo():
    with echo_server(None) as address:
        yield address


@pytest.fixture
def serve(tmp_path):
    """Starts a subject for a cell; returns its address and session."""
    with crew() as programs:
        def start(name: str, cell: Cell, backend: str) -> tuple[tuple[str, int], int]:
            cpus = (min(os.sched_getaffinity(0)),)
            task = Task(cell, cpus, certificate(cell.cert_key), backend, 0, tmp_path)
            address = start_subject(DRIVERS[name], task, Path(tmp_path / "subject.log"), programs)
            return ("127.0.0.1", int(address.rpartition(":")[2])), programs[-1].session
        yield start


def client(cell: Cell) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if cell.resume_with == "id":
        context.options |= ssl.OP_NO_TICKET
    return context


def echo_once(context: ssl.SSLContext, address: tuple[str, int],
              session: ssl.SSLSession | None = None) -> tuple[str | None, str, bool | None, ssl.SSLSession]:
    """One connection: version, cipher, whether resumed, session. TLS 1.3 tickets have arrived when the echo has."""
    with context.wrap_socket(socket.create_connection(address), session=session) as connection:
        connection.sendall(b"0123456789" * 1000)
        got = b""
        while len(got) < 10000 and (data := connection.recv(65536)):
            got += data
        assert got == b"0123456789" * 1000
        facts = connection.version(), connection.cipher()[0], connection.session_reused, connection.session
        try:
            connection.unwrap().close()
        except (OSError, ssl.SSLError):
            pass  # not every product answers a close_notify
        return facts


@pytest.mark.parametrize("name", RESUMING)
@pytest.mark.parametrize("kind", CELLS)
def test_it_relays_and_resumes_what_the_cell_asks_for(serve, backend, name, kind):
    cell = CELLS[kind]
    assert DRIVERS[name].cannot(cell) is None
    address, session = serve(name, cell, backend)
    context = client(cell)
    version, cipher, resumed, session_of_first = echo_once(context, address)
    assert (version, cipher, resumed) == (cell.tls_version, cell.cipher, False)
    assert session_of_first.has_ticket == (cell.resume_with == "ticket")
    for _ in range(3):
        assert echo_once(context, address, session_of_first)[2] is True
    cpus = {min(os.sched_getaffinity(0))}
    assert all(sessions.allowed_cpus(pid) == cpus for pid in sessions.members(session))


@pytest.mark.parametrize("name", RELAYS)
def test_it_starts_with_room_for_as_many_connections_as_descriptors_allow(serve, echo, name):
    """Some ask for more than they may have, and give up; some say that they will take fewer."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        limit = min(machine.raise_descriptor_limit(), 20000)
        cell = replace(MODERN, connections=limit * 125 // 256 - 65, reuse="never", requests_per_connection="inf")
        address, _ = serve(name, cell, echo)
        assert echo_once(client(cell), address)[0] == "TLSv1.3"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("name", RELAYS)
@pytest.mark.parametrize("cell, other", [(MODERN, "TLSv1.2"), (OLD, "TLSv1.3")], ids=["1.3", "1.2"])
def test_it_refuses_another_version(serve, backend, name, cell, other):
    address, _ = serve(name, cell, backend)
    context = client(cell)
    context.minimum_version = context.maximum_version = VERSIONS[other]
    with pytest.raises((ssl.SSLError, OSError)):
        echo_once(context, address)


@pytest.mark.parametrize("kind", CELLS)
def test_the_reference_without_resumption_never_resumes(serve, backend, kind):
    cell = CELLS[kind]
    address, _ = serve("reference-no-resume", cell, backend)
    context = client(cell)
    first = echo_once(context, address)[3]
    assert echo_once(context, address, first)[2] is False


def tickets_given(address: tuple[str, int]) -> int:
    """After a full handshake of TLS 1.3, counted by another client. They have all come when the echo has."""
    client = subprocess.Popen(["openssl", "s_client", "-connect", "%s:%d" % address, "-tls1_3", "-msg", "-nocommands"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert client.stdin and client.stdout
        client.stdin.write("echo of this line\n")
        client.stdin.flush()
        count = 0
        for line in client.stdout:
            count += line.startswith("<<<") and "NewSessionTicket" in line
            if line == "echo of this line\n":
                return count
        raise AssertionError("no echo")
    finally:
        client.kill()
        client.communicate()


@pytest.mark.parametrize("name", RELAYS)
@pytest.mark.parametrize("resume_with", ["ticket", "id"])
@pytest.mark.parametrize("reuse", ["never", "always"])
def test_all_give_the_same_number_of_tickets(serve, echo, name, resume_with, reuse):
    """Each costs the server a good part of a per cent of a handshake, so all must do the same work."""
    address, _ = serve(name, replace(MODERN, resume_with=resume_with, reuse=reuse), echo)
    assert tickets_given(address) == (0 if name == "reference-no-resume" else 2)


@pytest.mark.parametrize("name", RELAYS)
def test_paths_may_hold_what_separates_words(tmp_path, monkeypatch, name):
    """The directory of the build and that of temporary files: certificate, configuration and socket are below them."""
    odd = tmp_path / "it's a #1; {b}"
    odd.mkdir()
    monkeypatch.setenv("TLSDYNO_BUILD_DIR", str(odd))
    (odd / "proxy").symlink_to(BUILD / "proxy")
    check_paths(odd)
    cpus = (min(os.sched_getaffinity(0)),)
    with echo_server(str(odd / "echo.sock")) as backend, crew() as programs:
        task = Task(MODERN, cpus, certificate(MODERN.cert_key), backend, 0, odd)
        address = start_subject(DRIVERS[name], task, odd / "subject.log", programs)
        assert echo_once(client(MODERN), ("127.0.0.1", int(address.rpartition(":")[2])))[0] == "TLSv1.3"


@pytest.mark.parametrize("name", RELAYS)
def test_it_speaks_what_was_spoken_in_2011(serve, echo, name):
    """A version, a key and a cipher that the library allows at its security level 0 only."""
    address, _ = serve(name, WEAK, echo)
    context = client(WEAK)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("AES256-SHA:@SECLEVEL=0")
    assert echo_once(context, address)[:2] == ("TLSv1", "AES256-SHA")


def test_a_threading_model_is_a_build_of_its_own():
    for name in ("stunnel-fork", "stunnel-ucontext"):
        assert "stunnel is built with PTHREAD, not with " in str(DRIVERS[name].cannot(MODERN))


@pytest.mark.parametrize("name", ["hitch", "nginx", "stunnel"])
def test_who_has_no_queue_for_the_backend_says_so(name):
    assert "has no queue" in str(DRIVERS[name].cannot(replace(MODERN, maxconn=10)))


def get(connection: socket.socket, path: str) -> bytes:
    connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    got = b""
    while data := connection.recv(65536):
        got += data
    return got


def test_a_web_server_is_its_own_origin(serve):
    """All its files have one size."""
    cell = replace(OLD, response_bytes=777)
    address, _ = serve("nginx-web", cell, "")
    with client(cell).wrap_socket(socket.create_connection(address)) as connection:
        assert connection.cipher()[0] == cell.cipher
        head, _, body = get(connection, "/?s=777").partition(b"\r\n\r\n")
        assert b"200 OK" in head and body == b"a" * 777


def test_an_origin_is_asked_without_tls(serve):
    address, _ = serve("http", MODERN, "")
    with socket.create_connection(address) as connection:
        assert b"200" in get(connection, "/?s=5")


def test_an_origin_speaks_tls_itself(serve):
    cell = replace(MODERN, cipher="TLS_AES_256_GCM_SHA384")
    assert DRIVERS["https"].cannot(cell) is None and DRIVERS["https"].cannot(MODERN)
    address, _ = serve("https", cell, "")
    with client(cell).wrap_socket(socket.create_connection(address)) as connection:
        assert connection.version() == "TLSv1.3" and b"200" in get(connection, "/?s=5")


@pytest.mark.parametrize("character", ['"', "$", "\\", "\n"])
def test_a_path_that_no_quotes_protect_is_refused(tmp_path, character):
    with pytest.raises(Refused, match="not every product's configuration can name this path"):
        check_paths(tmp_path, tmp_path / f"a{character}b")


def test_ports_are_taken_from_where_no_outgoing_connection_gets_one(tmp_path, monkeypatch):
    monkeypatch.setattr(port, "OUTGOING", tmp_path / "range")
    for text, allowed in (("32768\t60999\n", [*range(10000, 32768), *range(61000, 65536)]),
                          ("10000 62000", range(62001, 65536)), ("1024 65535", range(10000, 65536)),
                          ("nonsense", [*range(10000, 32768), *range(61000, 65536)])):
        (tmp_path / "range").write_text(text)
        assert port.choices() == list(allowed)
        assert port.free_port() in allowed


def test_hitch_says_what_it_cannot_do():
    cannot = DRIVERS["hitch"].cannot
    assert "each worker" in str(cannot(replace(OLD, resume_with="id", cores=2)))
    assert cannot(replace(OLD, resume_with="id", cores=2, reuse="never")) is None
    assert cannot(replace(OLD, resume_with="ticket", cores=2)) is None


def test_stunnel_says_what_it_cannot_follow():
    cannot = DRIVERS["stunnel"].cannot
    assert "does not follow 15000 a second" in str(cannot(replace(OLD, loop="rate:15000")))
    assert cannot(replace(OLD, loop="rate:5000")) is None and cannot(OLD) is None


def test_a_product_that_is_not_installed_has_no_version(monkeypatch):
    from tlsdyno_suite.subjects import base
    monkeypatch.setattr(base, "installed", lambda _name: None)
    assert base.printed_version.__wrapped__("hitch", "--version", "(.*)") is None
