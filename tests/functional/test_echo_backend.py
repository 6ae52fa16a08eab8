"""build/echo-backend: what would break the benchmarks if the origin were wrong."""
import contextlib
import json
import os
import random
import re
import resource
import select
import signal
import socket
import ssl
import threading
import time
import zlib
from pathlib import Path

import programs
import pytest

MIB = 1 << 20
LONG_S = 60  # no test waits so long unless something hangs


class Backend:
    """A running echo-backend. Leaving the context ends it as a user would, and looks whether it ended well."""

    def __init__(self, *arguments, descriptors=None):
        self.server = programs.running("echo-backend", *map(str, arguments))
        self.descriptors = descriptors

    def __enter__(self):
        running = self.server.__enter__()
        self.process, self.address, self.workers, self.errors = (running.process, running.address, running.workers,
                                                                 running.errors)
        for pid in [self.process.pid, *self.workers()] if self.descriptors else []:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))
        return self

    def __exit__(self, *exception):
        killed = self.process.poll() == -signal.SIGKILL
        self.process.terminate()
        try:
            status = self.process.wait(LONG_S)
        finally:
            self.server.__exit__(*exception)
        if exception[0] is None and not killed:
            assert status == 0, self.errors
            assert not [line for line in self.errors if "Sanitizer" in line or "runtime error" in line], self.errors

    def connect(self, receive_buffer=None):
        if self.address.startswith("/"):
            client = socket.socket(socket.AF_UNIX)
            target = self.address
        else:
            client = socket.socket()
            host, port = self.address.rsplit(":", 1)
            target = host, int(port)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(LONG_S)
        client.connect(target)
        return client


@pytest.fixture
def backend():
    with Backend("http") as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return programs.make_certificate(tmp_path_factory.mktemp("certificate"))


def tls_client(backend, version=None, session=None, context=None):
    context = context or tls_context(version)
    return context.wrap_socket(backend.connect(), server_hostname="localhost", session=session)


def tls_context(version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
    return context


class Response:
    """One response, read without taking a byte of the next one."""

    def __init__(self, client, method="GET"):
        self.client = client
        lines = iter(self.line, "")
        self.status = int(next(lines).split()[1])
        self.headers = [tuple(line.split(": ", 1)) for line in lines]
        self.body = self.read_body() if method != "HEAD" and self.status not in (204, 304) else b""

    def exactly(self, count):
        received = bytearray()
        while len(received) < count:
            piece = self.client.recv(min(count - len(received), 1 << 18))
            assert piece, f"closed after {len(received)} of {count} bytes"
            received += piece
        return bytes(received)

    def line(self):
        text = b""
        while not text.endswith(b"\r\n"):
            text += self.exactly(1)
        return text[:-2].decode()

    def header(self, name):
        return dict(self.headers).get(name)

    def read_body(self):
        if self.header("Transfer-Encoding") != "chunked":
            return self.exactly(int(self.header("Content-Length")))
        body = bytearray()
        while size := int(self.line(), 16):
            body += self.exactly(size)
            assert self.line() == ""
        assert self.line() == ""
        return bytes(body)


def response_of(client, method="GET"):
    response = Response(client, method)
    return response, response.body


def ask(client, target="/", method="GET", version="1.1", headers="", body=b""):
    client.sendall(f"{method} {target} HTTP/{version}\r\nHost: x\r\n{headers}\r\n".encode() + body)
    return response_of(client, method)


def is_closed(client):
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def read_all(client):
    received = bytearray()
    while piece := client.recv(1 << 16):
        received += piece
    return bytes(received)


def split_randomly(data, seed, largest=100_000):
    dice, at = random.Random(seed), 0
    while at < len(data):
        step = dice.choice([1, dice.randint(1, 100), dice.randint(1, largest)])
        yield data[at:at + step]
        at += step


def echo(client, data, seed, chunked):
    """Sends data as the body of a POST in pieces of random sizes while reading the answer, whose body it returns."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data)}"

    def send():
        client.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
        for piece in split_randomly(data, seed):
            client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            client.sendall(b"0\r\n\r\n")

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    response, body = response_of(client)
    sender.join(LONG_S)
    assert response.status == 200
    assert (response.header("Transfer-Encoding") == "chunked") == chunked
    assert response.header("Content-Length") == (None if chunked else str(len(data)))
    return body


def resident_bytes(pid):
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def kernel_buffer_bytes():
    """The most that a connection's two directions can hold in the kernel."""
    limits = [Path(f"/proc/sys/net/ipv4/tcp_{name}").read_text().split()[2] for name in ("rmem", "wmem")]
    return 2 * sum(map(int, limits))


def filling(size):
    line = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.\n"
    return (line * (size // len(line) + 1))[:size]


# Echo


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_of_many_mib_comes_back_byte_for_byte(backend, chunked):
    data = random.Random(1).randbytes(24 * MIB)
    with backend.connect() as client:
        assert echo(client, data, seed=2, chunked=chunked) == data
        assert echo(client, b"again", seed=2, chunked=chunked) == b"again"


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_empty_body_is_answered(backend, method):
    with backend.connect() as client:
        for headers in ["", "Content-Length: 0\r\n"]:
            response, body = ask(client, method=method, headers=headers)
            assert (response.status, response.header("Content-Length"), body) == (200, "0", b"")
        response, body = ask(client, method=method, headers="Transfer-Encoding: chunked\r\n", body=b"0\r\n\r\n")
        assert (response.status, body) == (200, b"")


@pytest.mark.parametrize("length", [1, 16383, 16384, 65535, 65536, 65537, 57344, 57345])
def test_bodies_about_as_long_as_a_buffer_come_back_whole(backend, length):
    data = random.Random(length).randbytes(length)
    with backend.connect() as client:
        for chunked in False, True:
            assert echo(client, data, seed=length, chunked=chunked) == data


def test_a_thousand_tiny_chunks_come_back(backend):
    data = random.Random(5).randbytes(20_000)
    with backend.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                       + b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n")
        assert response_of(client)[1] == data


def test_an_http_1_0_client_is_not_sent_chunks(backend):
    with backend.connect() as client:
        client.sendall(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        head, body = read_all(client).split(b"\r\n\r\n", 1)
        assert body == b"abc" and b"chunked" not in head
    with backend.connect() as client:
        client.sendall(b"GET /?s=10&k=1 HTTP/1.0\r\n\r\n")
        head, body = read_all(client).split(b"\r\n\r\n", 1)
        assert body == filling(10) and b"chunked" not in head


def test_a_reader_who_does_not_read_is_not_read_from_and_costs_no_memory(backend):
    worker, = backend.workers()
    data = random.Random(7).randbytes(kernel_buffer_bytes() + 24 * MIB)
    with backend.connect(receive_buffer=1 << 16) as client:
        client.sendall(f"POST / HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        before = resident_bytes(worker)
        sent = 0
        client.setblocking(False)
        while sent < len(data) and select.select([], [client], [], 1)[1]:
            sent += client.send(data[sent:sent + MIB])
        assert sent < len(data), "the backend took in what it could not write"
        assert resident_bytes(worker) - before < 8 * MIB
        client.settimeout(LONG_S)
        sender = threading.Thread(target=client.sendall, args=[memoryview(data)[sent:]], daemon=True)
        sender.start()
        assert response_of(client)[1] == data
        sender.join(LONG_S)
        assert resident_bytes(worker) - before < 8 * MIB


def test_a_large_object_for_a_slow_reader_costs_no_memory(backend):
    worker, = backend.workers()
    with backend.connect(receive_buffer=1 << 16) as client:
        client.sendall(b"GET /?s=1g&C=1 HTTP/1.1\r\n\r\n")
        assert client.recv(1) == b"H"
        before = resident_bytes(worker)
        received = 1
        for _ in range(2000):
            received += len(client.recv(1 << 15))
        assert received > MIB
        assert resident_bytes(worker) - before < 8 * MIB


def test_expect_100_continue_is_honoured_before_the_body_is_sent(backend):
    with backend.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        expected = b"HTTP/1.1 100 Continue\r\n\r\n"
        received = b""
        while len(received) < len(expected):
            received += client.recv(len(expected) - len(received))
        assert received == expected
        client.sendall(b"abc")
        assert response_of(client)[1] == b"abc"


def test_a_half_closed_client_still_gets_its_answer(backend):
    data = random.Random(8).randbytes(200_000)
    with backend.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + data)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).endswith(data)
    with backend.connect() as client:
        client.sendall(b"GET /?s=3m HTTP/1.1\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).split(b"\r\n\r\n", 1)[1] == filling(3 * MIB)


def test_a_body_cut_short_does_not_look_complete(backend):
    with backend.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        client.shutdown(socket.SHUT_WR)
        answer = read_all(client)
        assert answer.endswith(b"3\r\nabc\r\n")
    with backend.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nrubbish")
        assert read_all(client).endswith(b"3\r\nabc\r\n")
    with backend.connect() as client:
        client.sendall(b"GET / HT")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).startswith(b"HTTP/1.1 400 ")


# Requests and answers


def test_pipelined_requests_are_answered_in_order(backend):
    sizes = [0, 1, 70_000, 10, 5_000, 65_536, 65_537, 3, 1_000_000, 2]
    with backend.connect() as client:
        client.sendall(b"".join(b"GET /?s=%d HTTP/1.1\r\n\r\n" % size for size in sizes)
                       + b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"
                       + b"HEAD /?s=7 HTTP/1.1\r\n\r\nGET /?s=8&C HTTP/1.1\r\n\r\n")
        received = read_all(client)
    for size in sizes:
        head, received = received.split(b"\r\n\r\n", 1)
        assert b"Content-Length: %d\r\n" % size in head + b"\r\n"
        assert received[:size] == filling(size)
        received = received[size:]
    head, received = received.split(b"\r\n\r\n", 1)
    assert received.startswith(b"bodyHTTP/1.1 200 OK\r\n")
    head, received = received.split(b"\r\n\r\n", 1)
    assert b"Content-Length: 7" in head
    head, received = received.split(b"\r\n\r\n", 1)
    assert received == filling(8)


def test_thousands_of_pipelined_requests_do_not_outgrow_a_buffer(backend):
    count = 20_000
    with backend.connect() as client:
        sender = threading.Thread(target=client.sendall, args=[b"GET /?s=100 HTTP/1.1\r\n\r\n" * count], daemon=True)
        sender.start()
        one = len(ask_size(100)) + 100
        received = 0
        while received < count * one:
            received += len(client.recv(1 << 16))
        sender.join(LONG_S)
        assert received == count * one
        assert ask(client, "/?s=1")[1] == b"0"


def ask_size(size):
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n"


def test_requests_that_come_a_byte_at_a_time_are_understood(backend):
    with backend.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /?s=5&r=404 HTTP/1.1\r\nHost: x\r\nX-Long: yes\r\n\r\n":
            client.send(bytes([byte]))
        response, body = response_of(client)
        assert (response.status, body) == (404, filling(5))
        for byte in b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n":
            client.send(bytes([byte]))
        assert response_of(client)[1] == b"hello"


@pytest.mark.parametrize("size", [0, 1, 1024, 4000, 65536, 65537, 3 * MIB])
@pytest.mark.parametrize("chunked", [0, 1])
def test_an_object_has_the_size_that_was_asked_for_and_head_says_the_same(backend, size, chunked):
    with backend.connect() as client:
        for _ in range(2):  # the second one may be a kept one
            response, body = ask(client, f"/?s={size}&k={chunked}")
            assert body == filling(size)
            head, nothing = ask(client, f"/?s={size}&k={chunked}", method="HEAD")
            assert head.headers == response.headers and nothing == b""
            assert response.header("Content-Length") == (None if chunked else str(size))


def test_every_separator_and_suffix_of_httpterm_is_read(backend):
    with backend.connect() as client:
        for target in ("/?s=1k&r=201", "/s=1k/r=201", "/?s=1k,r=201", "/;s=1k;r=201", "/any/path?r=201&s=1024",
                       "/?r=201?s=1K"):
            response, body = ask(client, target)
            assert (response.status, body) == (201, filling(1024)), target
        assert len(ask(client, "/?s=2m")[1]) == 2 * MIB


def test_what_is_no_key_is_ignored(backend):
    with backend.connect() as client:
        for target in "/", "/index.html?_=123&size=5&x=y&z", "/?", "//", "http://localhost/path", "/?&&,,;;", "*":
            response, body = ask(client, target)
            assert (response.status, body) == (200, b""), target


@pytest.mark.parametrize("query", ["s=", "s=-1", "s=1q", "s=99999999999999999999", "s=" + "9" * 40, "r=99", "r=600",
                                   "r=x", "t=x", "t=1h", "t=11m", "C=2", "k=yes", "b=1", "p=100", "w=5"])
def test_a_bad_value_is_a_400_that_names_its_key(backend, query):
    with backend.connect() as client:
        response, body = ask(client, f"/?{query}&s=5")
        assert response.status == 400
        assert body.startswith(query[0].encode() + b": ") and body.count(b"\n") == 1
        assert ask(client, "/?s=1")[1] == b"0", "the connection goes on"


@pytest.mark.parametrize("status", [200, 201, 302, 404, 429, 500, 503, 599])
def test_the_status_is_the_one_asked_for(backend, status):
    with backend.connect() as client:
        response, body = ask(client, f"/?r={status}&s=3")
        assert (response.status, body) == (status, b"012")
        response, body = ask(client, f"/?r={status}", method="POST", headers="Content-Length: 2\r\n", body=b"ab")
        assert (response.status, body) == (status, b"ab")


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_body_has_none_and_the_next_answer_is_not_eaten(backend, status):
    with backend.connect() as client:
        client.sendall(f"GET /?r={status}&s=9 HTTP/1.1\r\n\r\nGET /?r={status}&s=9&k=1 HTTP/1.1\r\n\r\n"
                       f"POST /?r={status} HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"
                       "GET /?s=1&C HTTP/1.1\r\n\r\n".encode())
        answers = read_all(client).split(b"\r\n\r\n")
        assert [answer.split()[1] for answer in answers[:4]] == [b"%d" % status] * 3 + [b"200"]
        assert answers[4:] == [b"0"]


def test_random_filling_is_not_compressible_and_always_the_same(backend):
    with backend.connect() as client:
        first, second = ask(client, "/?s=60k&R=1")[1], ask(client, "/?s=60k&R=1")[1]
        assert first == second and len(first) == 60 * 1024
        assert len(zlib.compress(first)) > 0.99 * len(first)
        assert len(ask(client, "/?s=1m&R=1&k=1")[1]) == MIB


def test_an_answer_can_be_made_to_take_its_time(backend):
    with backend.connect() as client:
        for method, headers, body in ("GET", "", b""), ("POST", "Content-Length: 1\r\n", b"0"):
            start = time.monotonic()
            response, answer = ask(client, "/?t=150&s=1", method=method, headers=headers, body=body)
            assert time.monotonic() - start > 0.14  # never too early; how late is the machine's affair
            assert (response.status, answer) == (200, b"0")


def test_a_delayed_answer_does_not_hold_up_others_and_keeps_its_place(backend):
    with backend.connect() as slow, backend.connect() as quick:
        slow.sendall(b"GET /?t=10m HTTP/1.1\r\n\r\n")
        assert ask(quick, "/?s=1")[1] == b"0"
        quick.sendall(b"GET /?t=50&s=1 HTTP/1.1\r\n\r\nGET /?s=2 HTTP/1.1\r\n\r\n")
        assert response_of(quick)[1] == filling(1)
        assert response_of(quick)[1] == filling(2)


def test_help_lists_the_keys(backend):
    with backend.connect() as client:
        for target in "/?h", "/?h=1":
            response, body = ask(client, target)
            assert response.status == 200
            for key in "srtkRCKh":
                assert re.search(rf"^  {key}\b", body.decode(), re.MULTILINE)


def test_other_methods_are_refused_and_their_body_is_not_taken_for_a_request(backend):
    with backend.connect() as client:
        response, _ = ask(client, method="DELETE", headers="Content-Length: 18\r\n", body=b"GET / HTTP/1.1\r\n\r\n")
        assert (response.status, response.header("Allow")) == (405, "GET, HEAD, POST, PUT")
        assert ask(client, "/?s=1")[1] == b"0"


def test_whoami_tells_both_ends_and_counts(backend):
    with backend.connect() as client:
        for requests in 1, 2:
            facts = json.loads(ask(client, "/whoami")[1])
            assert facts["peer"] == "127.0.0.1:%d" % client.getsockname()[1]
            assert facts["local"] == backend.address
            assert facts["worker_pid"] in backend.workers()
            assert (facts["connections"], facts["requests"]) == (1, requests)
            assert "tls" not in facts
    with backend.connect() as client:
        assert json.loads(ask(client, "/whoami")[1])["connections"] == 2


# Connections


@pytest.mark.parametrize("version, headers, query, stays", [
    ("1.1", "", "", True),
    ("1.1", "Connection: close\r\n", "", False),
    ("1.1", "", "C=1", False),
    ("1.1", "", "C=0", True),
    ("1.0", "", "", False),
    ("1.0", "Connection: keep-alive\r\n", "", True),
    ("1.0", "Connection: keep-alive\r\n", "C=1", False),
    ("1.0", "", "K=1", True),
    ("1.1", "Connection: close\r\n", "K=1", True),
])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_connection_stays_open_or_closes_as_agreed(backend, version, headers, query, stays, method):
    if method == "POST":
        headers += "Content-Length: 1\r\n"
    with backend.connect() as client:
        response, body = ask(client, f"/?s=1&{query}", method, version, headers, b"0" if method == "POST" else b"")
        assert body == b"0"
        said = (response.header("Connection") or "").lower()
        assert said == ("close" if not stays else "keep-alive" if version == "1.0" else "")
        if stays:
            assert ask(client, "/?s=2")[1] == filling(2)
        else:
            assert is_closed(client)


def test_what_follows_the_last_request_is_not_answered_and_costs_no_answer(backend):
    with backend.connect() as client:
        client.sendall(b"GET /?s=60k&C=1 HTTP/1.1\r\n\r\n" + b"GET / HTTP/1.1\r\n\r\n" * 5000)
        assert read_all(client).split(b"\r\n\r\n", 1)[1] == filling(60 * 1024)


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"hello\r\n\r\n",
                                     b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
                                     b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
                                     b"GET / HTTP/1.1\r\nA: " + b"a" * 200_000, b"CONNECT x:1 HTTP/1.1\r\n\r\n",
                                     b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
                         ids=["tls", "words", "header", "target", "long header", "connect", "two lengths"])
def test_what_is_not_http_gets_a_400_and_the_connection_ends(backend, rubbish):
    with backend.connect() as client:
        client.sendall(b"GET /?s=1 HTTP/1.1\r\n\r\n" + rubbish)
        assert response_of(client)[1] == b"0", "what came before is answered"
        response, body = response_of(client)
        assert response.status == 400 and body.count(b"\n") == 1
        assert is_closed(client)


def test_an_idle_connection_is_closed_and_a_delayed_one_is_not():
    with Backend("http", "--idle-timeout", "200ms") as backend:
        with backend.connect() as idle, backend.connect() as unfinished, backend.connect() as delayed:
            unfinished.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab")
            delayed.sendall(b"GET /?t=700&s=1 HTTP/1.1\r\n\r\n")
            assert is_closed(idle)
            read_all(unfinished)
            assert response_of(delayed)[1] == b"0"


def test_running_out_of_descriptors_neither_spins_nor_ends_the_service():
    with Backend("http", descriptors=40) as backend:
        clients = [backend.connect() for _ in range(60)]
        for client in clients:
            client.sendall(b"GET /?s=1 HTTP/1.1\r\n\r\n")
        worker, = backend.workers()
        for client in clients[:20]:
            assert response_of(client)[1] == b"0"
        before = cpu_seconds(worker)
        start = time.monotonic()
        time.sleep(0.5)
        assert cpu_seconds(worker) - before < 0.5 * (time.monotonic() - start)
        for client in clients[:30]:
            client.close()
        for client in clients[30:]:  # those who waited get their turn
            assert response_of(client)[1] == b"0"
            client.close()
    assert len([line for line in backend.errors if "accept: " in line]) == 1


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_many_connections_at_once_are_all_served():
    with Backend("http", "-n", 3) as backend, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(backend.connect()) for _ in range(300)]
        for number, client in enumerate(clients):
            client.sendall(f"GET /?s={number} HTTP/1.1\r\n\r\n".encode())
        workers = set()
        for number, client in enumerate(clients):
            assert response_of(client)[1] == filling(number)
            workers.add(json.loads(ask(client, "/whoami")[1])["worker_pid"])
        assert workers == set(backend.workers()) and len(workers) == 3


# TLS


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
        assert facts["tls"] == {"version": client.version(), "cipher": client.cipher()[0], "resumed": False}
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
    context = tls_context(version)
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
    context = tls_context()
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


# UNIX socket


def test_sock_serves_and_removes_its_file_at_the_end(tmp_path):
    path = tmp_path / "echo.sock"
    data = random.Random(12).randbytes(3 * MIB)
    with Backend("sock", "-l", path, "-n", 2) as backend:
        assert backend.address == str(path)
        with backend.connect() as client:
            assert echo(client, data, seed=1, chunked=True) == data
            assert json.loads(ask(client, "/whoami")[1])["local"] == str(path)
    assert not path.exists()


def test_a_socket_file_left_by_a_killed_server_is_replaced(tmp_path):
    path = tmp_path / "echo.sock"
    with Backend("sock", "-l", path) as backend:
        backend.process.kill()
        backend.process.wait(LONG_S)
        wait_until(lambda: not accepts(path))
    assert path.exists()
    with Backend("sock", "-l", path) as backend, backend.connect() as client:
        assert ask(client, "/?s=1")[1] == b"0"


def accepts(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_a_socket_file_in_use_is_refused_and_goes_on_working(tmp_path):
    path = tmp_path / "echo.sock"
    with Backend("sock", "-l", path) as backend:
        refused(["sock", "-l", path], r"--listen: .*echo\.sock: Address already in use")
        with backend.connect() as client:
            assert ask(client, "/?s=1")[1] == b"0"


def test_an_ordinary_file_is_not_removed_for_a_socket(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("data")
    refused(["sock", "-l", precious], r"--listen: .*precious: Address already in use")
    assert precious.read_text() == "data"


# Processes


def wait_until(condition):
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_a_killed_worker_is_replaced_and_service_goes_on():
    with Backend("http", "-n", 2) as backend:
        before = set(backend.workers())
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(backend.workers()) == 2 and victim not in backend.workers())
        for _ in range(30):
            with backend.connect() as client:
                assert ask(client, "/?s=1")[1] == b"0"


def test_workers_do_not_outlive_a_killed_master():
    with Backend("http", "-n", 3) as backend:
        workers = backend.workers()
        assert len(workers) == 3
        backend.process.kill()
        backend.process.wait(LONG_S)
        wait_until(lambda: not any(map(programs.is_alive, workers)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_status_0_and_no_process_is_left(number, tmp_path):
    with Backend("sock", "-l", tmp_path / "echo.sock", "-n", 2) as backend, backend.connect() as busy:
        busy.sendall(b"GET /?s=1g HTTP/1.1\r\n\r\n")
        busy.recv(1000)
        workers = backend.workers()
        backend.process.send_signal(number)
        assert backend.process.wait(LONG_S) == 0
        assert not any(map(programs.is_alive, workers))
        assert list(tmp_path.iterdir()) == []


def test_a_signal_straight_after_the_start_is_not_lost():
    for _ in range(20):
        with Backend("http", "-n", 4) as backend:
            workers = backend.workers()
        assert not any(map(programs.is_alive, workers))


def test_workers_run_on_the_cpus_that_were_named():
    cpus = sorted(os.sched_getaffinity(0))
    with Backend("http", "-n", len(cpus) + 1, "--cpus", ",".join(map(str, cpus))) as backend:
        wait_until(lambda: sorted(min(os.sched_getaffinity(pid)) for pid in backend.workers()
                                  if len(os.sched_getaffinity(pid)) == 1) == sorted(cpus + cpus[:1]))


def test_several_servers_do_not_disturb_each_other():
    with Backend("http") as first, Backend("http", "-n", 2) as second:
        assert first.address != second.address
        for backend in first, second:
            with backend.connect() as client:
                assert ask(client, "/?s=1")[1] == b"0"


# Bad usage


def refused(arguments, pattern):
    result = programs.run("echo-backend", *map(str, arguments), timeout=LONG_S)
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert re.fullmatch(rf"echo-backend: {pattern}\n", result.stderr), result.stderr


@pytest.mark.parametrize("arguments, pattern", [
    ([], "mode: none given: .*"),
    (["ftp"], "ftp: unknown mode: .*"),
    (["http", "sock"], "sock: one operand too many: .*"),
    (["http", "--nonsense"], "--nonsense: unknown option.*"),
    (["http", "-x"], "-x: unknown option.*"),
    (["http", "-n"], "-n: needs a value"),
    (["http", "-n", "0"], "--workers: 0: must be at least 1"),
    (["http", "-n", "257"], "--workers: 257: must be at most 256"),
    (["http", "-B", "0"], "--backlog: 0: .*"),
    (["http", "--cpus", "100000"], "--cpus: 100000: .*"),
    (["http", "--cpus", "1023"], "--cpus: 1023: CPU 1023 does not exist or is not allowed here"),
    (["http", "--idle-timeout", "0"], "--idle-timeout: 0: .*"),
    (["http", "-l", "127.0.0.1"], "--listen: 127.0.0.1: .*"),
    (["http", "-l", "127.0.0.1:99999"], "--listen: 127.0.0.1:99999: .*"),
    (["http", "-l", "/tmp/x.sock"], "--listen: /tmp/x.sock: .*"),
    (["http", "-l", "192.0.2.1:0"], "--listen: 192.0.2.1:0: Cannot assign requested address"),
    (["http", "--cert", "x.pem"], "--cert.*: only https .*"),
    (["sock"], "--listen: not given: .*"),
    (["sock", "-l", "127.0.0.1:0"], "--listen: 127.0.0.1:0: sock needs .*"),
    (["sock", "-l", "/no/such/directory/echo.sock"], "--listen: /no/such.*: No such file or directory"),
    (["https"], "--cert: not given: .*"),
    (["https", "--cert", "/no/such/file"], "/no/such/file: cannot be read: No such file or directory"),
    (["https", "--tls-min", "TLSv1.9"], "--tls-min: TLSv1.9: .*"),
])
def test_bad_usage_is_refused_in_one_line(arguments, pattern):
    refused(arguments, pattern)


def test_a_port_in_use_is_refused_also_to_several_workers():
    for first in "1", "3":
        with Backend("http", "-n", first) as backend:
            for second in "1", "3":
                refused(["http", "-l", backend.address, "-n", second],
                        rf"--listen: {re.escape(backend.address)}: Address already in use")


def test_a_certificate_that_cannot_serve_is_refused(certificate, tmp_path):
    empty, text = tmp_path / "empty.pem", tmp_path / "text.pem"
    empty.write_text("")
    text.write_text("no certificate\n")
    other_key = programs.make_certificate(tmp_path / "other")[1]
    good, key, _ = certificate
    refused(["https", "--cert", empty, "--key", key], ".*empty.pem: cannot be read: the file is empty")
    refused(["https", "--cert", text, "--key", key], ".*text.pem: no certificate can be read: .*")
    refused(["https", "--cert", good, "--key", text], ".*text.pem: no private key can be read: .*")
    refused(["https", "--cert", good], ".*crt: no private key can be read: .*")
    refused(["https", "--cert", good, "--key", other_key], ".*key: the private key does not match .*")
    refused(["https", "--cert", tmp_path, "--key", key], ".*: cannot be read: Is a directory")
    refused(["https", "--cert", good, "--key", key, "--tls-min", "TLSv1.3", "--tls-max", "TLSv1.2"], "--tls-min.*")


def test_help_and_version_end_well():
    for option in "--help", "-h", "--version", "-V":
        result = programs.run("echo-backend", option, timeout=LONG_S)
        assert (result.returncode, result.stderr) == (0, "")
        assert "echo-backend" in result.stdout
