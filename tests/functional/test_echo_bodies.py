"""The echo of a body: whole, whatever its size and framing, and in constant memory."""
import contextlib
import functools
import json
import random
import select
import socket
import threading
import zlib

import programs
import pytest
from echo_backends import (Backend, LONG_S, MIB, ask, echo, filling, kernel_buffer_bytes, read_all, resident_bytes,
                           response_of)


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


@pytest.mark.parametrize("mode", ["http", "https", "sock"])
def test_a_gibibyte_is_echoed_in_constant_memory(mode, certificate, tmp_path):
    options = {"http": [], "https": ["--cert", certificate[2]], "sock": ["-l", tmp_path / "echo.sock"]}[mode]
    with Backend(mode, *options) as backend:
        worker, = backend.workers()
        before = resident_bytes(worker, most=True)
        target = {"http": [f"http://{backend.address}/"], "https": [f"https://{backend.address}/"],
                  "sock": ["--unix", backend.address, "http://localhost/"]}[mode]
        result = programs.run("loadgen", "-c", "1", "-w", "1", "-n", "1", "--method", "POST", "--body-size", "1g",
                              "--check-body", "--timeout", "5m", "--json", "-", *target, timeout=300)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["totals"]["bytes_received"] > 1 << 30
        # A sanitizer keeps some 30 MiB of what was freed.
        assert resident_bytes(worker, most=True) - before < 64 * MIB


def test_a_long_body_in_chunks_is_echoed_in_constant_memory(backend):
    worker, = backend.workers()
    before = resident_bytes(worker, most=True)
    piece = random.Random(9).randbytes(MIB)
    with backend.connect() as client:

        def send():
            client.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(128):
                client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            client.sendall(b"0\r\n\r\n")

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        answer, check, received = client.makefile("rb", 1 << 20), 0, 0
        while answer.readline() != b"\r\n":
            pass
        while size := int(answer.readline(), 16):
            data = answer.read(size + 2)[:-2]
            check, received = zlib.crc32(data, check), received + size
        sender.join(LONG_S)
    assert received == 128 * MIB
    assert check == functools.reduce(lambda so_far, _: zlib.crc32(piece, so_far), range(128), 0)
    assert resident_bytes(worker, most=True) - before < 8 * MIB


def test_many_slow_clients_cost_no_more_than_two_buffers_each(backend):
    worker, = backend.workers()
    before = resident_bytes(worker)
    with contextlib.ExitStack() as stack:
        for _ in range(300):  # in the middle of a head, and of a body: nothing is kept but where they are
            head, body = stack.enter_context(backend.connect()), stack.enter_context(backend.connect())
            head.sendall(b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 1000)
            body.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        with backend.connect() as client:
            assert ask(client, "/?s=1")[1] == b"0"
        slow = resident_bytes(worker) - before
        assert slow < 600 * 8192 + 8 * MIB
        for _ in range(50):  # that send and do not read
            client = stack.enter_context(backend.connect(receive_buffer=1 << 16))
            client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n")
            client.setblocking(False)
            while select.select([], [client], [], 0.02)[1]:
                client.send(b"x" * MIB)
        assert resident_bytes(worker) - before - slow < 50 * 150_000 + 8 * MIB


def test_extensions_and_trailers_of_chunks_are_taken_and_not_echoed(backend):
    with backend.connect() as client:
        for _ in range(2):
            client.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
                           b"5;name=value\r\nhello\r\n1 ; q=\"x\"\r\n!\r\n0\r\nX: y\r\n\r\n")
            assert response_of(client)[1] == b"hello!"


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
