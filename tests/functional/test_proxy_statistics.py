"""The proxy's statistics: every connection and handshake is counted once, under the right name, in both formats."""
from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import struct
import subprocess
from pathlib import Path

import pytest

import prometheus_text
from programs import Running, program, running
from proxies import backend, client_context, connected, counters, echo, eventually, proxy


def get(server: Running, path: str) -> tuple[http.client.HTTPResponse, str]:
    host, _, port = server.announced["stats"].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    return response, response.read().decode()


def metrics(server: Running) -> dict[str, prometheus_text.Family]:
    response, text = get(server, "/metrics")
    assert response.getheader("Content-Type") == "text/plain; version=0.0.4"
    return prometheus_text.parse(text)


def failures(server: Running) -> dict[str, int]:
    return {name: count for name, count in counters(server)["handshakes_failed_by"].items() if count}


def openssl_client(server: Running, *options: str) -> None:
    subprocess.run(["openssl", "s_client", "-connect", server.address, *options], input="", capture_output=True,
                   text=True, timeout=60, check=False)


def send(server: Running, data: bytes, reset: bool = False) -> None:
    with socket.create_connection(server.host_port, timeout=60) as plain:
        plain.sendall(data)
        if reset:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        plain.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while plain.recv(1000):
                pass


def distrust(server: Running, version: ssl.TLSVersion) -> None:
    """A client that does not know who signed the certificate, and says so in an alert."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.check_hostname = False
    with socket.create_connection(server.host_port, timeout=60) as plain:
        with pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(plain)


def alert_after_hello(server: Running, number: int) -> None:
    """A ClientHello that is answered, and then a fatal alert of that number."""
    context = client_context(ssl.TLSVersion.TLSv1_2)
    received, waiting = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, waiting)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    with socket.create_connection(server.host_port, timeout=60) as plain:
        plain.sendall(waiting.read())
        assert plain.recv(1000)
        plain.sendall(b"\x15\x03\x03\x00\x02\x02" + bytes([number]))
        with contextlib.suppress(OSError):
            while plain.recv(1000):
                pass


def test_each_way_to_fail_a_handshake_has_its_name(ecdsa: str) -> None:
    options = ("--handshake-timeout", "1s", "--groups", "P-256", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256",
               "--ciphersuites", "TLS_AES_128_GCM_SHA256", "-n", "2")
    ways = {
        "not_tls": [lambda server: send(server, b"GET / HTTP/1.1\r\n\r\n"),
                    lambda server: send(server, b"CONNECT x:1 HTTP/1.1\r\n\r\n"),
                    lambda server: send(server, b"SSH-2.0-OpenSSH_9.2\r\n"),
                    lambda server: send(server, bytes(100))],
        "peer_gone": [lambda server: send(server, b""), lambda server: send(server, b"\x16\x03\x01"),
                      lambda server: send(server, b"\x16\x03\x01\x02\x00\x01", reset=True)],
        "unsupported_version": [lambda server: openssl_client(server, "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0")],
        "no_shared_cipher": [lambda server: openssl_client(server, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"),
                             lambda server: openssl_client(server, "-ciphersuites", "TLS_AES_256_GCM_SHA384",
                                                           "-tls1_3")],
        "no_shared_group": [lambda server: openssl_client(server, "-tls1_3", "-groups", "X25519")],
        "no_shared_signature": [lambda server: openssl_client(server, "-tls1_3", "-sigalgs", "RSA-PSS+SHA256")],
        "alert_unknown_ca": [lambda server: distrust(server, ssl.TLSVersion.TLSv1_2),
                             lambda server: distrust(server, ssl.TLSVersion.TLSv1_3)],
        "alert_bad_certificate": [lambda server: alert_after_hello(server, 42)],
        "alert_certificate_expired": [lambda server: alert_after_hello(server, 45)],
        "alert_certificate_unknown": [lambda server: alert_after_hello(server, 46)],
        "alert_handshake_failure": [lambda server: alert_after_hello(server, 40)],
        "alert_protocol_version": [lambda server: alert_after_hello(server, 70)],
        "alert_other": [lambda server: alert_after_hello(server, 80), lambda server: alert_after_hello(server, 90)],
        "protocol": [lambda server: send(server, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"),
                     lambda server: send(server, b"\x16\x03\x03\x00\x04\x02\x00\x00\x00")],
    }
    with backend(echo) as to, proxy(to, ecdsa, *options) as server:
        expected: dict[str, int] = {}
        for name, clients in ways.items():
            for fail in clients:
                fail(server)
                expected[name] = expected.get(name, 0) + 1
                eventually(lambda: sum(failures(server).values()) >= sum(expected.values()), f"{name} is counted")
                assert failures(server) == expected
        with socket.create_connection(server.host_port, timeout=60) as plain:
            plain.sendall(b"\x16")
            assert plain.recv(1) == b""
        expected["timeout"] = 1
        assert failures(server) == expected
        counted = counters(server)
        total = sum(expected.values())
        assert counted["handshakes_failed"] == total == counted["connections_accepted"]
        assert counted["closed"]["handshake_timeout"] == 1 and counted["closed"]["handshake_failed"] == total - 1
        families = metrics(server)
        for name, count in expected.items():
            assert families["tlsdyno_handshakes_failed_total"].sum(reason=name) == count
        assert families["tlsdyno_handshakes_failed_total"].sum() == total


def test_failed_handshakes_are_told_at_a_bounded_rate(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as server:
        for _ in range(200):
            send(server, b"GET / HTTP/1.1\r\n\r\n")
        eventually(lambda: len(server.errors) >= 1, "the operator is told")
        assert "handshake failed: not_tls: " in server.errors[0] and "client 127.0.0.1:" in server.errors[0]
        assert len(server.errors) < 100


def test_both_formats_say_the_same_and_add_up(ecdsa: str) -> None:
    with running("echo-backend", "http", "-l", "127.0.0.1:0") as origin, \
            proxy(origin.address, ecdsa, "-n", "2") as server:
        load = subprocess.Popen([program("loadgen"), "-c", "30", "-n", "3000", "--warmup", "0",
                                 "--requests-per-connection", "2", f"https://{server.address}/"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while load.poll() is None:  # while it runs, too
                for one in (counters(server), *counters(server)["workers"]):
                    assert one["connections_accepted"] == one["connections_open"] + sum(one["closed"].values())
                    assert one["connections_open"] >= 0
                metrics(server)
        finally:
            load.kill()
            load.wait()
        eventually(lambda: counters(server)["connections_open"] == 0, "all connections have ended")
        counted, families = counters(server), metrics(server)
        assert counted["connections_accepted"] == sum(counted["closed"].values()) > 0
        for name, value in counted.items():
            family = families.get(f"tlsdyno_{name}_total")
            if isinstance(value, int) and family and name != "handshakes_failed":
                assert family.type == "counter" and family.sum() == value, name
                by_worker = [worker.get(name, value) for worker in counted["workers"]]
                if family.sum(worker="0") + family.sum(worker="1"):
                    assert [family.sum(worker=str(index)) for index in range(2)] == by_worker, name
        for reason, value in counted["closed"].items():
            assert families["tlsdyno_connections_closed_total"].sum(reason=reason) == value
        assert families["tlsdyno_processes"].sum() == 2
        assert families["tlsdyno_generation"].sum() == counted["generation"] == 1
        assert families["tlsdyno_start_time_seconds"].sum() == counted["started_unix_s"]
        version = subprocess.run([program("proxy"), "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
        assert families["tlsdyno_build_info"].sum(version=version) == 1 and counted["version"] == version


def visit_from(server: Running, source: str, size: int) -> None:
    with socket.create_connection(server.host_port, timeout=60, source_address=(source, 0)) as plain:
        with client_context().wrap_socket(plain) as tls:
            tls.sendall(b"x" * size)
            left = size
            while left:
                left -= len(tls.recv(left))


def test_the_busiest_clients_are_shown_in_order_whoever_served_them(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "-n", "2", "--top-clients", "3") as server:
        for _ in range(4):
            for last in range(2, 8):
                visit_from(server, f"127.0.0.{last}", last * 1000)
        eventually(lambda: sum(counters(server)["closed"].values()) == 24, "all visits have ended")
        os.kill(server.workers()[0], signal.SIGKILL)  # what it counted stays
        expected = [{"address": f"127.0.0.{last}", "bytes": last * 8000, "connections": 4} for last in (7, 6, 5)]
        eventually(lambda: counters(server)["top_clients"] == expected, "the three busiest")
        assert counters(server)["top_clients_error_bytes"] == 0
        families = metrics(server)
        assert families["tlsdyno_top_client_bytes"].sum(client="127.0.0.7") == 56000
        assert families["tlsdyno_top_client_connections"].sum(client="127.0.0.5") == 4


def test_clients_are_not_shown_where_nobody_asks(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "--top-clients", "0") as server:
        with connected(server) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
        assert "top_clients" not in counters(server)
        assert not [name for name in metrics(server) if "top_client" in name]


def test_clients_by_ipv6_and_by_socket_file(ecdsa: str, tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with backend(echo) as to:
        with running("proxy", "-f", "[::1]:0", "-b", to, "--stats", "127.0.0.1:0", ecdsa) as server:
            with connected(server) as tls:
                tls.sendall(b"x")
                assert tls.recv(1) == b"x"
            eventually(lambda: [client["address"] for client in counters(server)["top_clients"]] == ["::1"], "by IPv6")
        front = str(tmp_path / "front.sock")
        with running("proxy", "-f", front, "-b", to, "--stats", "127.0.0.1:0", ecdsa) as server:
            with socket.socket(socket.AF_UNIX) as plain:
                plain.connect(front)
                with client_context().wrap_socket(plain) as tls:
                    tls.sendall(b"x")
                    assert tls.recv(1) == b"x"
            eventually(lambda: sum(counters(server)["closed"].values()) == 1, "it has ended")
            assert counters(server)["top_clients"] == []
