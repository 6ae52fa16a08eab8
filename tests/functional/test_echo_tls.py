"""The echo-backend in TLS."""
import contextlib
import json
import random
import re
import select
import ssl

import pytest
from echo_backends import Backend, LONG_S, MIB, ask, filling, read_all, split_randomly, tls_client
from proxies import client_context


@pytest.fixture
def tls_backend(certificate):
    with Backend("https", "--cert", certificate[0], "--key", certificate[1], "-n", 2) as running:
        yield running


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_https_echoes_and_says_what_was_agreed(tls_backend, version):
    data = random.Random(11).randbytes(5 * MIB)
    with tls_client(tls_backend, version) as client:
        for chunked in False, True:
            body = b"POST / HTTP/1.1\r\n"
            if chunked:
                body += b"Transfer-Encoding: chunked\r\n\r\n"
                body += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in split_randomly(data[:MIB], 3))
                body += b"0\r\n\r\n"
                expected = data[:MIB]
            else:  # one thread sends and reads: an SSL object is not for two
                body += b"Content-Length: %d\r\n\r\n" % MIB + data[MIB:2 * MIB]
                expected = data[MIB:2 * MIB]
            assert exchange(client, body) == expected
        facts = json.loads(ask(client, "/whoami")[1])
        assert facts["tls"].pop("group") in ("X25519", "P-256", "X25519MLKEM768")
        assert facts["tls"] == {"version": client.version(), "cipher": client.cipher()[0], "resumed": False,
                                "server_name": "localhost"}
        assert ask(client, "/?s=3m")[1] == filling(3 * MIB)


def exchange(client, request):
    """Sends and receives as either is possible, on one thread; returns the body of the answer."""
    received, sent = bytearray(), 0
    client.setblocking(False)
    while True:
        progress = False
        if sent < len(request):
            with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                sent += client.send(request[sent:sent + 16384])
                progress = True
        with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
            piece = client.recv(1 << 16)
            assert piece, "closed"
            received += piece
            progress = True
        body = complete_body(received) if sent == len(request) else None
        if body is not None:
            client.settimeout(LONG_S)
            return body
        if not progress:
            assert any(select.select([client], [client] if sent < len(request) else [], [], LONG_S)[:2]), "stuck"


def complete_body(received):
    """The body of the response, None while it is not complete."""
    head, found, body = bytes(received).partition(b"\r\n\r\n")
    if not found:
        return None
    length = re.search(rb"Content-Length: (\d+)", head)
    if length:
        return body if len(body) >= int(length[1]) else None
    if not body.endswith(b"\r\n0\r\n\r\n"):
        return None
    joined, at = bytearray(), 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        joined += body[end + 2:end + 2 + size]
        at = end + 2 + size + 2
        if size == 0:
            return bytes(joined)


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_a_session_is_resumed_whichever_worker_takes_the_connection(tls_backend, version):
    context = client_context(version)
    with tls_client(tls_backend, context=context) as client:
        assert not json.loads(ask(client, "/whoami")[1])["tls"]["resumed"]
        session = client.session
    workers = set()
    for _ in range(200):
        with tls_client(tls_backend, context=context, session=session) as client:
            facts = json.loads(ask(client, "/whoami")[1])
            assert facts["tls"]["resumed"] and client.session_reused
            session = client.session
            workers.add(facts["worker_pid"])
        if len(workers) == 2:
            break
    assert len(workers) == 2


def test_only_the_versions_that_were_allowed_are_spoken(certificate):
    arguments = ["https", "--cert", certificate[0], "--key", certificate[1]]
    with Backend(*arguments, "--tls-max", "TLSv1.2") as backend:
        with pytest.raises(ssl.SSLError):
            tls_client(backend, ssl.TLSVersion.TLSv1_3)
        with tls_client(backend) as client:
            assert client.version() == "TLSv1.2"
    with Backend(*arguments, "--tls-min", "TLSv1.3") as backend:
        with pytest.raises(ssl.SSLError):
            tls_client(backend, ssl.TLSVersion.TLSv1_2)


def test_certificate_and_key_may_be_one_file(certificate):
    with Backend("https", "--cert", certificate[2]) as backend, tls_client(backend) as client:
        assert ask(client, "/?s=1")[1] == b"0"


def test_the_end_of_a_tls_connection_is_told_in_tls(tls_backend):
    context = client_context()
    client = context.wrap_socket(tls_backend.connect(), server_hostname="localhost", suppress_ragged_eofs=False)
    with client:
        assert ask(client, "/?s=1&C=1")[1] == b"0"
        assert client.recv(1) == b""  # a bare FIN would be an error here


def test_plain_text_on_the_tls_port_harms_nobody(tls_backend):
    with tls_backend.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read_all(client)
    with tls_backend.connect():
        with tls_client(tls_backend) as client:
            assert ask(client, "/?s=1")[1] == b"0"


class RecordingClient:
    """A TLS client over a socket whose incoming bytes are kept."""

    def __init__(self, socket_, version=None):
        self.socket, self.received = socket_, b""
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context(version).wrap_bio(self.incoming, self.outgoing)
        self.step(self.tls.do_handshake)

    def step(self, action, *arguments):
        while True:
            try:
                return action(*arguments)
            except ssl.SSLWantReadError:
                self.socket.sendall(self.outgoing.read())
                data = self.socket.recv(1 << 16)
                assert data, "closed"
                self.received += data
                self.incoming.write(data)


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_who_says_close_notify_after_the_request_gets_the_whole_answer(certificate, version):
    with Backend("https", "--cert", certificate[2]) as backend, backend.connect() as plain:
        client = RecordingClient(plain, version)
        client.tls.write(b"GET /?s=3m HTTP/1.1\r\n\r\n")
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        plain.sendall(client.outgoing.read())
        total = 0
        while data := plain.recv(1 << 18):
            total += len(data)
        assert total > 3 * MIB


def test_each_piece_of_a_body_is_a_record(certificate):
    with Backend("https", "--cert", certificate[2]) as backend, backend.connect() as plain:
        client = RecordingClient(plain, ssl.TLSVersion.TLSv1_2)
        client.received = b""
        client.tls.write(b"GET /?s=1000&p=100 HTTP/1.1\r\n\r\n")
        body = b""
        while not body.endswith(filling(1000)):
            body += client.step(client.tls.read, 5000)
    lengths, received = [], client.received
    while received:
        length = int.from_bytes(received[3:5], "big")
        lengths += [length] if received[0] == 23 else []
        received = received[5 + length:]
    head, *pieces = lengths
    assert len(pieces) == 10 and len(set(pieces)) == 1
