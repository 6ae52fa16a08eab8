"""The echo of a body: whole, whatever its size and framing, and in constant memory."""
import random
import select
import socket
import threading

import pytest
from echo_backends import LONG_S, MIB, ask, echo, filling, kernel_buffer_bytes, read_all, resident_bytes, response_of


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
