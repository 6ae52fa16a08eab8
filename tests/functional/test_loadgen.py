"""The load generator against servers that count, and against servers that misbehave."""
from __future__ import annotations

import contextlib
import csv
import functools
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from counting_server import (LIMIT_S, VERSIONS, agrees, errors, load, reset, response, server_context,
                             serving, wait_for)
from programs import is_alive, make_certificate, program, run, running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def new_context(certificate) -> Callable[..., ssl.SSLContext]:
    return functools.partial(server_context, certificate[2])


@pytest.mark.parametrize("requests", [0, 1, "inf"])
def test_what_is_handled_together_is_counted_one_by_one(new_context, requests):
    with serving(new_context("TLSv1.3")) as server:
        result = load("--coalesce", "20ms", "-c", 5, "-n", 50, "--requests-per-connection", requests, server.url)
    agrees(result, server)
    assert result["coalesce_us"] == 20000
    # What happens 20 ms after an event is never seen earlier, and so it is told.
    assert result["latency_us"]["handshake_full"]["min"] >= 20000
    if requests:
        assert result["latency_us"]["transaction"]["min"] >= 20000


# ---- Which handshakes are resumed ----

KINDS = [("TLSv1.2", "id"), ("TLSv1.2", "ticket"), ("TLSv1.2", "any"), ("TLSv1.3", "ticket"), ("TLSv1.3", "any")]


@pytest.mark.parametrize("requests", [0, 1])
@pytest.mark.parametrize("version, kind", KINDS)
@pytest.mark.parametrize("reuse, connections, full", [("always", 3, 3), ("every:5", 1, 12), ("every:1", 2, 60)])
def test_reuse_is_what_was_asked_for(new_context, version, kind, reuse, connections, full, requests):
    with serving(new_context(version)) as server:
        result = load("--reuse", reuse, "--resume-with", kind, "--tls-version", version, "-c", connections, "-n", 60,
                      "--requests-per-connection", requests, server.url)
    agrees(result, server)
    assert result["handshakes_full"] == full
    assert result["handshakes_resumed"] == result["resume_offered"] == 60 - full
    assert result["resume_refused"] == 0


@pytest.mark.parametrize("requests", [0, 1])
@pytest.mark.parametrize("version", VERSIONS)
def test_reuse_never_resumes_nothing_and_asks_for_no_ticket(new_context, version, requests):
    with serving(new_context(version)) as server:
        result = load("--tls-version", version, "-c", 3, "-n", 60, "--requests-per-connection", requests, server.url)
    agrees(result, server)
    assert result["handshakes_full"] == 60
    assert result["resume_offered"] == result["handshakes_resumed"] == 0


def test_every_slot_makes_exactly_one_full_handshake_in_n(new_context):
    with serving(new_context("TLSv1.2")) as server:
        result = load("--reuse", "every:10", "-c", 4, "-n", 400, server.url)
    agrees(result, server)
    # Slots are not equally fast, so each may be in the middle of its ten.
    assert 36 <= result["handshakes_full"] <= 44


@pytest.mark.parametrize("version, kind", KINDS)
def test_a_refused_resumption_is_counted_as_one(new_context, version, kind):
    """Every connection meets a context of its own: new ticket keys, empty cache."""
    with serving(lambda: new_context(version)) as server:
        result = load("--reuse", "always", "--resume-with", kind, "--tls-version", version, "-c", 2, "-n", 30,
                      server.url)
    agrees(result, server)
    assert result["handshakes_full"] == 30
    assert result["handshakes_resumed"] == 0
    assert result["resume_offered"] == result["resume_refused"] == 28


def test_without_a_ticket_nothing_is_offered(new_context):
    with serving(new_context("TLSv1.3", tickets=False)) as server:
        result = load("--reuse", "always", "-c", 2, "-n", 20, server.url)
    agrees(result, server)
    assert result["handshakes_full"] == 20
    assert result["resume_offered"] == 0


def test_a_session_without_a_ticket_is_not_kept_where_tickets_are_asked_for(new_context):
    with serving(new_context("TLSv1.2", tickets=False)) as server:
        result = load("--reuse", "always", "--resume-with", "ticket", "-c", 1, "-n", 20, server.url)
        assert result["handshakes_full"] == 20 and result["resume_offered"] == 0
        result = load("--reuse", "always", "--resume-with", "id", "-c", 1, "-n", 20, server.url)
        assert result["handshakes_full"] == 1 and result["handshakes_resumed"] == 19


@contextlib.contextmanager
def s_server(certificate, *options: str) -> Iterator[str]:
    """OpenSSL's own, which can do without a cache."""
    process = subprocess.Popen(["openssl", "s_server", "-accept", "127.0.0.1:0", "-www", "-cert", certificate[0],
                                "-key", certificate[1], *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               stdin=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("ACCEPT"):
                break
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield f"https://127.0.0.1:{line.rpartition(':')[2].strip()}/"
    finally:
        process.kill()
        process.wait()


def test_with_its_cache_off_a_server_resumes_nothing(certificate):
    with s_server(certificate, "-no_cache", "-no_ticket", "-tls1_2") as url:
        result = load("--reuse", "always", "-c", 1, "-n", 10, url)
    assert result["handshakes_full"] == 10
    assert result["resume_offered"] == 0


def test_several_urls_are_used_in_turn_and_share_sessions(new_context):
    context = new_context("TLSv1.3")
    with serving(context) as one, serving(context) as other:
        result = load("--reuse", "always", "-c", 2, "-n", 40, one.url, other.url)
    assert result["handshakes_full"] == 2 and result["handshakes_resumed"] == 38
    assert abs(one.counts["connections"] - other.counts["connections"]) <= 2
    assert one.counts["connections"] + other.counts["connections"] == 40
    assert result["targets"] == [one.url, other.url]


# ---- Counting ----


@pytest.mark.parametrize("options", [["--reuse", "always"], ["--reuse", "never"], ["--requests-per-connection", "0"],
                                     ["--requests-per-connection", "inf"], ["--requests-per-connection", "3"],
                                     ["--close", "fin"]])
@pytest.mark.parametrize("version", VERSIONS)
def test_totals_of_a_timed_run_agree_with_the_server(new_context, version, options):
    with serving(new_context(version)) as server:
        result = load("-c", 5, "-w", 2, "-d", "300ms", "--warmup", "150ms", *options, server.url)
    agrees(result, server)
    assert not errors(result)
    assert result["duration_s"] == pytest.approx(0.3, abs=1e-6)
    assert result["connections_opened"] <= result["totals"]["connections_opened"]
    assert "half_rates" in result
    if "inf" in options:
        assert result["totals"]["connections_opened"] == 5
        assert "connect" not in result["latency_us"] or result["latency_us"]["connect"]["count"] <= 5


def spoil(faults: Counter[str], every: int, how: Callable[[socket.socket], bool],
          name: str) -> Callable[[socket.socket], bool]:
    """One connection in so many is dealt with like this, and counted."""
    numbers = itertools.count()

    def one(connection: socket.socket) -> bool:
        if next(numbers) % every != every - 1:
            return False
        faults[name] += 1
        return how(connection)
    return one


@pytest.mark.parametrize("requests", [1, 5])
@pytest.mark.parametrize("version", VERSIONS)
def test_totals_agree_with_the_server_with_errors_in_between(new_context, version, requests):
    """Some connections fail before, some after their handshake, and the load ends by the clock in the middle of it."""
    faults: Counter[str] = Counter()
    with serving(new_context(version)) as server:
        server.on_accept = spoil(faults, 5, refuses_with_garbage, "tls_protocol")
        server.on_handshake = spoil(faults, 7, closes_at_once, "unexpected_eof")
        result = load("-c", 4, "-w", 2, "-d", "500ms", "--warmup", "100ms", "--reuse", "every:10",
                      "--requests-per-connection", requests, server.url, status=1)
    agrees(result, server)
    assert errors(result) == faults and all(faults.values())


@pytest.mark.parametrize("loop", [
    ["--rate", "200", "-d", "700ms"],
    ["--rate", "200", "--arrivals", "poisson", "-d", "500ms", "--warmup", "200ms", "--requests-per-connection", "0"],
    ["--rate", "300", "-d", "700ms", "--requests-per-connection", "4"],
    ["--ramp", "300ms", "-d", "400ms", "-c", "20"],
    ["--burst", "60"],
    ["--burst", "60", "--warmup", "500ms"],
    ["--hold", "-c", "20", "--hold-interval", "150ms", "-d", "700ms"],
], ids=" ".join)
@pytest.mark.parametrize("version", VERSIONS)
def test_totals_of_every_loop_agree_with_the_server(new_context, version, loop):
    """With connections that fail in between."""
    faults: Counter[str] = Counter()
    with serving(new_context(version)) as server:
        server.on_accept = spoil(faults, 5, refuses_with_garbage, "tls_protocol")
        result = load("-w", 2, "--tls-version", version, *loop, server.url, status=1)
    agrees(result, server)
    assert errors(result) == faults and faults["tls_protocol"] > 2
    arrivals = result.get("open_loop")
    assert not arrivals or arrivals["due"] == sum(arrivals[what] for what in ("done", "failed", "never_begun"))


def test_one_connection_in_a_hundred_is_a_full_handshake(new_context):
    with serving(new_context("TLSv1.2")) as server:
        result = load("--reuse", "every:100", "-c", 1, "-n", 500, server.url)
    agrees(result, server)
    assert (result["handshakes_full"], result["handshakes_resumed"]) == (5, 495)


def test_a_limit_is_met_exactly(new_context):
    with serving(new_context()) as server:
        result = load("-c", 6, "-w", 3, "-n", 100, "--requests-per-connection", 7, server.url)
    agrees(result, server)
    assert result["transactions"] == result["totals"]["transactions"] == 100
    assert result["latency_us"]["transaction"]["count"] == 100
    assert "half_rates" not in result


def test_a_limit_counts_from_the_end_of_the_warmup(new_context):
    with serving(new_context()) as server:
        result = load("-c", 2, "-n", 20, "--warmup", "200ms", server.url)
    agrees(result, server)
    assert result["totals"]["transactions"] >= result["transactions"] >= 20


def test_whichever_of_limit_and_duration_comes_first_ends_the_run(new_context):
    with serving(new_context()) as server:
        assert load("-c", 1, "-n", 5, "-d", "1m", server.url)["transactions"] == 5
        assert load("-c", 1, "-n", 1000000, "-d", "200ms", server.url)["duration_s"] == pytest.approx(0.2, abs=1e-6)


def test_bytes_are_those_of_the_application(new_context):
    requests: list[bytes] = []

    def answer(head: bytes, body: bytes) -> bytes:
        requests.append(head + b"\r\n\r\n" + body)
        return response(b"y" * 1000)
    with serving(new_context(), answer=answer) as server:
        result = load("-c", 1, "-n", 10, "--body-size", "20k", server.url)
    assert result["bytes_sent"] == sum(map(len, requests))
    assert len(requests[0].partition(b"\r\n\r\n")[2]) == 20 * 1024
    assert result["bytes_received"] == 10 * len(response(b"y" * 1000))
    assert result["response_body_bytes"] == {"min": 1000, "max": 1000}


def test_what_was_agreed_is_told(new_context, tmp_path):
    with serving(new_context()) as server:
        both = load("--reuse", "always", "-c", 1, "-n", 5, "--tls-version", "TLSv1.2", "--group", "P-256", "--cipher",
                    "ECDHE-ECDSA-AES128-GCM-SHA256", server.url)
        third = load("-c", 1, "-n", 5, "--cipher", "TLS_AES_128_GCM_SHA256", "--group", "X25519", server.url)
    agreed = {"tls_version": "TLSv1.2", "cipher": "ECDHE-ECDSA-AES128-GCM-SHA256"}
    assert both["negotiated"] == [
        agreed | {"group": "P-256", "sigalg": "ecdsa_secp256r1_sha256", "count": 1},
        agreed | {"group": "", "sigalg": "", "count": 4}]  # a resumption exchanges no key and signs nothing
    assert third["negotiated"] == [{"tls_version": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256", "group": "X25519",
                                    "sigalg": "ecdsa_secp256r1_sha256", "count": 5}]
    assert third["certificate"]["key"] == "ecdsa:P-256"


def test_another_certificate_shows(new_context, tmp_path):
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(make_certificate(tmp_path, "rsa:2048")[2])
    with serving(new_context()) as one, serving(other) as two:
        result = load("-c", 1, "-n", 10, one.url, two.url)
    assert {row["key"]: row["count"] for row in result["certificates"]} == {"ecdsa:P-256": 5, "rsa:2048": 5}
    assert result["certificate"]["key"] == "ecdsa:P-256"


def test_the_series_and_the_live_line_tell_every_second(new_context, tmp_path):
    with serving(new_context()) as server:
        done = run("loadgen", "-c", "1", "-d", "1500ms", "--warmup", "500ms", "--requests-per-connection", "inf",
                   "--series", str(tmp_path / "series"), "--progress", "--json", str(tmp_path / "json"), server.url)
    assert done.returncode == 0
    rows = list(csv.DictReader((tmp_path / "series").open()))
    assert [row["phase"] for row in rows][:3] == ["warm-up", "measured", "measured"]
    assert all(float(row["elapsed_s"]) >= at for row, at in zip(rows, [0, 1, 1.5]))  # rather late than early
    assert all(float(row["transactions_per_s"]) > 0 for row in rows[1:3])
    assert len(done.stderr.splitlines()) == len(rows)
    assert json.loads((tmp_path / "json").read_text())["transactions"] > 0
    assert "transactions" in done.stdout  # the table for people


# ---- The origin of this project ----


def test_keep_alive_over_tls_with_large_echoes(certificate):
    with running("echo-backend", "https", "-l", "127.0.0.1:0", "--cert", str(certificate[0]), "--key",
                 str(certificate[1])) as backend:
        result = load("-c", 3, "-n", 30, "--requests-per-connection", "inf", "--body-size", "3m", "--check-body",
                      f"https://{backend.address}/")
    assert result["transactions"] == 30
    assert result["response_body_bytes"] == {"min": 3 << 20, "max": 3 << 20}


@pytest.mark.parametrize("options", [["--body-size", "0", "--check-body"], ["--body-size", "100k", "--check-body"],
                                     ["--method", "HEAD"], ["--method", "GET"], ["--close", "rst"],
                                     ["--header", "Connection: close"]])
def test_plain_http(options):
    with running("echo-backend", "http", "-l", "127.0.0.1:0") as backend:
        result = load("-c", 3, "-n", 30, "--requests-per-connection", 5, *options, f"http://{backend.address}/?s=5k")
    assert result["transactions"] == 30
    assert "handshakes_full" not in result and "negotiated" not in result  # not measured is not 0
    assert result["engine"] == "plain"


def test_pieces_of_every_kind_of_body(certificate):
    with running("echo-backend", "http", "-l", "127.0.0.1:0") as backend:
        for query in ("s=0", "s=300k", "s=300k&k=1", "s=300k&C=1"):
            result = load("-c", 2, "-n", 10, "--requests-per-connection", "inf", f"http://{backend.address}/?{query}")
            assert result["transactions"] == 10, query


def test_a_unix_socket(tmp_path):
    with running("echo-backend", "sock", "-l", str(tmp_path / "socket")):
        result = load("-c", 2, "-n", 20, "--unix", tmp_path / "socket", "http://any.name.invalid/")
    assert result["transactions"] == 20


# ---- Faults: each of its own class, once a connection ----


def refuses_with_garbage(connection: socket.socket) -> bool:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.recv(4096)
    return True


def closes_at_once(connection: socket.socket) -> bool:
    connection.recv(4096)
    return True


def resets(connection: socket.socket) -> bool:
    connection.recv(4096)
    reset(connection)
    return True


def never_answers(connection: socket.socket) -> bool:
    while connection.recv(4096):
        pass
    return True


@pytest.mark.parametrize("fault, expected", [
    (refuses_with_garbage, "tls_protocol"), (closes_at_once, "unexpected_eof"), (resets, "reset"),
    (never_answers, "tls_timeout")])
def test_a_fault_instead_of_the_handshake(new_context, fault, expected):
    with serving(new_context()) as server:
        server.on_accept = fault
        result = load("-c", 2, "-n", 6, "--timeout", "300ms" if fault is never_answers else "10s", server.url, status=1)
    assert errors(result) == {expected: 6}
    assert result["totals"]["connections_opened"] == server.counts["connections"] == 6
    assert result["transactions"] == result["handshakes_full"] == 0


@pytest.mark.parametrize("fault, expected", [
    (closes_at_once, "unexpected_eof"), (resets, "reset"), (never_answers, "io_timeout")])
def test_a_fault_instead_of_the_response(new_context, fault, expected):
    with serving(new_context()) as server:
        server.on_handshake = fault
        result = load("-c", 2, "-n", 6, "--timeout", "300ms" if fault is never_answers else "10s", server.url, status=1)
    assert errors(result) == {expected: 6}
    assert result["totals"]["handshakes_full"] == server.counts["full"] == 6
    assert result["transactions"] == 0


@pytest.mark.parametrize("answer, options, expected", [
    (response(b"", "404 Not Found"), [], "http_status"),
    (response(b"x", "503 Busy"), [], "http_status"),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nshort", [], "unexpected_eof"),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n", [], "unexpected_eof"),
    (response(b"right") + b"and more", [], "payload_mismatch"),
    (b"SSH-2.0-not-http\r\n", [], "payload_mismatch"),
    (response(b"x" * 100), ["--body-size", "100", "--check-body"], "payload_mismatch"),
    (response(b""), ["--body-size", "100", "--check-body"], "payload_mismatch"),
])
def test_a_wrong_response(new_context, answer, options, expected):
    with serving(new_context(), answer=lambda head, body: answer) as server:
        result = load("-c", 2, "-n", 6, *options, server.url, status=1)
    assert errors(result) == {expected: 6}
    assert server.counts["requests"] == 6 and result["transactions"] == 0


@pytest.mark.parametrize("change", [lambda body: body[:-1], lambda body: body + b"x", lambda body: body[1:] + body[:1],
                                    lambda body: body[:70000] + bytes([body[70000] ^ 1]) + body[70001:]])
def test_an_echo_with_one_wrong_byte_is_seen(new_context, change):
    with serving(new_context(), answer=lambda head, body: response(change(body))) as server:
        result = load("-c", 1, "-n", 3, "--body-size", "100k", "--check-body", server.url, status=1)
    assert errors(result) == {"payload_mismatch": 3}


@pytest.mark.parametrize("answer", [response(b"bye", "200 OK", "Connection: close"),
                                    b"HTTP/1.0 200 OK\r\n\r\nuntil the end"])
def test_a_server_that_says_that_it_closes_is_no_error(new_context, answer):
    with serving(new_context(), answer=lambda head, body: answer) as server:
        result = load("-c", 2, "-n", 10, "--requests-per-connection", "inf", server.url)
    agrees(result, server)
    assert result["transactions"] == result["connections_opened"] == 10


def test_a_server_that_closes_without_saying_so_is_one(new_context):
    seen = Counter()

    def answer(head: bytes, body: bytes) -> bytes | None:
        seen["requests"] += 1
        return response(b"x") if seen["requests"] % 3 else None
    with serving(new_context(), answer=answer) as server:
        result = load("-c", 1, "-n", 30, "--requests-per-connection", "inf", server.url, status=1)
    assert errors(result) == {"unexpected_eof": 10}
    assert result["transactions"] == 20
    assert result["connections_opened"] == server.counts["connections"] == 10


@pytest.mark.parametrize("requests", [0, 1])
@pytest.mark.parametrize("version", VERSIONS)
def test_an_alert_is_called_that(new_context, version, requests):
    context = new_context(version)
    context.verify_mode = ssl.CERT_REQUIRED  # and we have none: in TLS 1.3 it says so when we are done already
    with serving(context) as server:
        result = load("-c", 1, "-n", 4, "--requests-per-connection", requests, server.url, status=1)
    assert errors(result) == {"tls_alert": 4}


def test_a_version_that_the_server_does_not_speak_is_an_alert(new_context):
    with serving(new_context("TLSv1.3")) as server:
        result = load("-c", 1, "-n", 2, "--tls-version", "TLSv1.2", server.url, status=1)
    assert errors(result) == {"tls_alert": 2}


def test_a_full_queue_is_a_connect_timeout():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(3):  # what does not fit waits for ever
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        result = load("-c", 1, "-n", 2, "--timeout", "200ms", f"http://127.0.0.1:{listener.getsockname()[1]}/",
                      status=1)
    assert errors(result) == {"connect_timeout": 2}


def test_a_target_that_goes_away_is_not_hammered(new_context):
    with serving(new_context()) as server:
        process = subprocess.Popen([program("loadgen"), "-c", "4", "-d", "2s", "--json", "-", server.url],
                                   stdout=subprocess.PIPE, text=True)
        while server.counts["requests"] < 20:
            assert process.poll() is None
            time.sleep(0.01)
        server.stop()
        result = json.loads(process.communicate(timeout=LIMIT_S)[0])
    assert process.returncode == 1
    # From 10 ms doubled to 1 s: some 8 tries a slot.
    assert 4 <= errors(result)["connect_refused"] <= 4 * 12


def test_verify_peer_takes_the_right_certificate_only(new_context, certificate, tmp_path):
    other = make_certificate(tmp_path, name="other")
    with serving(new_context()) as server:
        url = f"https://localhost:{server.port}/"
        good = load("-c", 1, "-n", 2, "--verify-peer", "--ca", certificate[0], url)
        bad = load("-c", 1, "-n", 2, "--verify-peer", "--ca", other[0], url, status=1)
        name = load("-c", 1, "-n", 2, "--verify-peer", "--ca", certificate[0], "--sni", "other.name", url, status=1)
        number = load("-c", 1, "-n", 2, "--verify-peer", "--ca", certificate[0], server.url)
    nameless = make_certificate(tmp_path / "nameless", address="127.0.0.2")
    with serving(server_context(nameless[2])) as server:
        other_number = load("-c", 1, "-n", 2, "--verify-peer", "--ca", nameless[0], server.url, status=1)
    assert good["transactions"] == number["transactions"] == 2
    assert errors(bad) == errors(name) == errors(other_number) == {"tls_protocol": 2}


def test_sni_alpn_and_headers_arrive(new_context):
    names: list[str | None] = []
    heads: list[bytes] = []
    context = new_context()
    context.sni_callback = lambda tls, name, ctx: names.append(name)
    context.set_alpn_protocols(["http/1.1"])
    protocols: list[str | None] = []

    def answer(head: bytes, body: bytes) -> bytes:
        heads.append(head)
        return response()
    with serving(context, answer=answer) as server:
        def note(tls: ssl.SSLSocket) -> bool:
            protocols.append(tls.selected_alpn_protocol())
            return False
        server.on_handshake = note
        load("-c", 1, "-n", 1, "--alpn", "http/1.1", "--header", "X-One: 1", "--header", "Host: given", server.url)
        load("-c", 1, "-n", 1, "--sni", "some.name", f"https://localhost:{server.port}/p?q=1")
        load("-c", 1, "-n", 1, f"https://localhost:{server.port}/")
    assert names == [None, "some.name", "localhost"]
    assert protocols == ["http/1.1", None, None]
    assert heads[0].split(b"\r\n") == [b"GET / HTTP/1.1", b"X-One: 1", b"Host: given"]
    assert heads[1].split(b"\r\n") == [b"GET /p?q=1 HTTP/1.1", b"Host: localhost:%d" % server.port]


@pytest.mark.parametrize("reuse", ["never", "always"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("engine", ["light", "openssl"])
def test_the_protocol_that_was_agreed_is_told(new_context, engine, version, reuse):
    context = new_context(version)
    context.set_alpn_protocols(["http/1.1", "x"])
    ways = ["--engine", engine, "-c", 1, "-n", 3, "--reuse", reuse]
    with serving(context) as server:
        agreed = load(*ways, "--alpn", "y,http/1.1", server.url)
        none = load(*ways, server.url)
    with serving(new_context(version)) as server:
        ignored = load(*ways, "--alpn", "http/1.1", server.url)
    for result, names in [(agreed, {"http/1.1"}), (none, {None}), (ignored, {""})]:
        assert {row.get("alpn") for row in result["negotiated"]} == names
        assert sum(row["count"] for row in result["negotiated"]) == 3


# ---- Interruptions ----


@contextlib.contextmanager
def loading(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([program("loadgen"), "--json", "-", *map(str, arguments)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout and process.stderr
        process.stdout.close()
        process.stderr.close()


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_tells_what_it_measured(new_context, number):
    with serving(new_context()) as server, loading("-c", 4, "-w", 2, "-d", "5m", server.url) as process:
        wait_for(lambda: server.counts["requests"] > 50)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        out, _ = process.communicate(timeout=LIMIT_S)
    result = json.loads(out)
    assert process.returncode == 1
    assert result["interrupted"] is True
    assert "half_rates" not in result
    assert result["transactions"] > 0
    agrees(result, server)


def test_a_worker_that_dies_is_an_error(new_context):
    with serving(new_context()) as server, loading("-c", 4, "-w", 2, "-d", "5m", server.url) as process:
        wait_for(lambda: server.counts["requests"] > 50)
        os.kill(workers_of(process)[0], signal.SIGKILL)
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "killed by signal 9" in json.loads(out)["error"]
    assert "killed by signal 9" in err


def test_workers_end_with_their_master(new_context):
    with serving(new_context()) as server, loading("-c", 4, "-w", 2, "-d", "5m", server.url) as process:
        wait_for(lambda: server.counts["requests"] > 10)
        workers = workers_of(process)
        assert len(workers) == 2
        process.kill()
        wait_for(lambda: not any(map(is_alive, workers)))


def test_what_does_not_end_after_the_window_is_given_up(new_context):
    with serving(new_context()) as server:
        server.on_handshake = never_answers
        result = load("-c", 2, "-d", "200ms", "--timeout", "1m", server.url, status=1)
    assert errors(result) == {"io_timeout": 2}
    assert sum(result["errors"].values()) == 0  # they belong to the drain
    agrees(result | {"totals": result["totals"] | {"transactions": 0}}, server)


@pytest.mark.parametrize("count", [3, 300])  # fewer and more than may end outside their slots at a time
def test_a_target_that_never_closes_is_waited_for_a_second_and_counted(count):
    kept = []

    def answer(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                kept.append(listener.accept()[0])
                kept[-1].recv(4096)
                kept[-1].sendall(response(b"hello"))

    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        thread = threading.Thread(target=answer, args=(listener,), daemon=True)
        thread.start()
        result = load("-c", 1, "-n", count, f"http://127.0.0.1:{listener.getsockname()[1]}/")
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(LIMIT_S)
    for connection in kept:
        connection.close()
    assert errors(result) == {}
    assert result["totals"]["transactions"] == result["totals"]["closes_unanswered"] == count
