"""Requests in, answers out: what is asked for in the query is what comes."""
import json
import random
import re
import socket
import threading
import time
import zlib

import pytest
from echo_backends import LONG_S, MIB, ask, filling, read_all, response_of, split_randomly


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


def test_answers_that_lie_ready_are_whole_for_a_client_who_reads_late(backend):
    """Each request is sent by itself, until the server's socket is full in the midst of an answer."""
    with backend.connect(receive_buffer=1 << 14) as client:
        for _ in range(3):
            for _ in range(120):
                client.sendall(b"GET /?s=60k HTTP/1.1\r\n\r\n")
                time.sleep(0.003)
            for _ in range(120):
                assert response_of(client)[1] == filling(60 * 1024)


def test_a_request_that_was_seen_before_is_answered_as_it_was_then(backend):
    ok, kept = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n", b"Connection: keep-alive\r\n"

    def answer(body, more=b""):
        return ok + b"Content-Length: %d\r\n%b\r\n%b" % (len(body), more, body)

    def echo(body):
        return answer(body).replace(b"text/plain", b"application/octet-stream")

    pairs = [
        (b"GET /?s=5 HTTP/1.1\r\n\r\n", answer(b"01234")),
        (b"GET /?s=5 HTTP/1.1\r\nHost: x\r\n\r\n", answer(b"01234")),
        (b"GET /?s=6 HTTP/1.1\r\n\r\n", answer(b"012345")),
        (b"GET /?s=5 HTTP/1.1\r\nContent-Length: 3\r\n\r\nGET", answer(b"01234")),
        (b"GET /?s=5 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", answer(b"01234")),
        (b"GET /?s=5 HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
         b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"01234")),
        (b"GET /?s=5&t=1 HTTP/1.1\r\n\r\n", answer(b"01234")),
        (b"GET /?s=5&K=1 HTTP/1.0\r\n\r\n", answer(b"01234", kept)),
        (b"GET /?s=5 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", answer(b"01234", kept)),
        (b"GET /?s=5&K=1 HTTP/1.1\r\nConnection: close\r\n\r\n", answer(b"01234")),
        (b"GET /?s=1 HTTP/1.1\r\nX: " + b"y" * 1000 + b"\r\n\r\n", answer(b"0")),
        (b"HEAD /?s=5 HTTP/1.1\r\n\r\n", answer(b"01234")[:-5]),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", echo(b"ab")),
        (b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", echo(b"")),
        (b"GET /?r=204&s=5 HTTP/1.1\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ]
    dice = random.Random(3)
    story = [dice.choice(pairs) for _ in range(2000)]
    with backend.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = b"GET /?C=1 HTTP/1.1\r\n\r\n"

        def send():
            for piece in split_randomly(b"".join(request for request, _ in story) + end, 4, 300):
                client.sendall(piece)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        received = read_all(client)
        sender.join(LONG_S)
    assert received == b"".join(expected for _, expected in story) + answer(b"", b"Connection: close\r\n")


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
                                   "r=x", "t=x", "t=1h", "t=11m", "C=2", "k=yes", "b=", "b=x", "b=-", "b=4&k=1",
                                   "p=0", "p=17k", "p=x", "w=5"])
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


def test_the_length_that_is_announced_may_be_another(backend):
    for length, closes in (7, True), (1000, True), (-1, False):
        with backend.connect() as client:
            client.sendall(f"GET /?s=100&b={length} HTTP/1.1\r\n\r\nGET /?s=1&C HTTP/1.1\r\n\r\n".encode())
            head, body = read_all(client).split(b"\r\n\r\n", 1)
            assert b"Content-Length: %d" % (100 if length < 0 else length) in head.split(b"\r\n")
            assert (b"Connection: close" in head.split(b"\r\n")) == closes
            assert body.startswith(filling(100))
            assert body[100:].startswith(b"HTTP/1.1 200 OK") == (not closes)
            assert closes == (len(body) == 100)
    with backend.connect() as client:
        response, _ = ask(client, "/?s=5&b=9", method="HEAD")
        assert response.header("Content-Length") == "9"


def test_the_length_may_be_left_out(backend):
    with backend.connect() as client:
        client.sendall(b"GET /?s=3m&b=0 HTTP/1.1\r\n\r\n")
        head, body = read_all(client).split(b"\r\n\r\n", 1)
        assert b"Content-Length" not in head and b"chunked" not in head
        assert body == filling(3 * MIB)


def test_a_wrong_length_may_leave_the_client_waiting(backend):
    with backend.connect() as client:
        client.sendall(b"GET /?s=5&b=9&K=1 HTTP/1.1\r\n\r\n")
        received = b""
        while not received.endswith(b"\r\n\r\n01234"):
            received += client.recv(1000)
        client.sendall(b"GET /?s=1&C HTTP/1.1\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 200 OK"), "the connection is open still"


@pytest.mark.parametrize("size, piece", [(10, 1), (100, 7), (1000, 1000), (200_000, 10_000), (70_000, 16384), (0, 5)])
def test_a_body_in_pieces_is_the_same_and_its_chunks_are_the_pieces(backend, size, piece):
    with backend.connect() as client:
        for filler in 0, 1:
            whole = ask(client, f"/?s={size}&R={filler}")[1]
            response, body = ask(client, f"/?s={size}&p={piece}&R={filler}")
            assert body == whole and response.header("Content-Length") == str(size)
        client.sendall(f"GET /?s={size}&p={piece}&k=1&C=1 HTTP/1.1\r\n\r\n".encode())
        chunks = read_all(client).split(b"\r\n\r\n", 1)[1]
    expected = b""
    for at in range(0, size, piece):
        bytes_ = filling(size)[at:at + piece]
        expected += b"%x\r\n%b\r\n" % (len(bytes_), bytes_)
    assert chunks == expected + b"0\r\n\r\n"


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
            for key in "srtkpbRCKh":
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
