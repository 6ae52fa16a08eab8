"""What goes to the server together, and what must not be kept back."""
from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from counting_server import LIMIT_S, VERSIONS, agrees, load, server_context, serving, wait_for
from programs import make_certificate, program


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))[2]


class Relay:
    """Passes connections on to a server, one at a time, and notes what came from the client before each answer."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.server_port = port
        self.chunks: list[list[bytes]] = []  # of each connection
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while True:
            client, _ = self.listener.accept()
            with client:
                first = client.recv(65536)
                if not first:
                    return
                self.chunks.append([first])
                self.talk(client, first)

    def talk(self, client: socket.socket, first: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.server_port)) as server:
            server.sendall(first)
            back = threading.Thread(target=self.pass_back, args=(server, client))
            back.start()
            while chunk := client.recv(65536):
                self.chunks[-1].append(chunk)
                server.sendall(chunk)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_WR)
            back.join()

    @staticmethod
    def pass_back(server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := server.recv(65536):
                client.sendall(chunk)
            client.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        socket.create_connection(self.listener.getsockname()).close()
        self.thread.join(LIMIT_S)
        self.listener.close()


@pytest.mark.parametrize("engine", ["openssl", "light"])
@pytest.mark.parametrize("version, reuse, flights", [("TLSv1.3", "never", 2), ("TLSv1.3", "always", 2),
                                                     ("TLSv1.2", "never", 3), ("TLSv1.2", "always", 2)])
def test_the_last_flight_and_the_request_are_one_segment(pem, version, reuse, flights, engine):
    """ClientHello, (TLS 1.2, full: key exchange and Finished,) Finished and request, close_notify."""
    with serving(server_context(pem, version)) as server:
        relay = Relay(server.port)
        try:
            result = load("--engine", engine, "--reuse", reuse, "-c", 1, "-n", 3, relay.url)
        finally:
            relay.stop()
    agrees(result, server)
    assert all(len(chunks) <= flights + 1 for chunks in relay.chunks[1 if reuse == "always" else 0:])


@pytest.mark.parametrize("engine", ["openssl", "light"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_connection_that_rests_has_sent_all_of_its_handshake(pem, version, engine):
    """The second of two connections has nothing to send for a thousand seconds."""
    with serving(server_context(pem, version)) as server:
        process = subprocess.Popen([program("loadgen"), "--json", "-", "--engine", engine, "-c", "2", "--rate", "0.001",
                                    "-d", "5m", "--requests-per-connection", "inf", server.url],
                                   stdout=subprocess.PIPE, text=True)
        wait_for(lambda: server.counts["full"] == 2)
        process.terminate()
        result = json.loads(process.communicate(timeout=LIMIT_S)[0])
    agrees(result, server)


@pytest.mark.parametrize("engine", ["openssl", "light"])
@pytest.mark.parametrize("close", ["fin", "notify"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_handshake_alone_is_sent_to_its_end(pem, version, close, engine):
    with serving(server_context(pem, version)) as server:
        result = load("--engine", engine, "--close", close, "--requests-per-connection", 0, "-c", 2, "-n", 10,
                      server.url)
    agrees(result, server)
    assert result["handshakes_full"] == server.counts["full"] == 10
